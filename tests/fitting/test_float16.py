"""Training in float16: the loss is scaled, or else small gradients are lost."""

import csv

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    randomize,
    tiny_mdm,
    tiny_nest,
    trainer,
    uncompiled,
    values_of,
)

from keras_mdm import ProgressiveSchedule, Stage, callbacks
from keras_mdm.finite_updates import ScaledFiniteUpdates
from keras_mdm.training import default_optimizer

pytestmark = pytest.mark.usefixtures("eager_functions")

LossScale = keras.optimizers.LossScaleOptimizer


def test_small_gradients_are_those_of_float32():
    """Losses of 1e-7 have gradients that float16 alone rounds to zero."""
    start, found = None, []
    for dtype in ("float32", "mixed_float16"):
        network = tiny_nest(2, resolution=4, dtype=dtype)
        start = start or randomize(network).get_weights()
        network.set_weights(start)
        options = {"loss_weights": {8: 1e-7, 4: 1e-7}, **uncompiled()}
        mdm = trainer(network, keras.optimizers.SGD(1e5), options)
        mdm.train_on_batch(batch_of(4, 8))
        found.append(network.get_weights())
    start, one, other = (
        np.concatenate([value.ravel() for value in values])
        for values in (start, *found)
    )
    # 0.014 of the step; without scaling 0.90.
    assert np.linalg.norm(other - one) < 0.05 * np.linalg.norm(one - start)


@pytest.mark.parametrize("every", [None, 2])
def test_overflow_skips_a_step_and_lowers_the_scale(every):
    network = randomize(tiny_nest(1, resolution=4, dtype="mixed_float16"))
    inner = keras.optimizers.SGD(0.01, gradient_accumulation_steps=every)
    optimizer = LossScale(inner, initial_scale=2.0**40)
    mdm = trainer(network, optimizer, uncompiled())
    assert mdm.optimizer is optimizer  # not wrapped twice
    before = network.get_weights()
    mdm.train_on_batch(batch_of(4, 4))
    assert equal_values(before, network.get_weights())
    assert float(optimizer.dynamic_scale) == 2.0**39
    for _ in range(40):
        mdm.train_on_batch(batch_of(4, 4))
    assert not equal_values(before, network.get_weights())
    assert all(np.isfinite(value).all() for value in values_of(mdm.variables))


@pytest.mark.parametrize(
    "optimizer", ["auto", "adam", keras.optimizers.SGD, default_optimizer]
)
def test_whose_optimizer_is_scaled(optimizer):
    if optimizer is default_optimizer:
        optimizer = default_optimizer(Stage(8, steps=1, accumulate=2))
    elif not isinstance(optimizer, str):
        optimizer = optimizer(0.1)
    mdm = tiny_mdm(network=tiny_nest(2, resolution=4, dtype="mixed_float16"))
    mdm.compile(optimizer, auto_scale_loss=False)
    assert not isinstance(mdm.optimizer, LossScale)
    mdm.compile("sgd")
    assert isinstance(mdm.optimizer, LossScale)
    mdm.resolution = 4
    assert isinstance(mdm.optimizer, LossScale)
    assert isinstance(mdm.optimizer.inner_optimizer, keras.optimizers.SGD)
    for dtype in ("float32", "mixed_bfloat16"):
        mdm = tiny_mdm(network=tiny_nest(1, resolution=4, dtype=dtype))
        mdm.compile("sgd")
        assert not isinstance(mdm.optimizer, LossScale)


def test_stages_count_their_steps_and_resume(tmp_path):
    network = tiny_nest(1, resolution=4, dtype="mixed_float16")
    mdm = tiny_mdm(network=network, ema_momentum=0.9)
    stage = Stage(4, steps=2, steps_per_epoch=1, batch_size=4)

    def forever(stage):
        while True:
            yield batch_of(4, 4)

    history = callbacks.History(tmp_path / "h.csv", every=1)
    ProgressiveSchedule([stage]).fit(
        mdm, forever, [history], checkpoint_dir=tmp_path, verbose=0
    )
    assert isinstance(mdm.optimizer, LossScale)
    steps = [line.split(",")[2] for line in (tmp_path / "h.csv").open()]
    assert steps == ["step", "1", "2"]


def test_batches_that_overflow_are_counted(tmp_path):
    network = randomize(tiny_nest(1, resolution=4, dtype="mixed_float16"))
    mdm = tiny_mdm(network=network, ema_momentum=0.9)

    def forever(stage):
        while True:
            yield batch_of(4, 4)

    def make_optimizer(stage):
        return ScaledFiniteUpdates(default_optimizer(stage), initial_scale=2.0**60)

    history = callbacks.History(tmp_path / "h.csv", every=1)
    # Two calls of `fit`: the second begins with the count of the first.
    stage = Stage(4, steps=3, steps_per_epoch=2, batch_size=4)
    ProgressiveSchedule([stage], make_optimizer).fit(
        mdm, forever, [history], checkpoint_dir=tmp_path, verbose=0
    )
    rows = list(csv.DictReader((tmp_path / "h.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [float(row["skipped"]) for row in rows] == [1.0, 1.0, 1.0]
    assert float(mdm.optimizer.dynamic_scale) == 2.0**57


def test_weights_kept_in_float16_are_refused():
    """They can be drawn from, not trained."""
    mdm = tiny_mdm(network=tiny_nest(2, resolution=4, dtype="float16"))
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        mdm.compile("sgd")
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        ProgressiveSchedule([Stage(4, steps=1)]).fit(mdm, lambda stage: None)
