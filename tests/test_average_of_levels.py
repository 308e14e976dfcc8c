"""The moving average of a nest that is trained level by level."""

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    lean_nest,
    tiny_mdm,
    trainer,
    values_of,
)

from keras_mdm import ProgressiveSchedule, Stage

SMOOTH = {"ema_momentum": 0.9999, "ema_warmup": True}


def _counts(mdm):
    """Updates of each level, largest resolution first."""
    return values_of([mdm.ema.num_updates])[0].tolist()


def _forever(stage):
    # Smooth pictures, of which there is something to learn.
    rows = np.linspace(0, 255, stage.resolution)[:, None, None]
    lights = np.linspace(0.2, 1.0, stage.batch_size)[:, None, None, None]
    images = np.broadcast_to(
        rows * lights, (stage.batch_size, stage.resolution, stage.resolution, 1)
    )
    while True:
        yield {"images": images.astype("uint8")}


def _losses(mdm, batch):
    """Loss of the averaged weights, and of the raw ones."""
    raw = tiny_mdm(network=mdm.network)
    raw.resolution = mdm.resolution
    raw.compile(keras.optimizers.SGD(0.0))
    return [
        model.evaluate(batch, batch_size=4, verbose=0, return_dict=True)["loss"]
        for model in (mdm, raw)
    ]


@pytest.mark.parametrize(
    "freeze_inner", [True, pytest.param(False, marks=pytest.mark.once)]
)
def test_a_level_that_begins_late_is_averaged_from_then_on(freeze_inner):
    """Fifty steps of a new level after many of the inner one."""
    mdm = tiny_mdm(network=lean_nest(2, classes=0, resolution=4), **SMOOTH)
    options = {"batch_size": 4, "learning_rate": 3e-3, "decay": "cosine"}
    schedule = ProgressiveSchedule(
        [
            Stage(4, steps=400, **options),
            Stage(8, steps=50, freeze_inner=freeze_inner, **options),
        ]
    )
    schedule.fit(mdm, _forever, verbose=0)
    data = {
        key: np.concatenate([value] * 32)
        for key, value in next(_forever(schedule.stages[1])).items()
    }
    averaged, raw = _losses(mdm, data)
    assert averaged <= raw * 1.01
    assert _counts(mdm) == [50, 400 if freeze_inner else 450]


def test_frozen_levels_count_nothing_until_they_thaw():
    """A frozen level whose weights came from elsewhere is new when it thaws."""
    mdm = trainer(**SMOOTH)
    mdm.set_active(8, freeze_inner=True)
    batch = batch_of(4, 8)
    for _ in range(2):
        mdm.train_on_batch(batch)
    assert _counts(mdm) == [2, 0]
    mdm.set_active(8)
    mdm.train_on_batch(batch)
    assert _counts(mdm) == [3, 1]
    mdm.resolution = 4
    mdm.train_on_batch(batch_of(4, 4))
    assert _counts(mdm) == [3, 2]


def test_levels_whose_loss_does_not_count_yet():
    """Those around the largest one with a loss have not begun; those inside have."""
    batch = batch_of(4, 8)
    for weights, expected in (({4: 1.0}, [0, 1]), ({8: 1.0}, [1, 1])):
        mdm = trainer(compile_options={"loss_weights": weights}, **SMOOTH)
        mdm.train_on_batch(batch)
        assert _counts(mdm) == expected


def test_weights_loaded_into_inner_levels_leave_the_others_averages(tmp_path):
    inner = tiny_mdm(1, resolution=4)
    inner.save_to_preset(tmp_path / "p")
    mdm = trainer(**SMOOTH)
    mdm.train_on_batch(batch_of(4, 8))
    inner_ids = {id(v) for v in mdm.network.inner.variables}
    outer = [
        average
        for source, average in zip(mdm.ema.sources, mdm.ema.averages, strict=True)
        if id(source) not in inner_ids
    ]
    before = values_of(outer)
    mdm.load_weights(tmp_path / "p")
    assert _counts(mdm) == [1, 0]
    assert equal_values(before, values_of(outer))
