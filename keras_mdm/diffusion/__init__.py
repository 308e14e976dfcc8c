"""The mathematics of diffusion. It knows nothing of networks."""

from keras_mdm.diffusion.process import Process
from keras_mdm.diffusion.samplers import Coefficients, Sampler
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.diffusion.spacing import time_shift_spacing
from keras_mdm.diffusion.timesteps import LogitNormal
