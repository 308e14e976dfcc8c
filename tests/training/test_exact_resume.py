"""A run that was stopped and resumed is bit-equal to one that was not."""

import csv
import os
import signal

import keras
import numpy as np
import pytest
from helpers import tiny_mdm
from PIL import Image

from keras_mdm import ProgressiveSchedule, Stage, callbacks
from keras_mdm.data import make_dataset, open_source
from keras_mdm.training import state, state_file

# Grids fall between steps; epochs are shorter at the end, and no row fits in them.
OPTIONS = {"batch_size": 4, "learning_rate": 0.01, "accumulate": 2}
STAGES = [
    Stage(8, steps=5, steps_per_epoch=4, **OPTIONS),
    Stage(16, steps=11, steps_per_epoch=4, warmup_steps=9, **OPTIONS),
]
SPEED = ("images_per_second", "teraflops", "share_of_peak", "waited_for_data")


class Kill(Exception):
    """Stands for SIGKILL: nothing more is written."""


class End(keras.callbacks.Callback):
    """Ends training before or after a step of a stage, counted from 1."""

    def __init__(self, stage, step, how):
        super().__init__()
        self.place, self.how = (stage, step), how
        self.step = 0

    def on_stage_begin(self, index, stage):
        self.index, self.step = index, 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if (self.index, self.step) == self.place:
            if self.how == "kill":
                raise Kill
            os.kill(os.getpid(), signal.SIGINT)

    def on_stage_end(self, index, stage):
        if (self.index, None) == self.place:
            raise Kill


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """22 good pictures in 3 classes, and 2 that can't be read."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(24):
        path = folder / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (18, 18), dtype="uint8")).save(path)
        if number in (4, 17):
            path.write_bytes(b"no picture")
    return folder


def train(pictures, folder, end=None, resume=False):
    """Runs in `folder`, as a recipe does."""
    # Each run makes a model alike, and draws from another state of NumPy's.
    mdm = tiny_mdm(ema_momentum=0.9, power_averages=(0.05, 0.1))
    rng = np.random.default_rng(3)
    for variable in mdm.network.variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32") * 0.1)
    mdm.reset_ema()

    def make(stage):
        source = open_source(f"folder:{pictures}", split="all")
        options = {"repeat": True, "flip": True, "crop": "random", "channels": 1}
        return make_dataset(source, stage.resolution, stage.batch_size, **options)

    grid = callbacks.SampleGrid(
        folder / "samples", every=3, labels=[0, 1], num_steps=1, guidance_scale=1.0
    )
    history = callbacks.History(folder / "history.csv", every=3)
    snapshots = callbacks.AverageSnapshots(folder / "averages", every=3)
    ProgressiveSchedule(STAGES).fit(
        mdm,
        make,
        callbacks=[history, grid, snapshots, *([end] if end else [])],
        checkpoint_dir=folder / "state",
        resume=resume,
        verbose=0,
    )


def outcome(folder):
    """Everything that a run has left, but how fast it was."""
    with open(folder / "history.csv", newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key not in SPEED}
            for row in csv.DictReader(file)
        ]
    last = state.newest(folder / "state")
    with state_file.opened(last.path) as (values, arrays):
        arrays = {name: array.tobytes() for name, array in arrays}
    grids, averages = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        for name in ("samples", "averages")
    )
    return {
        "rows": rows,
        "progress": values["progress"],
        "place": values["places"],
        "grids": grids,
        "averages": averages,
    }, arrays


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(pictures, folder)
    return outcome(folder)


@pytest.mark.parametrize(
    "ends",
    [
        [(0, 4, "interrupt"), (1, 2, "interrupt"), (1, 7, "kill")],
        pytest.param(
            [(0, None, "kill"), (1, 4, "interrupt"), (1, None, "kill")],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["within", "between"],
)
def test_resumed_is_bit_equal(ends, whole, pictures, tmp_path):
    assert len(whole[0]["rows"]) == 9 and len(whole[0]["grids"]) == 7
    assert len(whole[0]["averages"]) == 5
    for number, end in enumerate(ends):
        with pytest.raises((Kill, KeyboardInterrupt)):
            train(pictures, tmp_path, End(*end), resume=number > 0)
    train(pictures, tmp_path, resume=True)
    found, arrays = outcome(tmp_path)
    for key, value in whole[0].items():
        assert found[key] == value, key
    assert arrays.keys() == whole[1].keys()
    different = [name for name in arrays if arrays[name] != whole[1][name]]
    assert not different
