"""Weights that change outside of training: what is drawn, evaluated and saved."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    lean_nest,
    randomize,
    trainer,
    uncompiled,
    values_of,
)

import keras_mdm

pytestmark = pytest.mark.usefixtures("eager_functions")

BATCH = batch_of(4, 8)


def _from_file(mdm, other, folder):
    other.network.save_weights(folder / "n.weights.h5")
    mdm.network.load_weights(folder / "n.weights.h5")


def _all_at_once(mdm, other, folder):
    mdm.network.set_weights(other.network.get_weights())


def _doll_by_doll(mdm, other, folder):
    for mine, theirs in zip(mdm.network.networks, other.network.networks, strict=True):
        for layer, source in zip(mine.own_layers, theirs.own_layers, strict=True):
            layer.set_weights(source.get_weights())


def _one_by_one(mdm, other, folder):
    values = values_of(other.network.variables)
    for variable, value in zip(mdm.network.variables, values, strict=True):
        variable.assign(value)


ROADS = [_from_file, _all_at_once, _doll_by_doll, _one_by_one]


@contextlib.contextmanager
def _nothing_said():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*outside of training")
        yield


def _saved(mdm, folder):
    mdm.save_to_preset(folder, overwrite=True)
    return keras_mdm.MDM.from_preset(folder).network.get_weights()


@pytest.fixture
def other():
    return trainer(randomize(lean_nest(2, resolution=4), seed=7))


@pytest.mark.parametrize("road", ROADS)
def test_of_a_fresh_model(road, other, tmp_path):
    mdm = trainer()
    road(mdm, other, tmp_path)
    with _nothing_said():
        found = _saved(mdm, tmp_path / "p")
    assert equal_values(found, other.network.get_weights())


@pytest.mark.parametrize("road", ROADS)
def test_of_a_trained_model(road, other, tmp_path):
    """It is said, since an average that took long to train is given up."""
    mdm = trainer(ema_momentum=0.9, compile_options=uncompiled())
    mdm.train_on_batch(BATCH)
    road(mdm, other, tmp_path)
    with pytest.warns(UserWarning, match="changed outside of training"):
        found = _saved(mdm, tmp_path / "p")
    assert equal_values(found, other.network.get_weights())
    assert not values_of([mdm.ema.num_updates])[0].any()
    road(mdm, other, tmp_path)  # no change, and an average of no updates
    with _nothing_said():
        _saved(mdm, tmp_path / "p")


def test_what_is_drawn_and_evaluated(other):
    mdm = trainer(randomize(lean_nest(2, resolution=4)))
    draw = {"labels": [0, 1], "num_steps": 2, "seed": 0, "output": "float"}
    mdm.generate(**draw)  # compiled before the change
    mdm.evaluate(BATCH, verbose=0)
    _all_at_once(mdm, other, None)
    np.testing.assert_allclose(
        mdm.generate(**draw), other.generate(**draw, use_ema=False), atol=1e-5
    )
    _all_at_once(mdm, other, None)
    other.reset_ema()
    assert mdm.evaluate(BATCH, verbose=0)[0] == pytest.approx(
        other.evaluate(BATCH, verbose=0)[0], rel=1e-5
    )


def test_training_goes_on_from_the_new_weights(other, tmp_path):
    """By `fit`, after `fit`: the average holds nothing of the weights before."""
    mdm = trainer(
        ema_momentum=0.9999, optimizer=keras.optimizers.SGD(0.0), ema_warmup=True
    )
    mdm.fit(BATCH, batch_size=4, epochs=3, verbose=0)
    _all_at_once(mdm, other, None)
    with pytest.warns(UserWarning, match="changed outside of training"):
        mdm.fit(BATCH, batch_size=4, verbose=0)
    for found, expected in zip(
        _saved(mdm, tmp_path / "p"), other.network.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_averages_that_are_given_too_are_kept(other, tmp_path):
    """Of whole models: their averages are no copies of their weights."""
    for average in other.ema.averages:
        average.assign(keras.ops.full(average.shape, 0.25))
    other.save_weights(tmp_path / "whole.weights.h5")
    other.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    from_file, at_once, one_by_one = (
        trainer(ema_momentum=0.9, compile_options=uncompiled()) for _ in range(3)
    )
    for mdm in (from_file, at_once, one_by_one):
        mdm.train_on_batch(BATCH)
    from_file.load_weights(tmp_path / "whole.weights.h5")
    at_once.set_weights(other.get_weights())
    for mine, theirs in zip(one_by_one.variables, other.variables, strict=True):
        mine.assign(keras.ops.convert_to_numpy(theirs.value))
    for mdm in (loaded, from_file, at_once, one_by_one):
        with _nothing_said():
            found = _saved(mdm, tmp_path / "p")
        assert all((value == 0.25).all() for value in found)


def test_what_training_moves_is_no_change_by_hand(tmp_path):
    """Whatever is called between the steps."""
    mdm = trainer(ema_momentum=0.9, optimizer=keras.optimizers.SGD(1e-4))
    draw = {"labels": [0], "num_steps": 1, "seed": 0}

    class Between(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.generate(**draw)

    with _nothing_said():
        mdm.fit(
            BATCH,
            batch_size=4,
            epochs=2,
            verbose=0,
            validation_data=BATCH,
            callbacks=[Between()],
        )
        mdm.generate(**draw)
        mdm.evaluate(BATCH, verbose=0)
        mdm.train_on_batch(BATCH)
        mdm.network.set_weights(mdm.network.get_weights())  # nothing new
        mdm.test_on_batch(BATCH)
        _saved(mdm, tmp_path / "p")
    assert values_of([mdm.ema.num_updates])[0].tolist() == [3, 3]


def test_after_training_that_was_stopped(other, tmp_path):
    """The weights of before the stop are given up like any others."""
    mdm = trainer(ema_momentum=0.9, compile_options=uncompiled())

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mdm.fit(BATCH, batch_size=4, epochs=2, verbose=0, callbacks=[Stop()])
    _all_at_once(mdm, other, None)
    with pytest.warns(UserWarning, match="changed outside of training"):
        found = _saved(mdm, tmp_path / "p")
    assert equal_values(found, other.network.get_weights())
