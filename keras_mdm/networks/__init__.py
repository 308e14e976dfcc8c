"""Denoising networks, composed of layers. They know nothing of diffusion."""

from keras_mdm.networks.nested import NestedUNet
from keras_mdm.networks.protocol import Denoiser
from keras_mdm.networks.unet import UNet
from keras_mdm.networks.video import InflatedUNet
