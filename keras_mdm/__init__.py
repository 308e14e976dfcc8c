"""Matryoshka Diffusion Models in Keras 3.

Public names only. Parts with heavier dependencies are imported by their own path:
`keras_mdm.data`, `keras_mdm.callbacks`.
"""

from keras_mdm import conditioning, diffusion, layers, networks
from keras_mdm.conditioning import ClassLabels, TextEmbeddings, TextEncoder
from keras_mdm.data.video_files import write_video
from keras_mdm.diffusion import NoiseSchedule
from keras_mdm.model.mdm import MDM
from keras_mdm.model.optimizer import AdamW
from keras_mdm.networks import InflatedUNet, NestedUNet, UNet
from keras_mdm.training import ProgressiveSchedule, Stage

__version__ = "0.1.0"
