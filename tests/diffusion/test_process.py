"""v, epsilon and x0, timesteps, the loss and its weights, against their definitions."""

import itertools

import keras
import numpy as np
import pytest

from keras_mdm.diffusion import LogitNormal, Process, losses
from keras_mdm.diffusion.process import PREDICTIONS
from keras_mdm.diffusion.schedules import NoiseSchedule

RNG = np.random.default_rng(0)
X0, EPSILON = RNG.normal(size=(2, 5, 4))
PATHS = {
    "variance_preserving": (np.cos, np.sin),
    "flow": (lambda t: 1.0 - t / 2.0, lambda t: t / 2.0),
}


def _path(name):
    """A process on a path, alpha, sigma, x_t and the true value of each kind."""
    angle = np.linspace(0.1, 1.4, 5)[:, None]
    alpha, sigma = (function(angle) for function in PATHS[name])
    truth = {"x0": X0, "epsilon": EPSILON}
    if name == "flow":
        truth["v"] = EPSILON - X0
    else:
        truth["v"] = alpha * EPSILON - sigma * X0
    process = Process((4,), NoiseSchedule(path=name))
    return process, alpha, sigma, alpha * X0 + sigma * EPSILON, truth


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_target_and_x0(path, kind):
    process, alpha, sigma, x_t, truth = _path(path)
    found = process.target(kind, X0, EPSILON, alpha, sigma)
    np.testing.assert_allclose(found, truth[kind])
    found = process.to_x0(truth[kind], x_t, alpha, sigma, kind)
    np.testing.assert_allclose(found, X0, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("kind", "to"), itertools.product(PREDICTIONS, repeat=2))
def test_convert(path, kind, to):
    process, alpha, sigma, x_t, truth = _path(path)
    found = process.convert(truth[kind], to, x_t, alpha, sigma, kind)
    np.testing.assert_allclose(found, truth[to], atol=1e-12)
    # Of a wrong prediction too: there and back again.
    wrong = RNG.normal(size=X0.shape)
    there = process.convert(wrong, to, x_t, alpha, sigma, kind)
    back = process.convert(there, kind, x_t, alpha, sigma, to)
    np.testing.assert_allclose(back, wrong, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prediction": "noise"}, "`prediction` must be one of .*'noise'"),
        ({"loss_target": "noise"}, "`loss_target` must be one of .*'noise'"),
        ({"timesteps": "normal"}, "`timesteps` must be 'uniform', .*'normal'"),
        (
            {"schedule": "flow", "prediction": "epsilon"},
            "`prediction` must be 'v' or 'x0' with the schedule 'flow'",
        ),
        ({"frame_pooling": "last"}, "`frame_pooling` must be one of .*'last'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        Process((8, 4), **options)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.8)])
def test_logit_normal_timesteps(mean, std):
    """Against numpy's normal numbers, by their quantiles."""
    process = Process((4,), "flow", timesteps=LogitNormal(mean, std))
    seed = keras.random.SeedGenerator(0)
    times, _ = process.draw(np.zeros((20_000, 4, 4, 3)), (4,), None, seed)
    times = keras.ops.convert_to_numpy(times)
    expected = 1.0 / (1.0 + np.exp(-(mean + std * RNG.normal(size=20_000))))
    places = np.linspace(0.02, 0.98, 13)
    found = np.quantile(times / 1000, places)
    np.testing.assert_allclose(found, np.quantile(expected, places), atol=0.02)
    copy = LogitNormal(**LogitNormal(mean, std).get_config())
    assert (copy.mean, copy.std) == (mean, std)


def test_jit_loss():
    """x-prediction with the loss on v, as JiT has it: no share of noise below .05."""
    process = Process((4,), "flow", "x0", "v")
    x0, wrong = RNG.normal(size=(2, 3, 4, 4, 3)).astype("float32")
    noise = RNG.normal(size=x0.shape).astype("float32")
    times = np.array([9, 99, 999])
    tensors = [keras.ops.convert_to_tensor(a) for a in (x0, noise, times)]
    found = process.errors(process.perturb(4, *tensors), tensors[0] * 0 + wrong)
    t = np.array([0.01, 0.1, 1.0])
    expected = ((wrong - x0) ** 2).mean((1, 2, 3)) / np.maximum(t, 0.05) ** 2
    found = keras.ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


GAMMA = NoiseSchedule("log_snr_cosine").alphas_cumprod()


def _weights(weighting, target, ratio=1, schedule="log_snr_cosine"):
    """Weights of a level of a nest of 4 pixels and `ratio` times as many."""
    process = Process((4 * ratio, 4), schedule, "v", target, weighting)
    return process.tables[4 * ratio]["weight"].astype("float64")


def _weighted_x0_error(weighting, target):
    """Loss of a network that errs by 1 on x0 at every timestep, over its weights."""
    process = Process((4,), "log_snr_cosine", "v", target, weighting)
    gamma = GAMMA[1:].astype("float64")
    alpha, sigma = np.sqrt(gamma), np.sqrt(1.0 - gamma)
    x_t = alpha * 0.3 + sigma * 0.7
    truth = process.convert(0.3, target, x_t, alpha, sigma, "x0")
    wrong = process.convert(1.3, target, x_t, alpha, sigma, "x0")
    return _weights(weighting, target) * (truth - wrong) ** 2


@pytest.mark.parametrize("target", PREDICTIONS)
def test_weights_mean_the_same_on_every_target(target):
    """What a weighting says of an error of the clean picture holds on any target."""
    snr = GAMMA[1:].astype("float64")
    snr = snr / (1.0 - snr)
    expected = {
        "snr": snr,
        "min_snr": np.minimum(snr, 5.0),
        # On epsilon: sigmoid(b - log snr), whose error is snr times that of x0.
        "sigmoid": snr / (1.0 + np.exp(1.0 + np.log(snr))),
    }
    # On epsilon: the ratio of neighbors, less 1. Divided by the mean on the target.
    ratio = np.concatenate([snr[:1] / snr[1:2], snr[:-1] / snr[1:]]) - 1.0
    share = {"x0": 1.0, "epsilon": snr, "v": snr + 1.0}[target]
    expected["vdm"] = snr * ratio / np.mean(snr * ratio / share)
    for weighting, values in expected.items():
        found = _weighted_x0_error(weighting, target)
        np.testing.assert_allclose(found, values, rtol=1e-3)


def test_uniform_weights():
    assert (_weights("uniform", "v") == 1).all()


@pytest.mark.parametrize("target", PREDICTIONS)
def test_vdm_weights_have_the_mean_one(target):
    """A constant of the schedule: a batch's loss is the mean of its samples' losses."""
    found = _weights("vdm", target)
    assert found.mean() == pytest.approx(1.0, rel=1e-5) and (found > 0).all()


def test_unknown_weighting():
    with pytest.raises(ValueError, match="`loss_weighting` must be one of .*'flat'"):
        _weights("flat", "v")


def test_mean_squared_error():
    prediction, target = RNG.normal(size=(2, 3, 4, 4, 1)).astype("float32")
    expected = ((prediction - target) ** 2).reshape(3, -1).mean(1)
    found = losses.mean_squared_error(prediction, target)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fractions", "size", "counts"),
    [
        ([2 / 3, 1 / 3], 6, [4, 6]),
        ([0.5, 0.5], 5, [2, 5]),
        ([0.7, 0.2, 0.1], 10, [7, 9, 10]),
        ([0.1, 0.2, 0.7], 10, [1, 3, 10]),
        ([1.0, 0.0], 4, [4, 4]),
    ],
)
def test_mixed_batch_sizes(fractions, size, counts):
    assert losses.mixed_batch_sizes(fractions, size) == counts


def test_mixed_batch_too_small():
    with pytest.raises(ValueError, match="no sample would reach .* batch_size=3"):
        losses.mixed_batch_sizes([0.25, 0.75], 3)


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS[1:])
@pytest.mark.parametrize("target", PREDICTIONS)
def test_weights_of_resolutions_are_those_on_every_target(weighting, target):
    """But for one factor, which may not depend on the resolution."""
    schedule = NoiseSchedule()
    factors = []
    for ratio in (1, 4, 16):
        gamma = schedule.alphas_cumprod(ratio)
        snr = gamma[1:].astype("float64") / (1.0 - gamma[1:].astype("float64"))
        on_x0 = {
            name: _weights(weighting, name, ratio, schedule)
            * {"x0": 1.0, "epsilon": snr, "v": snr + 1.0}[name]
            for name in (target, "epsilon")
        }
        factors.append(on_x0[target] / on_x0["epsilon"])
    np.testing.assert_allclose(factors, factors[0][0], rtol=1e-3)
