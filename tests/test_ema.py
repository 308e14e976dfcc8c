"""The moving average on its own, without any network."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from helpers import counting, tiny_mdm, values_of

from keras_mdm.ema import ExponentialMovingAverage


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
    assert values_of([ema.num_updates])[0].tolist() == [120]


def test_update_of_some_and_without_a_step():
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.5, warmup=False)
    for variable in variables:
        variable.assign(keras.ops.zeros(variable.shape))
    ema.update(variables[:1])
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 2.0]
    ema.update(moved=keras.ops.convert_to_tensor(False))
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 2.0]
    assert values_of([ema.num_updates])[0].tolist() == [1]
    ema.reset(variables[1:])
    assert [float(v.max()) for v in values_of(ema.averages)] == [1.0, 0.0]


def test_each_level_counts_from_its_own_first_update():
    """Closed form: what the others have seen does not slow down a level that is new."""
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.99, levels=[0, 1])
    expected, seen = [2.0, 2.0], [0, 0]
    for n in range(40):
        value = np.cos(n)
        for variable in variables:
            variable.assign(np.full(variable.shape, value, "float32"))
        trained = (1,) if n < 30 else (0, 1)
        ema.update([variables[level] for level in trained], levels=trained)
        for level in trained:
            momentum = min(0.99, (1 + seen[level]) / (10 + seen[level]))
            expected[level] = momentum * expected[level] + (1 - momentum) * value
            seen[level] += 1
    assert values_of([ema.num_updates])[0].tolist() == seen == [10, 40]
    for average, value in zip(values_of(ema.averages), expected, strict=True):
        np.testing.assert_allclose(average, value, atol=1e-5)


def test_reset_begins_the_counts_of_its_levels_anew():
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.9, levels=[0, 1])
    ema.update()
    ema.reset(variables[1:])
    assert values_of([ema.num_updates])[0].tolist() == [1, 0]
    ema.reset()
    assert values_of([ema.num_updates])[0].tolist() == [0, 0]


def test_variables_read_as_averages_in_one_thread_alone():
    variables = _variables()
    ema = ExponentialMovingAverage(variables, 0.5)
    for average in ema.averages:
        average.assign(keras.ops.ones(average.shape))
    with ema.in_place(), ThreadPoolExecutor(1) as pool:
        assert all((value == 1).all() for value in values_of(variables))
        other = pool.submit(values_of, variables).result()
    assert all((value == 2).all() for value in [*other, *values_of(variables)])


def test_averages_are_no_weights_to_train():
    mdm = tiny_mdm(1, resolution=4, ema_momentum=0.5)
    trained = {id(v) for v in mdm.trainable_variables}
    assert trained == {id(v) for v in mdm.network.trainable_variables}
    assert len({id(v) for v in mdm.variables}) == len(mdm.variables)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan"), float("inf")])
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
