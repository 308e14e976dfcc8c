"""The moving average on its own, without any network."""

import keras
import numpy as np
import pytest
from helpers import counting, equal_values, tiny_mdm, values_of

from keras_mdm.model.ema import ExponentialMovingAverage


def _variables():
    return [keras.Variable(np.full(shape, 2.0, "float32")) for shape in ((3,), (2, 2))]


@pytest.mark.parametrize("warmup", [False, True])
def test_closed_form(warmup):
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.9, warmup)
    expected = 2.0
    for n in range(120):
        value = np.sin(n)
        for variable in variables:
            variable.assign(np.full(variable.shape, value, "float32"))
        ema.update()
        momentum = min(0.9, (1 + n) / (10 + n)) if warmup else 0.9
        expected = momentum * expected + (1 - momentum) * value
        for average in values_of(ema.averages):
            np.testing.assert_allclose(average, expected, atol=1e-5)
    assert int(ema.num_updates) == 120


def test_update_of_some_and_without_a_step():
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.5, warmup=False)
    for variable in variables:
        variable.assign(keras.ops.zeros(variable.shape))
    ema.update(variables[:1])
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 2.0]
    ema.update(moved=keras.ops.convert_to_tensor(False))
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 2.0]
    assert int(ema.num_updates) == 1
    ema.reset(variables[1:])
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 0.0]


def test_scope_lends_the_average_and_gives_the_weights_back():
    mdm = tiny_mdm(1, resolution=4, ema_momentum=0.5)
    raw = mdm.network.get_weights()
    for average in mdm.ema.averages:
        average.assign(keras.ops.ones(average.shape))
    with mdm.ema_scope():
        assert all((value == 1).all() for value in mdm.network.get_weights())
    assert equal_values(raw, mdm.network.get_weights())
    with pytest.raises(RuntimeError), mdm.ema_scope():
        raise RuntimeError
    assert equal_values(raw, mdm.network.get_weights())


def test_averages_are_no_weights_to_train():
    mdm = tiny_mdm(1, resolution=4, ema_momentum=0.5)
    trained = {id(v) for v in mdm.trainable_variables}
    assert trained == {id(v) for v in mdm.network.trainable_variables}
    assert len({id(v) for v in mdm.variables}) == len(mdm.variables)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match="`ema_momentum` must be at least 0"):
        ExponentialMovingAverage(_variables(), momentum)


def test_counting_helper():
    """The helper that other tests rely on does count."""
    ema = ExponentialMovingAverage(_variables(), 0.5)
    with counting(ema, "update") as calls:
        ema.update()
    ema.update()
    assert len(calls) == 1
