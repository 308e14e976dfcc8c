"""The training objective: clean pictures to noisy levels and targets, and their loss.

It joins the schedule, predictions, pyramid and losses of `keras_mdm.diffusion` for the
resolutions of one network. `MDM` owns one and calls it from `train_step`, `test_step`
and `compute_loss`; it holds no variables.
"""

import keras
import numpy as np
from keras import ops

from keras_mdm.diffusion import losses, predictions
from keras_mdm.diffusion.noise import noise_stream, sample_noise, sample_uniform
from keras_mdm.diffusion.pyramid import pyramid
from keras_mdm.levels import level_shape
from keras_mdm.model.batches import pictures_of
from keras_mdm.networks.base import first

# Seeds and streams of the noise of `evaluate` stand apart from those of sampling,
# whose streams are numbered by resolution.
_EVALUATION_SEED = 1_000_003
_TIMESTEP_STREAM = -1


class Objective:
    """Multi-resolution denoising objective of a nest.

    Args:
        schedule: `NoiseSchedule`.
        prediction: str. What the network predicts.
        loss_target: str. On what the squared error is taken.
        loss_weighting: str. See `keras_mdm.diffusion.losses.loss_weights`.
        resolutions: Sequence of levels: every resolution of the network.
        image_channels: int.
        frame_pooling: str. See `keras_mdm.diffusion.pyramid.pyramid`.
    """

    def __init__(
        self,
        schedule,
        prediction,
        loss_target,
        loss_weighting,
        resolutions,
        image_channels,
        frame_pooling="first",
    ):
        self.schedule = schedule
        self.prediction = prediction
        self.loss_target = loss_target
        self.loss_weighting = loss_weighting
        self.image_channels = image_channels
        self.frame_pooling = frame_pooling
        smallest = resolutions[-1]
        self.tables = {r: self._table(schedule.ratio(r, smallest)) for r in resolutions}

    def _table(self, ratio):
        """Noise levels of one resolution, looked up by timestep."""
        gamma = self.schedule.alphas_cumprod(ratio)
        return {
            "alpha": np.sqrt(gamma[1:]),
            "sigma": np.sqrt(np.float32(1.0) - gamma[1:]),
            "weight": losses.loss_weights(
                self.loss_weighting,
                self.loss_target,
                gamma,
                unshifted=self.schedule.alphas_cumprod(1),
            ),
            "signal_scale": self.schedule.signal_scale(ratio),
        }

    def draw(self, batch, resolutions, shares, seed):
        """Timesteps and noise of a training batch.

        Args:
            batch: dict with `images` or `videos`.
            resolutions: Sequence of int, largest first: those that take part.
            shares: Shares of a mixed batch, or `None`.
            seed: `keras.random.SeedGenerator`.

        Returns:
            A pair: int32 tensor of shape `(batch,)`, and a list of noise for each
            resolution.
        """
        pictures = pictures_of(batch)
        size = ops.shape(pictures)[0]
        counts = [size] * len(resolutions)
        if shares is not None:
            counts = losses.mixed_batch_sizes(shares, pictures.shape[0])
        timesteps = keras.random.randint(
            (size,), 0, self.schedule.num_timesteps, seed=seed
        )
        noises = [
            keras.random.normal(
                (count, *level_shape(resolution, self.image_channels)),
                dtype="float32",
                seed=seed,
            )
            for count, resolution in zip(counts, resolutions, strict=True)
        ]
        return timesteps, noises

    def draw_fixed(self, size, offset, resolutions):
        """Timesteps and noise that depend on the place in the data set alone.

        Args:
            size: int or scalar tensor. Number of samples.
            offset: Scalar int32 tensor. Place of the first one.
            resolutions: Sequence of int, largest first.

        Returns:
            As `draw`.
        """
        seeds = offset + ops.arange(size, dtype="int32") + _EVALUATION_SEED
        uniform = sample_uniform(seeds, _TIMESTEP_STREAM)
        timesteps = ops.cast(uniform * self.schedule.num_timesteps, "int32")
        noises = [
            sample_noise(
                seeds,
                noise_stream(resolution),
                0,
                level_shape(resolution, self.image_channels),
            )
            for resolution in resolutions
        ]
        return timesteps, noises

    def diffuse(self, batch, noises, timesteps, resolutions):
        """Turns clean pictures into what the network sees and what it should say.

        Args:
            batch: dict with `images` of shape `(batch, height, width, channels)`, or
                `videos` with frames after the batch, uint8 in [0, 255] or float in
                [-1, 1], and the condition's features.
            noises: List of tensors of standard normal noise, one for each of
                `resolutions`. A larger resolution may have fewer samples.
            timesteps: int32 tensor of shape `(batch,)`, from 0 to
                `num_timesteps - 1`.
            resolutions: Sequence of int, largest first.

        Returns:
            A pair: inputs of the network, and a list of one dict for each resolution
            with `target`, `x_t`, `alpha`, `sigma` and `weight`.
        """
        images = pictures_of(batch)
        if keras.backend.standardize_dtype(images.dtype) == "uint8":
            images = ops.cast(images, "float32") / 127.5 - 1.0
        images = ops.cast(images, "float32")
        levels = []
        pools = pyramid(images, resolutions, self.frame_pooling)
        for resolution, clean, noise in zip(resolutions, pools, noises, strict=True):
            count = noise.shape[0]
            table = self.tables[resolution]
            times = first(timesteps, count)
            shape = (-1,) + (1,) * (len(clean.shape) - 1)
            alpha = ops.reshape(_look_up(table["alpha"], times), shape)
            sigma = ops.reshape(_look_up(table["sigma"], times), shape)
            clean = first(clean, count) / table["signal_scale"]
            weight = _look_up(table["weight"], times)
            levels.append(
                {
                    "target": predictions.target(
                        self.loss_target, clean, noise, alpha, sigma
                    ),
                    "x_t": alpha * clean + sigma * noise,
                    "alpha": alpha,
                    "sigma": sigma,
                    "weight": weight,
                }
            )
        inputs = {
            key: value
            for key, value in batch.items()
            if key not in ("images", "videos")
        }
        inputs["images"] = [level["x_t"] for level in levels]
        inputs["timesteps"] = timesteps
        return inputs, levels

    def errors(self, level, value):
        """Weighted mean squared error of each sample at one resolution.

        Args:
            level: One of the dicts that `diffuse` returned.
            value: The network's prediction.

        Returns:
            float32 tensor of shape `(batch,)`.
        """
        value = predictions.convert(
            self.prediction,
            value,
            self.loss_target,
            level["x_t"],
            level["alpha"],
            level["sigma"],
        )
        return losses.mean_squared_error(value, level["target"]) * level["weight"]


def _look_up(table, timesteps):
    """Entries of a table by timestep, shape `(batch,)`."""
    return ops.take(ops.convert_to_tensor(table), timesteps, axis=0)
