"""The mathematics of diffusion. It knows nothing of networks."""

from keras_mdm.diffusion.schedules import SCHEDULES, NoiseSchedule
