"""The public names of `keras_mdm`, which takes all of them over.

What needs a package that not everybody has is imported where it is used.
"""

from keras_mdm import (
    backend,
    callbacks,
    conditioning,
    data,
    diffusion,
    distribution,
    layers,
    metrics,
    networks,
)
from keras_mdm.conditioning import ClassLabels, TextEmbeddings, TextEncoder
from keras_mdm.data.video_writer import write_video
from keras_mdm.diffusion import NoiseSchedule
from keras_mdm.mdm import MDM
from keras_mdm.muon import Muon
from keras_mdm.networks import Denoiser, InflatedUNet, NestedUNet, UNet
from keras_mdm.optimizer import AdamW
from keras_mdm.saving import presets
from keras_mdm.schedule_free import ScheduleFreeAdamW
from keras_mdm.training import ProgressiveSchedule, Stage

# By name, so that what stands on top is imported when it is needed.
presets.register_reader("keras_mdm.convert")
