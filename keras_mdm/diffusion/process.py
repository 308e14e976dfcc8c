"""The diffusion process of every level of a nest: noise in, what to learn, x0 out.

Training walks it as `draw` -> `diffuse` -> (network) -> `errors`; sampling uses `to_x0`
and the tables. It joins the noise schedule, the distribution of timesteps, the
prediction and the weighting of noise levels; it holds no variables and knows no
network. Nothing here assumes that `alpha^2 + sigma^2` is 1.
"""

import keras
import numpy as np
from keras import ops

from keras_mdm.checks import check_choice
from keras_mdm.diffusion import losses
from keras_mdm.diffusion.noise import noise_stream, sample_noise, sample_uniform
from keras_mdm.diffusion.pyramid import FRAME_POOLINGS, pyramid
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.levels import first, level_shape

PREDICTIONS = ("v", "epsilon", "x0")

# Seeds and streams of the noise of `evaluate` stand apart from those of sampling,
# whose streams are numbered by level.
_EVALUATION_SEED = 1_000_003
_TIMESTEP_STREAM = -1

_LEAST_FLOW_SIGMA = 0.05


class Process:
    """Diffusion of the levels of one nest.

    Args:
        levels: Sequence of levels, largest first: every one of the network.
        schedule: str, callable or `NoiseSchedule`.
        prediction: str. What the network predicts: `"v"`, `"epsilon"` or `"x0"`.
        loss_target: str or `None`. On what the squared error is taken. Defaults to
            `None`: the same as `prediction`.
        weighting: str. See `keras_mdm.diffusion.losses.noise_level_weights`.
        timesteps: `"uniform"` or a callable, such as `LogitNormal`, that turns uniform
            numbers in (0, 1) into times from 0 (clean) to 1 (noise).
        image_channels: int. Defaults to 3.
        frame_pooling: str. See `keras_mdm.diffusion.pyramid.pyramid`.

    Raises:
        ValueError: if an argument is unknown, or does not go with the schedule.
    """

    def __init__(
        self,
        levels,
        schedule="cosine",
        prediction="v",
        loss_target=None,
        weighting="uniform",
        timesteps="uniform",
        image_channels=3,
        frame_pooling="first",
    ):
        loss_target = prediction if loss_target is None else loss_target
        check_choice(PREDICTIONS, prediction=prediction, loss_target=loss_target)
        check_choice(FRAME_POOLINGS, frame_pooling=frame_pooling)
        named = isinstance(timesteps, str) and timesteps == "uniform"
        if not named and not callable(timesteps):
            raise ValueError(
                "`timesteps` must be 'uniform', or a function of uniform numbers such "
                f"as `LogitNormal()`. Received: timesteps={timesteps!r}"
            )
        if not isinstance(schedule, NoiseSchedule):
            schedule = NoiseSchedule(schedule)
        if prediction == "epsilon" and schedule.levels()[0][-1] == 0.0:
            raise ValueError(
                f"`prediction` must be 'v' or 'x0' with the schedule {schedule.name!r},"
                " whose last timestep has no picture to tell noise from. "
                f"Received: prediction={prediction!r}"
            )
        self.schedule = schedule
        self.prediction = prediction
        self.loss_target = loss_target
        self.weighting = weighting
        self.timesteps = timesteps
        self.image_channels = image_channels
        self.frame_pooling = frame_pooling
        self.ratios = {level: schedule.ratio(level, levels[-1]) for level in levels}
        self.tables = {
            level: self._table(ratio) for level, ratio in self.ratios.items()
        }

    def _table(self, ratio):
        """What one level looks up by timestep."""
        alpha, sigma = self.schedule.levels(ratio)
        weight = losses.noise_level_weights(
            self.weighting,
            lambda alpha, sigma: self._error_ratio(self.loss_target, alpha, sigma),
            alpha[1:],
            sigma[1:],
            *(table[1:] for table in self.schedule.levels()),
        )
        # As JiT: on v, an error of x0 near the clean end counts no more than at .05.
        uniform = self.weighting == "uniform" and self.schedule.path == "flow"
        if uniform and self.prediction == "x0" != self.loss_target:
            weight = weight * np.minimum(sigma[1:] / _LEAST_FLOW_SIGMA, 1.0) ** 2
        return {
            "alpha": alpha[1:].astype("float32"),
            "sigma": sigma[1:].astype("float32"),
            "weight": weight.astype("float32"),
            "signal_scale": self.schedule.signal_scale(ratio),
        }

    # === What is predicted, and the ways between ===

    def _factors(self, kind, alpha, sigma):
        """Factors of x0 and epsilon in a kind of prediction.

        `v` is the velocity along the path: `alpha epsilon - sigma x0` where it is
        variance preserving ([Salimans and Ho, 2022](https://arxiv.org/abs/2202.00512),
        appendix D), `epsilon - x0` of rectified flow.
        """
        if kind == "v":
            return (-1.0, 1.0) if self.schedule.path == "flow" else (-sigma, alpha)
        return (0.0, 1.0) if kind == "epsilon" else (1.0, 0.0)

    def _error_ratio(self, kind, alpha, sigma):
        """Squared error of a kind of prediction over that of x0, at one `x_t`."""
        on_x0, on_epsilon = self._factors(kind, alpha, sigma)
        return (on_x0 - on_epsilon * alpha / sigma) ** 2

    def target(self, kind, x0, epsilon, alpha, sigma):
        """The value of a kind of prediction for a known picture and noise."""
        if kind == "x0":
            return x0
        on_x0, on_epsilon = self._factors(kind, alpha, sigma)
        return on_x0 * x0 + on_epsilon * epsilon if kind == "v" else epsilon

    def to_x0(self, value, x_t, alpha, sigma, kind=None):
        """The clean picture that a prediction stands for.

        Args:
            value: Tensor. The prediction.
            x_t: Tensor of its shape. The noisy picture.
            alpha: Tensor that broadcasts. Factor of the picture in `x_t`.
            sigma: Tensor that broadcasts. Factor of the noise in `x_t`.
            kind: str. Defaults to `None`: what the network predicts.

        Returns:
            Tensor of the shape of `value`.
        """
        kind = kind or self.prediction
        if kind == "x0":
            return value
        if kind == "epsilon":
            return (x_t - sigma * value) / alpha
        # Both factors of v solve `on_epsilon * alpha - on_x0 * sigma = 1` on its path.
        _, on_epsilon = self._factors("v", alpha, sigma)
        return on_epsilon * x_t - sigma * value

    def convert(self, value, to, x_t, alpha, sigma, kind=None):
        """Turns a prediction of one kind into another; see `to_x0`."""
        kind = kind or self.prediction
        if kind == to:
            return value
        x0 = self.to_x0(value, x_t, alpha, sigma, kind)
        return self.target(to, x0, (x_t - alpha * x0) / sigma, alpha, sigma)

    # === Training ===

    def draw(self, pictures, levels, fractions, seed):
        """Timesteps and noise of a training batch.

        Args:
            pictures: Tensor of pictures or clips of the largest of `levels`.
            levels: Sequence of levels that take part, largest first.
            fractions: Fractions of a mixed batch, or `None`; see
                `keras_mdm.diffusion.losses.mixed_batch_sizes`.
            seed: `keras.random.SeedGenerator`.

        Returns:
            A pair: int32 tensor of shape `(batch,)`, and a list of noise, one tensor a
            level.
        """
        size = ops.shape(pictures)[0]
        counts = [size] * len(levels)
        if fractions is not None:
            counts = losses.mixed_batch_sizes(fractions, pictures.shape[0])
        uniform = keras.random.uniform((size,), dtype="float32", seed=seed)
        noises = [
            keras.random.normal(
                (count, *level_shape(level, self.image_channels)),
                dtype="float32",
                seed=seed,
            )
            for count, level in zip(counts, levels, strict=True)
        ]
        return self._as_timesteps(uniform), noises

    def draw_fixed(self, size, offset, levels):
        """Timesteps and noise that depend on the place in the data set alone.

        Args:
            size: int or scalar tensor. Number of samples.
            offset: Scalar int32 tensor. Place of the first one.
            levels: Sequence of levels that take part, largest first.

        Returns:
            As `draw`.
        """
        seeds = offset + ops.arange(size, dtype="int32") + _EVALUATION_SEED
        noises = [
            sample_noise(
                seeds, noise_stream(level), 0, level_shape(level, self.image_channels)
            )
            for level in levels
        ]
        return self._as_timesteps(sample_uniform(seeds, _TIMESTEP_STREAM)), noises

    def _as_timesteps(self, uniform):
        """int32 timesteps as the network is told them, from 0."""
        times = uniform if self.timesteps == "uniform" else self.timesteps(uniform)
        count = self.schedule.num_timesteps
        return ops.clip(ops.cast(times * count, "int32"), 0, count - 1)

    def diffuse(self, pictures, noises, timesteps, levels):
        """Noisy pictures and targets of every level.

        Args:
            pictures: Tensor of clean pictures of shape
                `(batch, height, width, channels)`, or clips with frames after the
                batch: uint8 in [0, 255] or float in [-1, 1].
            noises: List of tensors of standard normal noise, one for each of `levels`.
                A larger level may have fewer samples: the first ones of the batch.
            timesteps: int32 tensor of shape `(batch,)`, from 0 to
                `num_timesteps - 1`.
            levels: Sequence of levels that take part, largest first.

        Returns:
            List of one dict for each level, with `x_t`, `target`, and `alpha`, `sigma`
            and `weight` at its timesteps.
        """
        if keras.backend.standardize_dtype(pictures.dtype) == "uint8":
            pictures = ops.cast(pictures, "float32") / 127.5 - 1.0
        pools = pyramid(ops.cast(pictures, "float32"), levels, self.frame_pooling)
        return [
            self.perturb(level, first(clean, noise.shape[0]), noise, timesteps)
            for level, clean, noise in zip(levels, pools, noises, strict=True)
        ]

    def perturb(self, level, clean, noise, timesteps):
        """Noisy pictures of one level, and what is to be learned from them.

        Args:
            level: int or str.
            clean: Tensor of clean pictures in [-1, 1].
            noise: Tensor of the same shape.
            timesteps: int32 tensor of as many samples or more.

        Returns:
            dict, see `diffuse`.
        """
        table = self.tables[level]
        times = first(timesteps, noise.shape[0])
        shape = (-1,) + (1,) * (len(clean.shape) - 1)
        alpha, sigma, weight = (
            ops.take(ops.convert_to_tensor(table[name]), times, axis=0)
            for name in ("alpha", "sigma", "weight")
        )
        alpha, sigma = ops.reshape(alpha, shape), ops.reshape(sigma, shape)
        clean = clean / table["signal_scale"]
        return {
            "x_t": alpha * clean + sigma * noise,
            "target": self.target(self.loss_target, clean, noise, alpha, sigma),
            "alpha": alpha,
            "sigma": sigma,
            "weight": weight,
        }

    def errors(self, perturbed, value):
        """Weighted mean squared error of each sample at one level.

        Args:
            perturbed: What `perturb` returned.
            value: The network's prediction.

        Returns:
            float32 tensor of shape `(batch,)`.
        """
        value = self.convert(
            value,
            self.loss_target,
            perturbed["x_t"],
            perturbed["alpha"],
            perturbed["sigma"],
        )
        error = losses.mean_squared_error(value, perturbed["target"])
        return error * perturbed["weight"]
