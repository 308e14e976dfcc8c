"""Trains one run of `compare.py` and measures it on the way."""

import json
import shutil
import time

import compare_arms
import keras
import numpy as np
from compare_files import Rows

import keras_mdm
from keras_mdm import callbacks, files
from keras_mdm.training.pictures import save_picture

# Shares of the training FLOPs after which pictures are drawn and measured.
MEASURED = (0.5,)  # And at the end.
DRAWING = {"sampler": "ddim", "num_steps": 20, "eta": 0.0, "guidance_scale": 1.0}
SMALL_NOISE = 0.1  # Of what a cascade's second model is shown, in training and drawing.


def run_name(set_name, line, seed):
    return f"{set_name}-{line.name}-{seed}"


def train(folder, set_name, line, task, pictures, examiner, seed):
    """Trains a line with a seed, or goes on with it, and writes its rows.

    What is there when it ends: `rows.json`, a list with a row for each measure,
    and `grid.png`, drawn pictures of each class. Of an unfinished run the folder
    `state` is there as well.
    """
    keras.utils.set_random_seed(seed)
    parts = compare_arms.build(line, task, seed)
    total = sum(map(part_flops, parts))
    measured, labels = Rows(folder / "measures.csv"), pictures.held_out_labels
    place = {"set": set_name, "line": line.name, "seed": seed}
    place["parameters"] = sum(part.mdm.network.count_params() for part in parts)
    models = [part.mdm for part in parts]

    def measure(flops, seconds):
        drawn = draw(models, labels, seed)
        cost = {"share": flops / total, "flops": flops, "cpu_seconds": seconds}
        measured.add({**place, **cost, **examiner.measure(drawn, labels)})
        return drawn

    before = 0.0
    for number, part in enumerate(parts):
        meter = Meter(folder / "spent.csv", part, before, total)
        if part is parts[-1]:
            meter.measure = measure
        state = folder / f"state_{number}"
        keras_mdm.ProgressiveSchedule(part.stages).fit(
            part.mdm,
            lambda stage, part=part: batches(pictures, stage, part, seed),
            callbacks=[
                meter,
                callbacks.History(folder / f"history_{number}.csv", every=50),
                callbacks.NoiseLevels(folder / f"noise_levels_{number}.csv"),
            ],
            checkpoint_dir=state,
            resume=state.exists(),
            verbose=0,
        )
        before += part_flops(part)
    drawn = measure(before, meter.seconds())
    save_grid(folder / "grid.png", drawn, labels)
    files.write_text(folder / "rows.json", json.dumps(measured.read(), indent=1) + "\n")
    for number in range(len(parts)):
        shutil.rmtree(folder / f"state_{number}")


def part_flops(part):
    """FLOPs of training a part."""
    return sum(
        stage.steps * flops
        for stage, flops in zip(part.stages, part.step_flops, strict=True)
    )


class Meter(keras.callbacks.Callback):
    """Counts FLOPs and CPU seconds of training, and measures at shares of the FLOPs.

    Args:
        path: Path of the CSV file in which seconds outlive an interrupted run.
        part: `compare_arms.Part`.
        before: float. FLOPs of the parts before.
        total: float. FLOPs of the run.
    """

    measure = None  # Of FLOPs and seconds, for the part that draws.

    def __init__(self, path, part, before, total):
        super().__init__()
        self.spent, self.part, self.total = Rows(path), part, total
        self.before, self.flops = before, before

    def seconds(self):
        rows = [r for r in self.spent.read() if float(r["share"]) <= self.share + 1e-9]
        return float(rows[-1]["cpu_seconds"]) if rows else 0.0

    @property
    def share(self):
        return self.flops / self.total

    def on_stage_begin(self, index, stage):
        self.stage, self.step_flops = stage, self.part.step_flops[index]
        done = zip(self.part.stages[:index], self.part.step_flops, strict=False)
        self.stage_before = self.before + sum(s.steps * f for s, f in done)

    def on_epoch_begin(self, epoch, logs=None):
        steps = sum(self.stage.rounds()[:epoch])
        self.flops = self.stage_before + steps * self.step_flops
        self.began = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.seconds() + time.process_time() - self.began
        before = self.share
        self.flops += self.stage.rounds()[epoch] * self.step_flops
        self.spent.add({"share": self.share, "cpu_seconds": seconds})
        whole = self.stage.resolution == self.part.mdm.network.resolution
        passed = any(before < s - 1e-9 <= self.share for s in MEASURED)
        if self.measure is not None and whole and passed:
            self.measure(self.flops, seconds)


def batches(pictures, stage, part, seed):
    """Yields endless batches of a stage, the same for the same seed."""
    rng = np.random.default_rng([seed, stage.resolution])
    images = shrink(pictures.train, stage.resolution)
    small = shrink(pictures.train, stage.resolution // 2) if part.reads_small else None
    while True:
        order = rng.permutation(len(images))
        for begin in range(0, len(order) - stage.batch_size + 1, stage.batch_size):
            rows = order[begin : begin + stage.batch_size]
            batch = {"images": images[rows], "labels": pictures.train_labels[rows]}
            if small is not None:
                batch["small"] = disturb(small[rows], rng)
            yield batch


def shrink(pictures, resolution):
    """Pictures in [-1, 1], averaged down."""
    count, height, _, channels = pictures.shape
    factor = height // resolution
    blocks = pictures.reshape(count, resolution, factor, resolution, factor, channels)
    return (blocks.mean(axis=(2, 4)) / 127.5 - 1.0).astype("float32")


def disturb(small, rng):
    """What a cascade's second model sees: it must not trust the first one's details."""
    noise = rng.standard_normal(small.shape) * SMALL_NOISE
    return (small + noise).astype("float32")


def draw(models, labels, seed):
    """Draws a picture of each label; a cascade draws the smaller ones first."""
    options = {**DRAWING, "seed": 1000 + seed, "batch_size": 100}
    if len(models) == 1:
        return models[0].generate(labels=labels, **options)
    small = models[0].generate(labels=labels, output="float", **options)
    small = disturb(np.asarray(small), np.random.default_rng(1000 + seed))
    return models[1].generate(labels=labels, features={"small": small}, **options)


def save_grid(path, drawn, labels):
    """Writes the first drawn pictures of each class, a column each."""
    classes = np.unique(labels)[:10]
    rows = min(4, *(int((labels == c).sum()) for c in classes))
    columns = [np.concatenate(drawn[labels == c][:rows]) for c in classes]
    save_picture(path, np.concatenate(columns, axis=1))
