"""The progress line of a stage. Public as `keras_mdm.callbacks.Progress`."""

import sys
import time

from keras_mdm.levels import read_level
from keras_mdm.training.stage_callback import StageCallback, Stopwatch


class Progress(StageCallback):
    """Progress of a whole stage, with pictures or clips a second and the time left.

    In a terminal one line is redrawn; elsewhere, as in a log file, a line is added now
    and then.

    Args:
        batch_size: int or `None`. Pictures or clips a step, where there is no `Stage`
            that says so.
        interval: float or `None`. Seconds between updates. Defaults to 0.2 in a
            terminal and 20 elsewhere.
    """

    def __init__(self, batch_size=None, interval=None):
        super().__init__()
        self.batch_size = batch_size
        self.interval = interval

    def on_stage_begin(self, index, stage):
        super().on_stage_begin(index, stage)
        self.watch = Stopwatch()
        print(
            f"Stage {index + 1}: {stage.resolution} pixels, batches of "
            f"{stage.batch_size}, learning rate {stage.learning_rate:g}",
            flush=True,
        )

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.redraws = sys.stdout.isatty()
        self.pause = self.interval
        if self.pause is None:
            self.pause = 0.2 if self.redraws else 20.0
        self.shown = time.perf_counter()
        self.width = 0
        if self.stage is None:
            self.watch = Stopwatch()
        self.total = self.stage.steps if self.stage else None
        if self.total is None and self.params.get("steps"):
            # Steps of this call, after those of an earlier one.
            epochs = self.params.get("epochs") or 1
            self.total = self.step + self.params["steps"] * epochs

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.watch.pause()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.watch.tick(self.step)
        # Reading the losses waits for the device, so not at every step.
        if time.perf_counter() - self.shown >= self.pause:
            self._show(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        if self.redraws or self.step == self.total:
            self._show(logs or {})

    def on_train_end(self, logs=None):
        if self.redraws:
            print(flush=True)

    def _show(self, logs):
        self.shown = time.perf_counter()
        line = f"  {self.step}"
        if self.total:
            line += f"/{self.total} steps"
            filled = round(20 * min(1.0, self.step / self.total))
            line = f"  [{'=' * filled}{'.' * (20 - filled)}]" + line
        rate = self.watch.rate()
        size = self.stage.batch_size if self.stage else self.batch_size
        if rate and size:
            level = self.stage.resolution if self.stage else self.model.resolution
            what = "clips" if read_level(level)[0] > 1 else "images"
            line += f"  {rate * size:.1f} {what}/s"
        if rate and self.total:
            line += f"  {_clock((self.total - self.step) / rate)} left"
        line += "".join(f"  {key} {float(value):.4f}" for key, value in logs.items())
        if self.redraws:
            print(f"\r{line:<{self.width}}", end="", flush=True)
            self.width = len(line)
        else:
            print(line, flush=True)


def _clock(seconds):
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
