"""Training over several stages, and the callbacks that report on it."""

from keras_mdm.training.progressive import ProgressiveSchedule
from keras_mdm.training.stage import Stage, StageLearningRate, default_optimizer
