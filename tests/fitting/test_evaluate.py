"""Evaluation: reproducible, on averaged weights; the loss of a fresh network."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from helpers import batch_of, equal_values, randomize, to_numpy, trainer, values_of

pytestmark = pytest.mark.usefixtures("eager_functions")


@pytest.fixture(scope="module")
def mdm():
    mdm = trainer()
    randomize(mdm.network)
    mdm.reset_ema()
    return mdm


DATA = batch_of(8, 8)


def _evaluate(mdm, data=DATA):
    return mdm.evaluate(data, batch_size=4, verbose=0, return_dict=True)


def test_twice_the_same(mdm):
    weights, state = mdm.network.get_weights(), values_of([mdm.seed_generator.state])
    first, second = _evaluate(mdm), _evaluate(mdm)
    assert first == second and set(first) == {"loss", "loss_8", "loss_4"}
    assert first["loss"] == pytest.approx(first["loss_8"] + first["loss_4"], rel=1e-5)
    assert equal_values(state, values_of([mdm.seed_generator.state]))
    assert equal_values(weights, mdm.network.get_weights())


def test_noise_belongs_to_the_place(mdm):
    turned = {key: value[::-1].copy() for key, value in DATA.items()}
    assert _evaluate(mdm)["loss"] != _evaluate(mdm, turned)["loss"]


def test_batches_have_different_noise(mdm):
    """The same four pictures twice: their noise must differ in the second batch."""
    half = {key: value[:4] for key, value in DATA.items()}
    twice = {key: np.concatenate([value, value]) for key, value in half.items()}
    assert _evaluate(mdm, half)["loss"] != _evaluate(mdm, twice)["loss"]


def test_uses_the_moving_average(mdm):
    first = _evaluate(mdm)["loss"]
    raw = mdm.network.get_weights()
    for average, value in zip(mdm.ema.averages, raw, strict=True):
        average.assign(value + 0.1)
    averaged = _evaluate(mdm)["loss"]
    assert averaged != first
    mdm.network.set_weights([value + 0.1 for value in raw])
    mdm.reset_ema()
    assert _evaluate(mdm)["loss"] == pytest.approx(averaged, rel=1e-6)
    mdm.network.set_weights(raw)
    mdm.reset_ema()
    assert _evaluate(mdm)["loss"] == first


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras takes the weights out of a model while it is evaluated",
)
def test_another_thread_sees_the_raw_weights(mdm, monkeypatch):
    """While the step of an evaluation is made, which reads the averages."""
    other = trainer()
    other.network.set_weights(mdm.network.get_weights())
    for average in other.ema.averages:
        average.assign(keras.ops.zeros(average.shape))
    inputs, _ = mdm.diffuse(
        {k: keras.ops.convert_to_tensor(v) for k, v in batch_of(4, 8).items()},
        [keras.ops.ones((4, size, size, 1)) for size in (8, 4)],
        keras.ops.convert_to_tensor(np.arange(4, dtype="int32")),
    )
    expected = to_numpy(mdm.network(inputs))
    found, evaluation_data = [], other._evaluation_data

    def meanwhile(data):
        if not found:
            with ThreadPoolExecutor(1) as pool:
                found.append(pool.submit(lambda: to_numpy(other(inputs))).result())
        return evaluation_data(data)

    monkeypatch.setattr(other, "_evaluation_data", meanwhile)
    other.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    averaged = _evaluate(other)["loss"]
    assert len(found) == 1
    for one, another in zip(found[0], expected, strict=True):
        np.testing.assert_allclose(one, another, atol=1e-5)
    assert averaged != _evaluate(mdm)["loss"]


def test_validation_data_is_evaluated(mdm):
    history = mdm.fit(
        batch_of(4, 8, seed=1),
        batch_size=4,
        validation_data=DATA,
        validation_batch_size=4,
        epochs=2,
        verbose=0,
    ).history
    after = _evaluate(mdm)
    assert history["val_loss"][-1] == pytest.approx(after["loss"], rel=1e-6)
    assert history["val_loss_8"][-1] == pytest.approx(after["loss_8"], rel=1e-6)
    assert history["val_loss"][0] != history["val_loss"][1]


def test_on_batch_is_the_first_batch_of_evaluate(mdm):
    batch = {key: value[:4] for key, value in DATA.items()}
    logs = mdm.test_on_batch(batch, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(_evaluate(mdm, batch)["loss"], rel=1e-6)


def test_fresh_network():
    """It predicts zero: the loss of v is the mean of alpha^2 + sigma^2 x^2."""
    mdm = trainer()
    data = batch_of(512, 8)
    found = mdm.evaluate(data, batch_size=128, verbose=0, return_dict=True)
    clean = data["images"] / 127.5 - 1.0
    pooled = clean.reshape(512, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    start = keras.ops.convert_to_tensor(0)
    timesteps, noises = to_numpy(mdm.process.draw_fixed(512, start, (8, 4)))
    levels = timesteps + 1
    for resolution, pictures, noise in zip(
        (8, 4), (clean, pooled), noises, strict=True
    ):
        gamma = mdm.schedule.alphas_cumprod(resolution / 4)[levels]
        expected = (gamma + (1 - gamma) * (pictures**2).mean()).mean()
        assert found[f"loss_{resolution}"] == pytest.approx(expected, rel=0.1)
        gamma = gamma[:, None, None, None]
        v = np.sqrt(gamma) * noise - np.sqrt(1 - gamma) * pictures
        assert found[f"loss_{resolution}"] == pytest.approx((v**2).mean(), rel=1e-4)
