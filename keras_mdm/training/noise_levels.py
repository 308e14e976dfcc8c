"""Losses by noise level. Public as `keras_mdm.callbacks.NoiseLevels`."""

import numpy as np

from keras_mdm import backend
from keras_mdm.fitting.monitor import EDGES
from keras_mdm.paths import as_path
from keras_mdm.training.rows import PLACE, Rows
from keras_mdm.training.stage_callback import StageCallback

_COLUMNS = [*PLACE, "level", "log_snr_from", "log_snr_to", "loss", "samples"]


class NoiseLevels(StageCallback):
    """Writes the mean loss of each level and range of log-SNR, at the end of an epoch.

    The log-SNR is that of each level's own shifted schedule, `log(alpha^2 / sigma^2)`;
    the first and the last range take what lies beyond them too.

    Args:
        path: Path of the CSV file; see `History` for one that exists.
        log_dir: Optional path of TensorBoard logs, as `History` takes it.
    """

    def __init__(self, path, log_dir=None):
        super().__init__()
        self.rows = Rows(as_path(path), lambda: _COLUMNS)
        self.log_dir = log_dir
        self.found = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        now = (self.stage_index + 1, self.step)
        self.rows.take_up(now, in_stages=self.stage is not None)

    def on_test_begin(self, logs=None):
        # Validation sets the sums to zero before an epoch ends.
        self.found = self._read()

    def on_epoch_end(self, epoch, logs=None):
        (losses, counts), self.found = self.found or self._read(), None
        place = (self.stage_index + 1, self.model.resolution, self.step)
        rows = []
        for number, bin_ in np.argwhere(counts > 0).tolist():
            level = self.model.network.levels[number]
            mean = losses[number, bin_] / counts[number, bin_]
            values = (level, EDGES[bin_], EDGES[bin_ + 1], mean, counts[number, bin_])
            rows.append(dict(zip(_COLUMNS, (*place, *values), strict=True)))
        self.rows.append(*rows)
        if self.log_dir is not None and rows:
            writer = self.open_writer(self.log_dir, "noise_levels")
            for row in rows:
                where = f"noise_level_{row['level']}/{row['log_snr_from']:+03d}"
                writer.add_scalar(where, row["loss"], self.step)
            writer.close()

    def _read(self):
        monitor = self.model.monitor
        return backend.newest(self.model, [monitor.losses, monitor.counts])
