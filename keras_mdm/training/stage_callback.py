"""What the callbacks of `callbacks` and `progress` share: stage and step."""

import keras

from keras_mdm import backend
from keras_mdm.fitting.step_callbacks import StepCallback
from keras_mdm.paths import as_path, own_folder
from keras_mdm.training.attempts import Attempts
from keras_mdm.training.event_log import EventLog


class StageCallback(StepCallback):
    """Knows the stage and counts its steps; base of the callbacks here.

    Attributes:
        step: int. Steps of the stage that are done.
        every: int or `None`. Steps between what the callback does, where it has one.
        epoch_start: int. Steps that were done when the epoch began; of one that is
            resumed in its middle, when it really did.
    """

    def __init__(self):
        super().__init__()
        self.stage_index = 0
        self.stage = self.every = None
        self.step = self.epoch_start = 0
        self.resumed = None
        self.log_attempts = Attempts("A log of TensorBoard")

    def on_stage_begin(self, index, stage):
        self.stage_index, self.stage = index, stage

    def get_state(self):
        """What the callback must know of an epoch to go on in its middle.

        Returns:
            dict of JSON values.
        """
        return {"epoch_start": self.epoch_start}

    def set_state(self, state):
        """Takes what `get_state` returned, before the epoch that goes on begins."""
        self.resumed = state

    def on_train_begin(self, logs=None):
        self.step = steps_done(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        # Keras counts the batches of an epoch that is resumed from 0 too.
        self.counted_from = self.epoch_start = self.step
        if self.resumed is not None:
            # An older version may not have known all of it.
            self.take_up({**self.get_state(), **self.resumed})
            self.resumed = None

    def take_up(self, state):
        """Goes on in the middle of an epoch, with what `get_state` returned there."""
        self.epoch_start = state["epoch_start"]

    def on_train_batch_end(self, batch, logs=None):
        # With `steps_per_execution`, `batch` is the last of several.
        self.step = self.counted_from + batch + 1

    def passed(self, since):
        """Whether a multiple of `every` lies after a step, up to this one."""
        return self.step // self.every > since // self.every

    def is_due(self):
        """Whether one lies in the epoch that ends; not at the end of a stage, which has
        `on_stage_end`."""
        ends = self.stage is not None and self.step == self.stage.steps
        return bool(self.every) and not ends and self.passed(self.epoch_start)

    def open_writer(self, log_dir, kind):
        """`EventLog` of the stage; that of a resumed one hides what it repeats."""
        folder = as_path(log_dir)
        if self.stage is not None:
            name = f"stage{self.stage_index + 1}_{self.stage.resolution}px"
            folder = own_folder(folder, name)
        first = self.step + 1 if self.step else None
        return EventLog(folder, kind, self.log_attempts, first)


def steps_done(mdm):
    """Training steps by the optimizer's count, over a resume and a second `fit`."""
    return int(keras.ops.convert_to_numpy(backend.steps_taken(mdm.optimizer)))
