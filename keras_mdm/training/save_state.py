"""The callback that writes the state of training, between epochs and when stopped."""

from keras_mdm.fitting.places import START
from keras_mdm.fitting.step_callbacks import StepCallback
from keras_mdm.training.stage_callback import steps_done
from keras_mdm.training.state import save_state


class SaveState(StepCallback):
    """Writes the state of training before the first step of a stage, after each epoch,
    and when asked to. From one `fit` to the next it keeps the place in the data.

    Args:
        folder: Path, or `None` to write nothing.
        settings: dict of JSON values; see `ProgressiveSchedule.settings`.
        index: int. Index of the stage.
        stage: `Stage`.
        place: dict or `None`. Where in the data a resumed stage goes on.
    """

    def __init__(self, folder, settings, index, stage, place=None):
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.index = index
        self.rounds = stage.rounds()
        self.anew = place is not None
        self.place = place or START

    def save_first(self, mdm):
        """Must be called before the first step of a stage.

        Args:
            mdm: `MDM`, compiled for the stage.
        """
        self.set_model(mdm)
        self._save(0, 0)

    def begin_fit(self, mdm, done):
        """Must be called before each `fit`, with the steps of its epoch that are done.

        Args:
            mdm: `MDM`.
            done: int.
        """
        self.set_model(mdm)
        self.epoch, self.done = None, done

    def on_train_begin(self, logs=None):
        self.start = steps_done(self.model)
        self.places.begin(self.place, self.anew)
        self.anew = False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begin = epoch, steps_done(self.model)

    def on_train_batch_end(self, batch, logs=None):
        # Forgets places that are passed.
        self.places.after(self.begin - self.start + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self.rounds[0] is None:
            self.place = self.places.next_pass()
        else:
            self.place = self.places.after(steps_done(self.model) - self.start)
        self._save(epoch + 1, 0)
        self.epoch, self.done = None, 0

    def save_now(self):
        """Writes the state in the middle of an epoch, if a step of it was done."""
        count = steps_done(self.model)
        if self.epoch is not None and count > self.begin:
            self.place = self.places.after(count - self.start)
            step = self.done + count - self.begin
            whole = step == self.rounds[self.epoch]
            self._save(self.epoch + whole, 0 if whole else step)
        if self.folder is not None:
            print(
                f"\nStopped after step {count} of stage {self.index + 1}. "
                f"`resume=True` goes on from the state in '{self.folder}'.",
                flush=True,
            )

    def _save(self, epoch, step):
        if self.folder is None:
            return
        progress = {"stage": self.index, "epoch": epoch, "step": step}
        save_state(self.model, self.folder, progress, self.settings, self.place)
