"""Public names of the callbacks; see `keras_mdm.training.callbacks`."""

from keras_mdm.training.average_snapshots import AverageSnapshots
from keras_mdm.training.callbacks import History, SampleGrid, StopOnNaN
from keras_mdm.training.progress import Progress
