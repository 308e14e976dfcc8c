"""The progress line of a stage. Public as `keras_mdm.callbacks.Progress`."""

import sys
import time

from keras_mdm.levels import read_level
from keras_mdm.training.speed import SpeedMeter
from keras_mdm.training.stage_callback import StageCallback


class Progress(StageCallback):
    """Progress of a whole stage, with its speed and the time left.

    The speed is in pictures or clips a second, in TFLOP/s and the share of the device's
    peak that they are, and the share of time for which steps waited for data, since
    training began; see `keras_mdm.training.speed`.

    In a terminal one line is redrawn; elsewhere, as in a log file, a line is added now
    and then. Needs the package `tqdm`.

    Args:
        interval: float or `None`. Seconds between updates. Defaults to 0.2 in a
            terminal and 20 elsewhere.
    """

    def __init__(self, interval=None):
        super().__init__()
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError("`Progress` needs `pip install tqdm`.") from error
        self.format_meter = tqdm.format_meter
        self.interval = interval
        self.told = False
        self.figures = {}

    def on_stage_begin(self, index, stage):
        super().on_stage_begin(index, stage)
        self.figures = {}
        print(
            f"Stage {index + 1}: {stage.resolution} pixels, batches of "
            f"{stage.batch_size}, learning rate {stage.learning_rate:g}",
            flush=True,
        )

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.redraws = sys.stdout.isatty()
        self.shown, self.width = time.perf_counter(), 0
        self.total = self.stage.steps if self.stage else None
        if self.total is None and self.params.get("steps"):
            # Steps of this call, after those of an earlier one.
            epochs = self.params.get("epochs") or 1
            self.total = self.step + self.params["steps"] * epochs
        self.meter = SpeedMeter(self.model, self.clock)
        if self.meter.measured and not self.told:
            self.told = True
            print(
                f"Peak of this device: {self.meter.peak / 1e12:.3g} TFLOP/s in "
                f"{self.model.network.compute_dtype}, measured by a product of "
                "matrices, since it is none of those known.",
                flush=True,
            )

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        pause = self.interval or (0.2 if self.redraws else 20.0)
        # Reading the losses waits for the device, so not at every step.
        if time.perf_counter() - self.shown >= pause:
            self._show(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        # The last of a stage's calls of `fit` may have too few steps to time.
        self.figures = self.meter.figures() or self.figures
        if self.redraws or self.step == self.total:
            self._show(logs or {})

    def on_train_end(self, logs=None):
        if self.redraws:
            print(flush=True)

    def _show(self, logs):
        self.shown = time.perf_counter()
        figures, shown, rate = self.meter.figures() or self.figures, [], None
        if figures:
            what = "clips" if read_level(self.model.resolution)[0] > 1 else "images"
            rate = figures["images_per_second"] / self.meter.size
            shown.append(f"{figures['images_per_second']:.1f} {what}/s")
        if "teraflops" in figures:
            share = f"{figures['share_of_peak']:.0%} of peak"
            shown.append(f"{figures['teraflops']:.3g} TFLOP/s ({share})")
        if figures:
            shown.append(f"{figures['waited_for_data']:.0%} waiting for data")
        if rate and self.total:
            shown.append("{remaining} left")
        shown += [f"{key} {float(value):.4f}" for key, value in logs.items()]
        count = "[{bar:20}]  {n_fmt}/{total_fmt} steps" if self.total else "{n_fmt}"
        line = self.format_meter(
            self.step,
            self.total,
            0,
            ascii=".=",
            rate=rate,
            bar_format="  ".join(["", count, *shown]),
        )
        if self.redraws:
            print(f"\r{line:<{self.width}}", end="", flush=True)
            self.width = len(line)
        else:
            print(line, flush=True)
