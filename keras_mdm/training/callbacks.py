"""Callbacks that report on training: history, pictures, TensorBoard.

Public as `keras_mdm.callbacks`. They know the stages of a `ProgressiveSchedule` through
`on_stage_begin`, and work with a plain `fit` too.
"""

import numpy as np

from keras_mdm import backend
from keras_mdm.checks import check_whole
from keras_mdm.data.video_writer import write_video
from keras_mdm.paths import as_path
from keras_mdm.training.attempts import Attempts
from keras_mdm.training.pictures import pyramid_frames, save_picture
from keras_mdm.training.rows import PLACE, Rows
from keras_mdm.training.speed import FIGURES, SpeedMeter
from keras_mdm.training.stage_callback import StageCallback, steps_done

_FRAME_RATE = 8  # Of animated samples, frames a second.


class History(StageCallback):
    """Writes losses and speed of every so many steps to a CSV file and TensorBoard.

    Losses are means since the last row, and so are `gradient_norm_R`, the norms of the
    gradients of each resolution's network before clipping (with `keras_mdm.AdamW`).
    `skipped` counts the steps since then whose loss or gradient was not finite. The row
    of the end of an epoch has `average_distance`: how far the averaged weights are from
    the weights, as a share of the norm of these. Beside them stand
    `images_per_second` (or clips), `teraflops` (10^12 operations a second),
    `share_of_peak` of the device, and `waited_for_data`, the share of time in which it
    had to; see `keras_mdm.training.speed`.

    Args:
        path: Path of the CSV file, or `None`. An existing one is continued, if it has
            this model's columns; a stage that begins or resumes at a step removes the
            rows after it, which stand for training that was lost.
        every: int. Steps that one row stands for. Defaults to 25.
        log_dir: Optional path of TensorBoard logs (needs the package `tensorboardX`),
            with a folder for each stage.
        tracker: Optional object with a method `log` that takes a dict, which it is
            given for each row, with `step` as `stage_step`: such as the module `wandb`
            after `wandb.init()`. An error of it is told once, and training goes on.
    """

    def __init__(self, path, every=25, log_dir=None, tracker=None):
        super().__init__()
        check_whole(every=every)
        self.tracker = tracker
        self.tracking = Attempts("Figures for the tracker", errors=Exception)
        self.rows = Rows(as_path(path), self._columns) if path is not None else None
        self.every = every
        self.log_dir = log_dir
        self.writer = self.read = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.rows is not None:
            now = (self.stage_index + 1, self.step)
            self.rows.take_up(now, in_stages=self.stage is not None)
        if self.log_dir is not None:
            self.writer = self.open_writer(self.log_dir, "history")
        self.meter = SpeedMeter(self.model, self.clock)

    def on_epoch_begin(self, epoch, logs=None):
        # Keras logs means since the epoch began, as the sums of the monitor are.
        self.means, self.written, self.sums = {}, self.step, None
        super().on_epoch_begin(epoch, logs)

    def get_state(self):
        last = {"means": self.means, "written": self.written, "sums": self.sums}
        return super().get_state() | last

    def take_up(self, state):
        super().take_up(state)
        self.means, self.written = state["means"], state["written"]
        self.sums = state["sums"]

    def on_train_batch_end(self, batch, logs=None):
        before = self.step
        super().on_train_batch_end(batch, logs)
        ends = batch + 1 == self.params.get("steps")
        if self.passed(before) and not ends:
            self._write(logs or {}, self._read())

    def on_test_begin(self, logs=None):
        # Validation sets the sums to zero before an epoch ends.
        self.read = self._read()

    def on_epoch_end(self, epoch, logs=None):
        logs, read = logs or {}, self.read or self._read()
        self.read = None
        validation = {k: v for k, v in logs.items() if k.startswith("val_")}
        if self.step > self.written:
            row = {k: v for k, v in logs.items() if k not in validation}
            self._write(row, read, average_distance=average_distance(self.model))
        if self.writer is not None:
            for key, value in validation.items():
                self.writer.add_scalar(key, float(value), self.step)

    def on_train_end(self, logs=None):
        if self.writer is not None:
            self.writer.close()

    def _read(self):
        """Sums since the epoch began: of updates, skipped steps and gradient norms."""
        monitor = self.model.monitor
        found = [monitor.steps, monitor.skipped, monitor.gradients]
        steps, skipped, norms = backend.newest(self.model, found)
        return [float(steps), float(skipped), *norms.tolist()]

    def _write(self, logs, read, **figures):
        """Writes a row of means since the last row, and other figures of now."""
        before = self.written - self.epoch_start
        seen = self.step - self.epoch_start
        means = {key: float(value) for key, value in logs.items()}
        row = {
            key: (mean * seen - self.means.get(key, 0.0) * before) / (seen - before)
            for key, mean in means.items()
        }
        for key, value in self.meter.figures(restart=True).items():
            row[key] = float(f"{value:.4g}")
        last = self.sums or [0.0] * len(read)
        updates, row["skipped"], *norms = (
            now - one for now, one in zip(read, last, strict=True)
        )
        for level, norm in zip(self.model.network.levels, norms, strict=True):
            if norm > 0 and updates > 0:
                row[f"gradient_norm_{level}"] = norm / updates
        row["learning_rate"] = backend.learning_rate(self.model)
        row |= {key: value for key, value in figures.items() if value is not None}
        self.means, self.written, self.sums = means, self.step, read
        if self.writer is not None:
            for key, value in row.items():
                self.writer.add_scalar(key, value, self.step)
        place = (self.stage_index + 1, self.model.resolution, self.step)
        row = dict(zip(PLACE, place, strict=True)) | row
        if self.tracker is not None:
            # Trackers have steps of their own, and Trackio takes no other by that name.
            named = {"stage_step" if k == "step" else k: v for k, v in row.items()}
            with self.tracking.going_on():
                self.tracker.log(named)
        if self.rows is not None:
            self.rows.append(row)

    def _columns(self):
        levels = self.model.network.levels
        losses, norms = (
            [f"{name}_{r}" for r in levels] for name in ("loss", "gradient_norm")
        )
        others = ("skipped", "learning_rate", "average_distance")
        return [*PLACE, "loss", *losses, *FIGURES, *norms, *others]


def average_distance(mdm):
    """Norm of what averaged weights differ from weights, over the norm of these.

    Found on the host: a program of two sums for each weight would take long to compile.
    It is `None` where the model keeps no average, or processes share it.
    """
    if mdm.ema is None or backend.number_of_processes() > 1:
        return None
    apart = whole = 0.0
    for average, source in zip(mdm.ema.averages, mdm.ema.sources, strict=True):
        weight = backend.to_numpy(source).astype("float32")
        apart += np.sum((backend.to_numpy(average) - weight) ** 2, dtype="float64")
        whole += np.sum(weight**2, dtype="float64")
    return float((apart / whole) ** 0.5) if whole else None


class SampleGrid(StageCallback):
    """Draws pictures at the end of each stage, and every so many steps, into PNG files.

    Each picture of a grid shows every resolution side by side, all from one run, by the
    averaged weights; at the end of a stage another grid shows the raw weights' pictures
    from the same noise. Clips become animated WebP files.

    Args:
        folder: Path of the folder for `stage{n}_{resolution}px.png` (or `.webp`),
            `stage{n}_{resolution}px_raw.png` and `stage{n}_{resolution}px_step{k}.png`.
        every: int or `None`. Steps between drawings, which are those of the ends of
            epochs in which a multiple of it was reached. Defaults to `None`: at the end
            of each stage alone.
        titles: Optional sequence of str, one for each picture.
        log_dir: Optional path of TensorBoard logs; of clips they have the middle frame.
        truth: Optional uint8 array of real pictures or clips of the network's largest
            resolution, to be shown beside what is drawn.
        **options: Arguments of `MDM.generate`, such as `labels`, `num_samples`,
            `seed`, `num_steps` and `guidance_scale`.

    Attributes:
        drawn: What the averaged weights drew last, a dict of resolution to uint8 array,
            or `None`.
    """

    def __init__(
        self, folder, every=None, titles=None, log_dir=None, truth=None, **options
    ):
        super().__init__()
        if every is not None:
            check_whole(every=every)
        self.folder = as_path(folder)
        self.every = every
        self.titles = titles
        self.log_dir = log_dir
        self.truth = truth
        self.options = {"seed": 0, **options}
        self.drawn = None
        self.attempts = Attempts("A grid of samples", "Training goes on without.")

    def on_epoch_end(self, epoch, logs=None):
        if self.is_due():
            self.draw(f"_step{self.step}")

    def on_stage_end(self, index, stage):
        # No step was done where a resumed run finds the stage at its end.
        self.step = steps_done(self.model)
        self.draw("")
        if self.model.ema is not None:
            self.draw("_raw", use_ema=False)

    def draw(self, suffix, **options):
        """Draws one grid now.

        Args:
            suffix: str. Added to the file's name.
            **options: Further arguments of `generate`.

        Returns:
            Path of the file.
        """
        given = {**self.options, **options}
        pyramid = self.model.generate(return_pyramid=True, **given)
        if not options:
            self.drawn = pyramid
        name = f"stage{self.stage_index + 1}_{self.model.resolution}px{suffix}"
        grids = pyramid_frames(pyramid, self.titles, truth=self.truth)
        path = self.folder / f"{name}.{'webp' if len(grids) > 1 else 'png'}"
        with self.attempts.going_on():
            if len(grids) > 1:
                write_video(path, grids, frame_rate=_FRAME_RATE)
            else:
                save_picture(path, grids[0])
        if self.log_dir is not None:
            writer = self.open_writer(self.log_dir, "samples")
            middle = np.asarray(grids[len(grids) // 2])
            tag = "samples_raw" if suffix == "_raw" else "samples"
            writer.add_image(tag, middle, self.step)
            writer.close()
        return path
