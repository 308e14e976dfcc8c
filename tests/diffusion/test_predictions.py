"""v, epsilon and x0, the loss and its weights, against their definitions."""

import itertools

import numpy as np
import pytest

from keras_mdm.diffusion import losses, predictions
from keras_mdm.diffusion.schedules import NoiseSchedule

RNG = np.random.default_rng(0)
X0, EPSILON = RNG.normal(size=(2, 5, 4))
ANGLE = np.linspace(0.1, 1.4, 5)[:, None]
ALPHA, SIGMA = np.cos(ANGLE), np.sin(ANGLE)
X_T = ALPHA * X0 + SIGMA * EPSILON
TRUTH = {"v": ALPHA * EPSILON - SIGMA * X0, "epsilon": EPSILON, "x0": X0}


@pytest.mark.parametrize("kind", predictions.PREDICTIONS)
def test_target(kind):
    found = predictions.target(kind, X0, EPSILON, ALPHA, SIGMA)
    np.testing.assert_allclose(found, TRUTH[kind])


@pytest.mark.parametrize("kind", predictions.PREDICTIONS)
def test_to_x0(kind):
    found = predictions.to_x0(kind, TRUTH[kind], X_T, ALPHA, SIGMA)
    np.testing.assert_allclose(found, X0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "to"), itertools.product(predictions.PREDICTIONS, repeat=2)
)
def test_convert(kind, to):
    found = predictions.convert(kind, TRUTH[kind], to, X_T, ALPHA, SIGMA)
    np.testing.assert_allclose(found, TRUTH[to], atol=1e-12)
    # Of a wrong prediction too: there and back again.
    wrong = RNG.normal(size=X0.shape)
    there = predictions.convert(kind, wrong, to, X_T, ALPHA, SIGMA)
    back = predictions.convert(to, there, kind, X_T, ALPHA, SIGMA)
    np.testing.assert_allclose(back, wrong, atol=1e-9)


def test_unknown_prediction():
    with pytest.raises(ValueError, match="`prediction` must be one of .*'noise'"):
        predictions.check_prediction("prediction", "noise")


GAMMA = NoiseSchedule("cosine").alphas_cumprod()


def _weighted_x0_error(weighting, target):
    """Loss of a network that errs by 1 on x0 at every level, over its weights."""
    gamma = GAMMA[1:].astype("float64")
    alpha, sigma = np.sqrt(gamma), np.sqrt(1.0 - gamma)
    x_t = alpha * 0.3 + sigma * 0.7
    truth = predictions.convert("x0", 0.3, target, x_t, alpha, sigma)
    wrong = predictions.convert("x0", 1.3, target, x_t, alpha, sigma)
    return losses.loss_weights(weighting, target, GAMMA) * (truth - wrong) ** 2


@pytest.mark.parametrize("target", predictions.PREDICTIONS)
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
    # On epsilon: the ratio of neighbours, less 1. Divided by the mean on the target.
    ratio = np.concatenate([snr[:1] / snr[1:2], snr[:-1] / snr[1:]]) - 1.0
    share = {"x0": 1.0, "epsilon": snr, "v": snr + 1.0}[target]
    expected["vdm"] = snr * ratio / np.mean(snr * ratio / share)
    for weighting, values in expected.items():
        found = _weighted_x0_error(weighting, target)
        np.testing.assert_allclose(found, values, rtol=1e-3)


def test_uniform_weights():
    assert (losses.loss_weights("uniform", "v", GAMMA) == 1).all()


@pytest.mark.parametrize("target", predictions.PREDICTIONS)
def test_vdm_weights_have_the_mean_one(target):
    """A constant of the schedule: a batch's loss is the mean of its samples' losses."""
    found = losses.loss_weights("vdm", target, GAMMA)
    assert found.mean() == pytest.approx(1.0, rel=1e-5) and (found > 0).all()


def test_unknown_weighting():
    with pytest.raises(ValueError, match="`loss_weighting` must be one of .*'flat'"):
        losses.loss_weights("flat", "v", GAMMA)


def test_mean_squared_error():
    prediction, target = RNG.normal(size=(2, 3, 4, 4, 1)).astype("float32")
    expected = ((prediction - target) ** 2).reshape(3, -1).mean(1)
    found = losses.mean_squared_error(prediction, target)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shares", "size", "counts"),
    [
        ([2 / 3, 1 / 3], 6, [4, 6]),
        ([0.5, 0.5], 5, [2, 5]),
        ([0.7, 0.2, 0.1], 10, [7, 9, 10]),
        ([0.1, 0.2, 0.7], 10, [1, 3, 10]),
        ([1.0, 0.0], 4, [4, 4]),
    ],
)
def test_mixed_batch_sizes(shares, size, counts):
    assert losses.mixed_batch_sizes(shares, size) == counts


def test_mixed_batch_too_small():
    with pytest.raises(ValueError, match="no sample would reach .* batch_size=3"):
        losses.mixed_batch_sizes([0.25, 0.75], 3)


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS[1:])
@pytest.mark.parametrize("target", predictions.PREDICTIONS)
def test_weights_of_resolutions_are_those_on_every_target(weighting, target):
    """But for one factor, which may not depend on the resolution."""
    schedule = NoiseSchedule()
    factors = []
    for ratio in (1, 4, 16):
        gamma = schedule.alphas_cumprod(ratio)
        snr = gamma[1:].astype("float64") / (1.0 - gamma[1:].astype("float64"))
        on_x0 = {
            name: losses.loss_weights(
                weighting, name, gamma, unshifted=schedule.alphas_cumprod()
            )
            * {"x0": 1.0, "epsilon": snr, "v": snr + 1.0}[name]
            for name in (target, "epsilon")
        }
        factors.append(on_x0[target] / on_x0["epsilon"])
    np.testing.assert_allclose(factors, factors[0][0], rtol=1e-3)
