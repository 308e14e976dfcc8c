"""What `MDM` hands to the loss and makes of it, without any compiled step."""

import keras
import numpy as np
import pytest
from helpers import batch_of, tiny_mdm, to_numpy

from keras_mdm.diffusion.schedules import NoiseSchedule


@pytest.fixture(scope="module")
def mdm():
    mdm = tiny_mdm(resolution=4)
    mdm.compile("sgd", loss_weights={8: 2.0, 4: 0.5})
    return mdm


def _diffused(mdm, size=4, counts=None, timesteps=None):
    """Inputs and targets with noise and timesteps that are known."""
    rng = np.random.default_rng(1)
    counts = counts or [size, size]
    noises = [
        rng.normal(size=(count, r, r, 1)).astype("float32")
        for count, r in zip(counts, mdm.resolutions, strict=True)
    ]
    if timesteps is None:
        timesteps = rng.integers(0, 1000, size).astype("int32")
    batch = batch_of(size, 8)
    tensors = [keras.ops.convert_to_tensor(noise) for noise in noises]
    batch_tensors = {k: keras.ops.convert_to_tensor(v) for k, v in batch.items()}
    inputs, levels = mdm.diffuse(
        batch_tensors, tensors, keras.ops.convert_to_tensor(timesteps)
    )
    return batch, noises, timesteps, inputs, levels


def _pyramid(images):
    clean = images / 127.5 - 1.0
    size = len(clean)
    return [clean, clean.reshape(size, 4, 2, 4, 2, 1).mean(axis=(2, 4))]


@pytest.mark.parametrize("counts", [None, [1, 4]], ids=["all", "mixed"])
def test_diffuse(mdm, counts):
    batch, noises, timesteps, inputs, levels = _diffused(mdm, counts=counts)
    assert set(inputs) == {"images", "labels", "timesteps"}
    for i, (clean, noise) in enumerate(
        zip(_pyramid(batch["images"]), noises, strict=True)
    ):
        count = len(noise)
        # Timestep t of the network is noise level t + 1 of the schedule.
        gamma = NoiseSchedule().alphas_cumprod([2, 1][i])[timesteps[:count] + 1]
        alpha, sigma = (np.sqrt(g)[:, None, None, None] for g in (gamma, 1 - gamma))
        clean = clean[:count]
        x_t = to_numpy(inputs["images"][i])
        np.testing.assert_allclose(x_t, alpha * clean + sigma * noise, atol=2e-6)
        target = to_numpy(levels[i]["target"])
        np.testing.assert_allclose(target, alpha * noise - sigma * clean, atol=2e-6)


def test_loss_weights(mdm):
    _, _, _, _, levels = _diffused(mdm)
    y_pred = [keras.ops.zeros_like(level["target"]) + 0.5 for level in levels]
    expected = {
        r: np.mean((0.5 - to_numpy(level["target"])) ** 2)
        for r, level in zip((8, 4), levels, strict=True)
    }
    loss = to_numpy(mdm.compute_loss(y=levels, y_pred=y_pred))
    assert float(loss) == pytest.approx(2.0 * expected[8] + 0.5 * expected[4], rel=1e-5)


def test_sample_weight(mdm):
    _, _, _, _, levels = _diffused(mdm)
    y_pred = [keras.ops.zeros_like(level["target"]) for level in levels]
    weight = np.array([0.0, 1.0, 2.0, 1.0], "float32")
    errors = [
        (to_numpy(level["target"]) ** 2).reshape(4, -1).mean(1) for level in levels
    ]
    expected = 2.0 * (errors[0] * weight).mean() + 0.5 * (errors[1] * weight).mean()
    loss = mdm.compute_loss(
        y=levels, y_pred=y_pred, sample_weight=keras.ops.convert_to_tensor(weight)
    )
    assert float(to_numpy(loss)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [({8: 1, 4: 3}, [1, 4]), ({8: 2, 4: 1}, [2, 4]), ({8: 0.9, 4: 0.1}, [3, 4])],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_mixed_losses_are_means(shares, counts, weighted):
    """Over the samples that reach a resolution, however many the share comes to."""
    mdm = tiny_mdm(resolution=4)
    mdm.compile("sgd", mixed_resolution=shares)
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in batch_of(4, 8).items()}
    inputs, levels, _ = mdm._training_data(batch)
    assert [x.shape[0] for x in inputs["images"]] == counts
    y_pred = [keras.ops.zeros_like(level["target"]) for level in levels]
    weight = np.array([0.5, 2.0, 3.0, 1.0] if weighted else [1.0] * 4, "float32")
    errors = [
        np.square(to_numpy(level["target"])).reshape(count, -1).mean(axis=1)
        for level, count in zip(levels, counts, strict=True)
    ]
    expected = sum((e * weight[: len(e)]).mean() for e in errors)
    weights = keras.ops.convert_to_tensor(weight) if weighted else None
    loss = mdm.compute_loss(y=levels, y_pred=y_pred, sample_weight=weights)
    assert float(to_numpy(loss)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [({8: 1, 4: 1}, [4, 8]), ({8: 0.25, 4: 0.75}, [2, 8]), ({8: 1}, [8, 8])],
)
def test_mixed_counts(shares, counts):
    mdm = tiny_mdm(resolution=4)
    mdm.compile("sgd", mixed_resolution=shares)
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in batch_of(8, 8).items()}
    inputs, levels, _ = mdm._training_data(batch)
    assert [x.shape[0] for x in inputs["images"]] == counts
    assert [level["target"].shape[0] for level in levels] == counts


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_condition_dropout(rate):
    mdm = tiny_mdm(resolution=4, condition_dropout=rate)
    mdm.compile("sgd")
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in batch_of(1000, 8).items()}
    inputs, _, _ = mdm._training_data(batch)
    dropped = inputs.get("condition_drop")
    share = 0.0 if dropped is None else to_numpy(dropped).mean()
    assert share == pytest.approx(rate, abs=0.05)


def test_timesteps_and_noise_of_training():
    """Timesteps cover all levels evenly; each resolution has noise of its own."""
    mdm = tiny_mdm(resolution=4)
    mdm.compile("sgd")
    size = 2000
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in batch_of(size, 8).items()}
    clean = _pyramid(to_numpy(batch["images"]))
    inputs, levels, _ = to_numpy(mdm._training_data(batch)[:2]) + (None,)
    timesteps = inputs["timesteps"]
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    counts, _ = np.histogram(timesteps, 10, (0, 1000))
    assert np.abs(counts - 200).max() < 70
    noises = [
        (level["x_t"] - level["alpha"] * x) / level["sigma"]
        for level, x in zip(levels, clean, strict=True)
    ]
    late = timesteps > 100  # where dividing by sigma does not lose the digits
    for noise in noises:
        assert noise[late].std() == pytest.approx(1.0, abs=0.02)
    pooled = noises[0].reshape(size, 4, 2, 4, 2, 1).mean(axis=(2, 4))[late]
    correlation = np.corrcoef(pooled.ravel(), noises[1][late].ravel())[0, 1]
    assert abs(correlation) < 0.05


def test_uint8_and_float_pictures_agree(mdm):
    batch, noises, timesteps, inputs, _ = _diffused(mdm)
    floats = {**batch, "images": (batch["images"] / 127.5 - 1.0).astype("float32")}
    again, _ = mdm.diffuse(
        {k: keras.ops.convert_to_tensor(v) for k, v in floats.items()},
        [keras.ops.convert_to_tensor(n) for n in noises],
        keras.ops.convert_to_tensor(timesteps),
    )
    for one, two in zip(inputs["images"], again["images"], strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(two), atol=1e-6)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("target", ["v", "epsilon", "x0"])
def test_perfect_prediction_has_no_loss(prediction, target):
    mdm = tiny_mdm(resolution=4, prediction=prediction, loss_target=target)
    mdm.compile("sgd")
    times = np.array([50, 300, 600, 900], "int32")
    batch, noises, _, _, levels = _diffused(mdm, timesteps=times)
    perfect = []
    for clean, noise, level in zip(
        _pyramid(batch["images"]), noises, levels, strict=True
    ):
        alpha, sigma = to_numpy(level["alpha"]), to_numpy(level["sigma"])
        values = {"v": alpha * noise - sigma * clean, "epsilon": noise, "x0": clean}
        perfect.append(keras.ops.convert_to_tensor(values[prediction], "float32"))
    assert float(to_numpy(mdm.compute_loss(y=levels, y_pred=perfect))) < 1e-6


def test_output_limit():
    mdm = tiny_mdm(resolution=4, output_limit=2.0)
    raw = np.array([-100.0, -1.0, 0.0, 0.5, 100.0], "float32")
    found = to_numpy(mdm.limit(keras.ops.convert_to_tensor(raw)))
    np.testing.assert_allclose(found, 2.0 * np.tanh(raw / 2.0), atol=1e-5)
