"""Training over several stages, and the callbacks that report on it."""

from keras_mdm.training.progressive import (
    LinearWarmup,
    ProgressiveSchedule,
    Stage,
    default_optimizer,
)
