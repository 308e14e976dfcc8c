"""The callback that writes the state of training, between epochs and when stopped."""

import concurrent.futures

from keras_mdm.fitting.places import START
from keras_mdm.fitting.step_callbacks import StepCallback
from keras_mdm.training.attempts import Attempts
from keras_mdm.training.stage_callback import steps_done
from keras_mdm.training.state import take_state


class SaveState(StepCallback):
    """Writes the state of training before the first step of a stage, after each epoch,
    and when asked to. From one `fit` to the next it keeps the place in the data.

    Training waits until the values are copied to the memory of the host. Another thread
    writes them, and tells of a failure when the next state is due, or in `close`. If
    the disk is full, or can't be written to for another reason, training goes on.

    Args:
        folder: Path, or `None` to write nothing.
        run: str. Name of the run, the same one after it is resumed.
        settings: dict of JSON values; see `ProgressiveSchedule.settings`.
        index: int. Index of the stage.
        stage: `Stage`.
        callbacks: Sequence of callbacks. Those with `get_state` and `set_state` are
            asked for what they must know to go on in the middle of an epoch.
        keep_every: int or `None`. See `take_state`.
    """

    def __init__(self, folder, run, settings, index, stage, callbacks, keep_every=None):
        super().__init__()
        self.folder = folder
        self.run = run
        self.settings = settings
        self.index = index
        self.rounds = stage.rounds()
        self.callbacks = [c for c in callbacks if hasattr(c, "get_state")]
        self.keep_every = keep_every
        self.place, self.anew = START, False
        self.metrics = None
        self.writer = concurrent.futures.ThreadPoolExecutor(1)
        self.written = None
        self.attempts = Attempts(
            "The state of training",
            f"The one before it stays in '{folder}'. Training goes on, and the next "
            "one is tried.",
        )

    def begin(self, mdm, state=None, goes_on=True):
        """Must be called before the first step of a stage. Restores a state, or writes
        the first one.

        Args:
            mdm: `MDM`, compiled for the stage.
            state: `State` or `None`.
            goes_on: bool. Whether steps of the stage follow.
        """
        self.set_model(mdm)
        if state is None:
            self._save(0, 0)
            if self.written is not None and not self.index:
                self.written.result()  # A folder that can't be written to is told now.
            return
        metrics = state.restore(mdm)
        self.place, self.anew = state.place, True
        _, _, step = state.files.key
        if step and goes_on:
            self.metrics, self.begun = metrics, state.path
            saved = {kind: list(s) for kind, s in state.values["callbacks"].items()}
            for callback in self.callbacks:
                states = saved.get(type(callback).__name__)
                if states:
                    callback.set_state(states.pop(0))

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
        self.epoch, self.first = epoch, steps_done(self.model)
        if self.metrics is not None:
            variables, values = self.model.metrics_variables, self.metrics
            if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
                raise ValueError(
                    "the newest state of training is of the middle of an epoch, and "
                    "another version of keras_mdm wrote it, which kept other figures: "
                    f"resume with that, or remove '{self.begun}', to go on from the "
                    "state before it."
                )
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            self.metrics = None

    def on_train_batch_end(self, batch, logs=None):
        # Forgets places that are passed.
        self.places.after(self.first - self.start + batch + 1)

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
        if self.epoch is not None and count > self.first:
            self.place = self.places.after(count - self.start)
            step = self.done + count - self.first
            whole = step == self.rounds[self.epoch]
            self._save(self.epoch + whole, 0 if whole else step)
        self._wait()
        if self.folder is not None:
            print(
                f"\nStopped after step {count} of stage {self.index + 1}. "
                f"`resume=True` goes on from the state in '{self.folder}'.",
                flush=True,
            )

    def close(self):
        """Must be called at the end of the stage, however it comes."""
        try:
            self._wait()
        finally:
            self.writer.shutdown()

    def _wait(self):
        """Until the last state is written; says once that one could not be."""
        written, self.written = self.written, None
        if written is not None:
            with self.attempts.going_on():
                written.result()

    def _save(self, epoch, step):
        if self.folder is None:
            return
        states = {}
        for callback in self.callbacks if step else ():
            kind = type(callback).__name__
            states.setdefault(kind, []).append(callback.get_state())
        self._wait()
        write = take_state(
            self.model,
            self.folder,
            {"stage": self.index, "epoch": epoch, "step": step},
            self.keep_every,
            run=self.run,
            settings=self.settings,
            place=self.place,
            callbacks=states,
        )
        self.written = self.writer.submit(write)
