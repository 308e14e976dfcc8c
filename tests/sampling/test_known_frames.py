"""Known frames, drawn with a network that is replaced by an exact posterior mean.

Two frames whose pixels are normal with correlation 0.8: of the other frame, given one,
everything is known.
"""

import numpy as np
import pytest
from helpers import tiny_unet
from keras import ops

import keras_mdm

MEAN, SPREAD, CORRELATION = 0.1, 0.18, 0.8
# Both frames, and the picture inside, which is the first one.
PAIRS = np.array([[1, 0.8, 1], [0.8, 1, 0.8], [1, 0.8, 1]])


class Posterior(keras_mdm.InflatedUNet):
    """Predicts v from the posterior mean of clean frames and picture."""

    def tables(self, schedule):
        """Signal, noise and the posterior's gain at every timestep."""
        clips, picture = (
            schedule.levels(ratio) for ratio in (schedule.ratio("2x8", 8), 1)
        )
        signal, noise = (
            np.stack([clips[i], clips[i], picture[i]], axis=1)[1:] for i in (0, 1)
        )
        covariance = SPREAD**2 * PAIRS
        gains = [
            covariance * a @ np.linalg.inv(covariance * np.outer(a, a) + np.diag(s**2))
            for a, s in zip(signal, noise, strict=True)
        ]
        # Hidden from Keras, which would track arrays.
        self.__dict__["found"] = signal, noise, np.stack(gains)

    def denoise(self, images, timesteps, *args, **kwargs):
        clips, picture = images
        noisy = ops.concatenate([clips[:, 0], clips[:, 1], picture], axis=-1)
        places = ops.cast(timesteps, "int32")
        signal, noise, gain = (
            ops.take(ops.convert_to_tensor(table.astype("float32")), places, axis=0)
            for table in self.__dict__["found"]
        )
        signal, noise = signal[:, None, None], noise[:, None, None]
        clean = MEAN + ops.einsum("bij,bhwj->bhwi", gain, noisy - signal * MEAN)
        if self.__dict__["says_x0"]:
            v = clean
        else:
            v = signal * (noisy - signal * clean) / noise - noise * clean
        frames = ops.stack([v[..., :1], v[..., 1:2]], axis=1)
        return [frames, v[..., 2:]], None


def make_oracle(**options):
    network = Posterior(tiny_unet(8, classes=0, channels=(8, 8)), frames=2)
    mdm = keras_mdm.MDM(network, ema_momentum=None, **options)
    network.__dict__["says_x0"] = mdm.prediction == "x0"
    network.tables(mdm.schedule)
    return mdm


@pytest.fixture(scope="module")
def oracle():
    return make_oracle()


def _draw(mdm, known, **options):
    drawn = mdm.generate(
        num_samples=64,
        known_frames=known,
        threshold="none",
        output="float",
        seed=0,
        **options,
    )
    return drawn.astype("float64")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("sampler", "num_steps"), [("ddim", 50), ("ddpm", 50), ("dpm_solver", 50)]
)
def test_the_other_frame_follows_its_conditional_distribution(
    oracle, sampler, num_steps, number
):
    """Also where the picture inside, which is the first frame, has to follow."""
    check_conditional(oracle, number, sampler, num_steps)


def test_known_frames_on_rectified_flow():
    oracle = make_oracle(schedule="flow", prediction="x0")
    check_conditional(oracle, 1, "ddpm", 50)


def check_conditional(oracle, number, sampler, num_steps):
    given = np.random.default_rng(0).normal(MEAN, SPREAD, (64, 8, 8, 1))
    given = given.clip(-1, 1).astype("float32")
    drawn = _draw(oracle, {number: given}, sampler=sampler, num_steps=num_steps)
    np.testing.assert_array_equal(drawn[:, number], given)
    x, y = given.astype("float64").ravel(), drawn[:, 1 - number].ravel()
    slope = np.cov(x, y)[0, 1] / x.var()
    rest = y - y.mean() - slope * (x - x.mean())
    assert slope == pytest.approx(CORRELATION, abs=0.05)
    assert y.mean() - slope * x.mean() == pytest.approx(MEAN * 0.2, abs=0.01)
    assert rest.std() == pytest.approx(SPREAD * np.sqrt(1 - 0.8**2), rel=0.1)


def test_one_passage_is_not_enough(oracle):
    """What resampling is for: each step taken once hardly binds the other frame."""
    given = np.random.default_rng(0).normal(MEAN, SPREAD, (64, 8, 8, 1))
    given = given.clip(-1, 1).astype("float32")
    drawn = _draw(oracle, {0: given}, sampler="ddim", num_steps=50, num_resamplings=1)
    slope = np.cov(given.ravel(), drawn[:, 1].ravel())[0, 1] / given.var()
    assert slope < 0.6


def test_free_clips_follow_the_joint_distribution(oracle):
    drawn = _draw(oracle, None, sampler="ddim", num_steps=50)
    first, second = drawn[:, 0].ravel(), drawn[:, 1].ravel()
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(CORRELATION, abs=0.02)


def test_a_seed_draws_the_same_whatever_the_batch(oracle):
    given = np.zeros((8, 8, 1), "float32")
    options = {"known_frames": {1: given}, "num_steps": 4, "output": "float"}
    together = oracle.generate(num_samples=3, seed=5, **options)
    alone = oracle.generate(num_samples=1, seed=7, **options)
    np.testing.assert_allclose(together[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("value", [0, 1001, 2.5, True])
def test_wrong_number_of_resamplings(oracle, value):
    with pytest.raises(ValueError, match="`num_resamplings` must be a whole number"):
        oracle.generate(num_resamplings=value)
