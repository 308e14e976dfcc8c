"""What the callbacks of `callbacks` and `progress` share: stage and step."""

import keras

from keras_mdm import backend
from keras_mdm.files import as_path
from keras_mdm.fitting.step_callbacks import StepCallback


class StageCallback(StepCallback):
    """Knows the stage and counts its steps; base of the callbacks here."""

    def __init__(self):
        super().__init__()
        self.stage_index = 0
        self.stage = None
        self.step = 0

    def on_stage_begin(self, index, stage):
        self.stage_index, self.stage = index, stage

    def on_train_begin(self, logs=None):
        self.step = steps_done(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_start = self.step

    def on_train_batch_end(self, batch, logs=None):
        # With `steps_per_execution`, `batch` is the last of several.
        self.step = self.epoch_start + batch + 1

    def open_writer(self, log_dir, kind):
        """TensorBoard writer of the stage; a resumed one hides what it repeats."""
        from tensorboardX import SummaryWriter

        folder = as_path(log_dir)
        if self.stage is not None:
            folder /= f"stage{self.stage_index + 1}_{self.stage.resolution}px"
        # Two writers that start in one second would share a file without the suffix.
        return SummaryWriter(
            str(folder),
            purge_step=self.step + 1 if self.step else None,
            filename_suffix=f".{kind}",
            # Each time it waits for the disk, so not at every row.
            flush_secs=10,
        )


def steps_done(mdm):
    """Training steps by the optimizer's count, over a resume and a second `fit`."""
    return int(keras.ops.convert_to_numpy(backend.steps_taken(mdm.optimizer)))
