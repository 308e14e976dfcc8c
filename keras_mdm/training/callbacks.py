"""Callbacks that report on training: history, pictures, TensorBoard, a guard.

Public as `keras_mdm.callbacks`. They know the stages of a `ProgressiveSchedule` through
`on_stage_begin`, and work with a plain `fit` too.
"""

import csv

import keras
import numpy as np

from keras_mdm.data.video_files import write_video
from keras_mdm.files import as_path, open_to_append, whole_file
from keras_mdm.fitting.step_callbacks import StepCallback
from keras_mdm.training.pictures import pyramid_frames, save_picture
from keras_mdm.training.speed import FIGURES, SpeedMeter
from keras_mdm.training.stage_callback import StageCallback, steps_done

_FRAME_RATE = 8  # Of animated samples, frames a second.
_PLACE = ("stage", "resolution", "step")  # Columns that say where a row belongs.


class History(StageCallback):
    """Writes losses and speed of every so many steps to a CSV file and TensorBoard.

    Losses are means since the last row. Beside them stand `images_per_second` (or
    clips), `teraflops` (10^12 operations a second), `share_of_peak` of the device, and
    `waited_for_data`, the share of time in which it had to; see
    `keras_mdm.training.speed`.

    Args:
        path: Path of the CSV file, or `None`. An existing one is continued, if it has
            this model's columns; a stage that begins or resumes at a step removes the
            rows after it, which stand for training that was lost.
        every: int. Steps that one row stands for. Defaults to 25.
        log_dir: Optional path of TensorBoard logs (needs the package `tensorboardX`),
            with a folder for each stage.
    """

    def __init__(self, path, every=25, log_dir=None):
        super().__init__()
        self.path = as_path(path) if path is not None else None
        self.every = every
        self.log_dir = log_dir
        self.writer = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.path is not None and self.path.exists() and self.path.stat().st_size:
            self._take_up()
        if self.log_dir is not None:
            self.writer = self.open_writer(self.log_dir, "history")
        self.meter = SpeedMeter(self.model, self.clock)

    def on_epoch_begin(self, epoch, logs=None):
        # Keras logs means since the epoch began.
        self.means, self.written = {}, self.step
        super().on_epoch_begin(epoch, logs)

    def get_state(self):
        last = {"means": self.means, "written": self.written}
        return super().get_state() | last

    def take_up(self, state):
        super().take_up(state)
        self.means, self.written = state["means"], state["written"]

    def on_train_batch_end(self, batch, logs=None):
        before = self.step
        super().on_train_batch_end(batch, logs)
        if self.step // self.every > before // self.every:
            self._write(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        validation = {k: v for k, v in logs.items() if k.startswith("val_")}
        if self.step > self.written:
            self._write({k: v for k, v in logs.items() if k not in validation})
        if self.writer is not None:
            for key, value in validation.items():
                self.writer.add_scalar(key, float(value), self.step)

    def on_train_end(self, logs=None):
        if self.writer is not None:
            self.writer.close()

    def _write(self, logs):
        """Writes a row of means since the last row."""
        before = self.written - self.epoch_start
        seen = self.step - self.epoch_start
        means = {key: float(value) for key, value in logs.items()}
        row = {
            key: (mean * seen - self.means.get(key, 0.0) * before) / (seen - before)
            for key, mean in means.items()
        }
        for key, value in self.meter.figures(restart=True).items():
            row[key] = float(f"{value:.4g}")
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        row["learning_rate"] = float(rate)
        self.means, self.written = means, self.step
        if self.writer is not None:
            for key, value in row.items():
                self.writer.add_scalar(key, value, self.step)
        if self.path is not None:
            place = (self.stage_index + 1, self.model.resolution, self.step)
            self._append(dict(zip(_PLACE, place, strict=True)) | row)

    def _columns(self):
        losses = [f"loss_{r}" for r in self.model.network.levels]
        return [*_PLACE, "loss", *losses, *FIGURES, "learning_rate"]

    def _append(self, row):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists() or not self.path.stat().st_size
        with open_to_append(self.path) as file:
            writer = csv.DictWriter(file, self._columns())
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _take_up(self):
        """Reads the file that is there: refuses another model's, drops lost steps."""
        now, columns, cause = (self.stage_index + 1, self.step), self._columns(), None
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self._refused(error) from error
        if reader.fieldnames != columns:
            cause = (
                f"it has the columns {reader.fieldnames}, and this model writes "
                f"{columns}"
            )
        # The last row may be half a row, of a run that was killed.
        elif not all(map(_is_row, rows[:-1])):
            cause = "it has rows without a step, or of more values than columns"
        if cause is not None:
            raise self._refused(cause)
        rows = [row for row in rows if _is_row(row)]
        kept = [row for row in rows if (int(row["stage"]), int(row["step"])) <= now]
        if self.stage is None and len(kept) < len(rows):
            raise self._refused(
                f"it has step {rows[-1]['step']} of another training, and this one is "
                f"at step {self.step}"
            )
        with whole_file(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)

    def _refused(self, cause):
        return ValueError(
            f"'{self.path}' can't be continued: {cause}. Choose another path, or "
            "remove the file."
        )


def _is_row(row):
    """Whether a row of a history has a value for each column, and knows its step."""
    whole = None not in row and None not in row.values()
    return whole and row["stage"].isdecimal() and row["step"].isdecimal()


class SampleGrid(StageCallback):
    """Draws pictures at the end of each stage, and every so many steps, into PNG files.

    Each picture of a grid shows every resolution side by side, all from one run. Clips
    become animated WebP files.

    Args:
        folder: Path of the folder for `stage{n}_{resolution}px.png` (or `.webp`) and
            `stage{n}_{resolution}px_step{k}.png`.
        every: int or `None`. Steps between drawings, which are those of the ends of
            epochs in which a multiple of it was reached. Defaults to `None`: at the end
            of each stage alone.
        titles: Optional sequence of str, one for each picture.
        log_dir: Optional path of TensorBoard logs; of clips they have the middle frame.
        truth: Optional uint8 array of real pictures or clips of the network's largest
            resolution, to be shown beside what is drawn.
        **options: Arguments of `MDM.generate`, such as `labels`, `num_samples`,
            `seed`, `num_steps` and `guidance_scale`.
    """

    def __init__(
        self, folder, every=None, titles=None, log_dir=None, truth=None, **options
    ):
        super().__init__()
        self.folder = as_path(folder)
        self.every = every
        self.titles = titles
        self.log_dir = log_dir
        self.truth = truth
        self.options = {"seed": 0, **options}

    def on_epoch_end(self, epoch, logs=None):
        ends = self.stage is not None and self.step == self.stage.steps
        if not self.every or ends:
            return
        if self.step // self.every > self.epoch_start // self.every:
            self.draw(f"_step{self.step}")

    def on_stage_end(self, index, stage):
        # No step was done where a resumed run finds the stage at its end.
        self.step = steps_done(self.model)
        self.draw("")

    def draw(self, suffix):
        """Draws one grid now.

        Args:
            suffix: str. Added to the file's name.

        Returns:
            Path of the file.
        """
        pyramid = self.model.generate(return_pyramid=True, **self.options)
        name = f"stage{self.stage_index + 1}_{self.model.resolution}px{suffix}"
        grids = pyramid_frames(pyramid, self.titles, truth=self.truth)
        if len(grids) > 1:
            path = self.folder / f"{name}.webp"
            write_video(path, grids, frame_rate=_FRAME_RATE)
        else:
            path = self.folder / f"{name}.png"
            save_picture(path, grids[0])
        if self.log_dir is not None:
            writer = self.open_writer(self.log_dir, "samples")
            middle = grids[len(grids) // 2]
            writer.add_image("samples", middle, self.step, dataformats="HWC")
            writer.close()
        return path


class StopOnNaN(StepCallback):
    """Raises an error soon after a loss that is not finite, before it is saved.

    The mean loss of an epoch stays NaN once it is, so it need not be read, which would
    wait for the device, at every step.

    Args:
        every: int. Steps between looks, besides that at the end of an epoch. Defaults
            to 25.
    """

    def __init__(self, every=25):
        super().__init__()
        self.every = every

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.every == 0:
            self._check(logs, f"at step {batch + 1} of the epoch")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"in epoch {epoch + 1}")

    def _check(self, logs, when):
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} {when}: lower the learning rate, lengthen the "
                "warm-up, or train in float32."
            )
