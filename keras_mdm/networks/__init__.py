"""Denoising networks, composed of layers. They know nothing of diffusion."""

from keras_mdm.networks.base import DenoisingNetwork
from keras_mdm.networks.inflated_unet import InflatedUNet
from keras_mdm.networks.nested_unet import NestedUNet
from keras_mdm.networks.unet import UNet
