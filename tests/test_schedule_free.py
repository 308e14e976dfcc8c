"""Schedule-free AdamW: its average against the mean of where gradients moved to."""

import keras
import numpy as np
import pytest
from helpers import batch_of, randomize, tiny_mdm, uncompiled, values_of

import keras_mdm

RATE = 0.05


def _model(accumulate=None):
    mdm = tiny_mdm(1, ema_momentum=0.9999)
    optimizer = keras_mdm.ScheduleFreeAdamW(
        RATE, gradient_accumulation_steps=accumulate
    )
    mdm.compile(optimizer, **uncompiled())
    # As one that loads weights after it has compiled.
    randomize(mdm.network)
    mdm.reset_ema()
    return mdm


@pytest.mark.parametrize("accumulate", [None, 2])
def test_the_models_average_is_the_mean_of_all_iterates(accumulate):
    mdm = _model(accumulate)
    start = values_of(mdm.network.trainable_variables)
    moved = []
    for seed in range(4):
        mdm.train_on_batch(batch_of(4, 8, seed=seed))
        if not accumulate or seed % 2:
            moved.append(values_of(mdm.optimizer._momentums))
    for one, *all_moved, average in zip(
        start, *moved, values_of(mdm.ema.averages), strict=True
    ):
        assert np.abs(all_moved[0] - one).max() < 1.1 * RATE
        np.testing.assert_allclose(average, np.mean(all_moved, axis=0), atol=1e-4)


@pytest.mark.parametrize("bad", [None, 0, 2])
def test_updates_follow_the_formula(bad):
    """Defazio et al., 2024, algorithm 1, in float64; the rate rises for two steps.

    An update that is not finite is as one that never was.
    """
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype("float32")
    gradients = rng.normal(size=(5, 3, 4)).astype("float32")
    variable = keras.Variable(start, name="v")
    optimizer = keras_mdm.ScheduleFreeAdamW(RATE, warmup_steps=2, global_clipnorm=None)
    z = x = start.astype("float64")
    second = np.zeros_like(z)
    for number, gradient in enumerate(gradients, start=1):
        if number - 1 == bad:
            spoiled = keras.ops.convert_to_tensor(gradient * np.nan)
            optimizer.apply([spoiled], [variable])
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        rate = RATE * min(1.0, number / 2)
        second = 0.99 * second + 0.01 * gradient.astype("float64") ** 2
        z = z - rate * gradient / np.sqrt(second / (1 - 0.99**number))
        x = (1 - 1 / number) * x + z / number
        found = values_of([variable])[0]
        np.testing.assert_allclose(found, 0.1 * z + 0.9 * x, rtol=1e-4, atol=1e-5)


def test_a_model_without_place_for_the_average_is_refused():
    mdm = tiny_mdm(1)
    with pytest.raises(ValueError, match="ema_momentum"):
        mdm.compile(keras_mdm.ScheduleFreeAdamW())


def test_it_is_saved_by_its_name():
    optimizer = keras_mdm.ScheduleFreeAdamW(RATE)
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert type(again) is keras_mdm.ScheduleFreeAdamW
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["global_clipnorm"] == 2.0
