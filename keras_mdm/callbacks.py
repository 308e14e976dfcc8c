"""Public names of the callbacks; see `keras_mdm.training.callbacks`."""

from keras_mdm.training.average_snapshots import AverageSnapshots
from keras_mdm.training.callbacks import History, SampleGrid
from keras_mdm.training.guard import LossGuard
from keras_mdm.training.noise_levels import NoiseLevels
from keras_mdm.training.progress import Progress
