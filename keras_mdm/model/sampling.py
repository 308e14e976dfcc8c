"""The compiled sampling run: noise and a condition in, pictures of every level out.

`generate` plans a run (`plan`, plain numpy), then calls the three functions of a
`SamplingRun`: `prepare`, `advance`, `finish`. All that changes from call to call is an
argument: schedule values, guidance scale, seeds, the range of steps. What changes the
computation itself is in `RunKind`, and each kind is compiled once.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_mdm.diffusion import predictions
from keras_mdm.diffusion.guidance import guide, threshold
from keras_mdm.diffusion.noise import noise_stream, sample_noise
from keras_mdm.diffusion.samplers import coefficients
from keras_mdm.levels import level_shape
from keras_mdm.model.known_frames import insert, known_levels, resampled_step


@dataclasses.dataclass(frozen=True)
class RunKind:
    """What is fixed when a sampling run is compiled.

    Attributes:
        resolution: int or str. Largest level that is drawn.
        guided: bool. Whether a second, unconditional half runs along.
        interval: bool. Whether guidance holds for a part of the steps only.
        rescaled: bool. Whether guidance is rescaled.
        two_stage: bool. Whether each step makes two predictions (Heun).
        history: bool. Whether a step uses the clean picture of the step before.
        noisy: bool. Whether steps add noise.
        threshold: str. `"none"`, `"static"` or `"dynamic"`.
    """

    resolution: int
    guided: bool
    interval: bool
    rescaled: bool
    two_stage: bool
    history: bool
    noisy: bool
    threshold: str


def plan(
    schedule, ratios, sampler, num_steps, eta, guidance_interval=None, spacing="log_snr"
):
    """Everything about a run that numpy can know: coefficients and noise levels.

    Arrays are padded to the schedule's number of timesteps, so that another number of
    steps has the same shapes.

    Args:
        schedule: `NoiseSchedule`.
        ratios: Sequence of float. Ratio of each resolution to the smallest one.
        sampler: str.
        num_steps: int.
        eta: float.
        guidance_interval: Optional pair of float in [0, 1]: the part of the noise
            levels, 0 clean and 1 pure noise, at which guidance holds.
        spacing: str. See `NoiseSchedule.sampling_indices`.

    Returns:
        dict of float32 arrays: `steps` of shape `(levels, 6, timesteps)`,
        `alpha` and `sigma` of shape `(levels, timesteps + 1)`, and `timesteps` and
        `guided` of shape `(timesteps + 1,)`.
    """
    indices = schedule.sampling_indices(num_steps, spacing)
    padding = schedule.num_timesteps - num_steps
    steps, alphas, sigmas = [], [], []
    for ratio in ratios:
        gamma = schedule.alphas_cumprod(ratio)[indices]
        found = coefficients(sampler, gamma, eta)
        nothing = np.zeros(num_steps)
        rows = [
            found.on_x,
            found.on_x0,
            found.on_history,
            found.on_noise,
            nothing if found.guess_on_x is None else found.guess_on_x,
            nothing if found.guess_on_x0 is None else found.guess_on_x0,
        ]
        steps.append(np.pad(np.stack(rows), ((0, 0), (0, padding))))
        alphas.append(np.pad(np.sqrt(gamma), (0, padding)))
        sigmas.append(np.pad(np.sqrt(1.0 - gamma), (0, padding)))
    guided = np.ones(num_steps + 1)
    if guidance_interval is not None:
        low, high = guidance_interval
        share = indices / schedule.num_timesteps
        guided = ((share >= low) & (share <= high)).astype("float64")
    arrays = {
        "steps": np.stack(steps),
        "alpha": np.stack(alphas),
        "sigma": np.stack(sigmas),
        "timesteps": np.pad(indices - 1, (0, padding)),
        "guided": np.pad(guided, (0, padding)),
    }
    return {key: value.astype("float32") for key, value in arrays.items()}


class SamplingRun:
    """The run of one kind on one model, written for any backend, eager or compiled.

    Args:
        mdm: `MDM`.
        kind: `RunKind`.
    """

    def __init__(self, mdm, kind):
        self.mdm = mdm
        self.kind = kind
        self.network = mdm.network.doll(kind.resolution)
        smallest = mdm.network.innermost.level
        self.scales = [
            mdm.schedule.signal_scale(mdm.schedule.ratio(level, smallest))
            for level in self.network.resolutions
        ]

    def prepare(self, seeds, features, negative, known=None):
        """Encodes the condition and draws the initial noise.

        Args:
            seeds: int32 tensor of shape `(batch,)`.
            features: dict of the condition's features.
            negative: dict of the negative condition's features, or `None` for the
                null condition.
            known: Optional dict of given frames: `clips` of the largest level in
                [-1, 1], and `mask` of shape `(batch, frames)`, 1 where they are given.

        Returns:
            A pair: what `advance` needs beside noise, and the list of initial noise.
        """
        if self.kind.guided:
            batch = seeds.shape[0]
            if negative is None:
                both = _concatenate(features, features)
                drop = ops.arange(2 * batch, dtype="int32") < batch
            else:
                both, drop = _concatenate(negative, features), None
            condition = self.network.encode_condition(both, drop)
        else:
            both = features
            condition = self.network.encode_condition(features)
        channels = self.network.image_channels
        noise = [
            sample_noise(seeds, noise_stream(level), 0, level_shape(level, channels))
            for level in self.network.resolutions
        ]
        micro = {
            name for doll in self.network.dolls for name in doll.micro_conditioning
        }
        numbers = {key: value for key, value in both.items() if key in micro}
        condition = {"encoded": condition, "features": numbers}
        known = known_levels(
            known,
            self.network.resolutions,
            self.mdm.objective.frame_pooling,
            self.scales,
        )
        return {"condition": condition, "known": known}, noise

    def predict(self, x, i, prepared, table, options):
        """Clean pictures predicted at the `i`-th visited noise level.

        Given frames are as they were given.
        """
        clean = self._predict_all(x, i, prepared["condition"], table, options)
        return clean if prepared["known"] is None else insert(prepared["known"], clean)

    def _predict_all(self, x, i, condition, table, options):
        if self.kind.guided and self.kind.interval:
            return ops.cond(
                ops.take(table["guided"], i) > 0.5,
                lambda: self._predict(x, i, condition, table, options, True),
                lambda: self._predict(
                    x, i, _second_half(condition, x[0].shape[0]), table, options, False
                ),
            )
        return self._predict(x, i, condition, table, options, self.kind.guided)

    def _predict(self, x, i, condition, table, options, guided):
        batch = x[0].shape[0]
        timestep = ops.take(table["timesteps"], i)
        images = [ops.concatenate([level, level]) for level in x] if guided else x
        timesteps = ops.broadcast_to(timestep, (images[0].shape[0],))
        outputs, _ = self.network.denoise(
            images, timesteps, condition["encoded"], condition["features"]
        )
        clean = []
        for level, (x_t, output) in enumerate(zip(x, outputs, strict=True)):
            output = self.mdm.limit(output)
            if guided:
                output = guide(
                    output[:batch],
                    output[batch:],
                    options["guidance_scale"],
                    options["guidance_rescale"] if self.kind.rescaled else None,
                )
            alpha = ops.take(table["alpha"][level], i)
            sigma = ops.take(table["sigma"][level], i)
            x0 = predictions.to_x0(self.mdm.prediction, output, x_t, alpha, sigma)
            scale = self.scales[level]
            x0 = threshold(
                self.kind.threshold,
                x0 * scale,
                options["percentile"],
                options["maximum"],
            )
            clean.append(x0 / scale)
        return clean

    def step(self, i, x, history, noises, num_steps, prepared, table, options):
        """One sampler step from the `i`-th visited noise level to the next.

        Args:
            i: Scalar int32.
            x: List of noisy pictures, largest resolution first.
            history: List of the clean pictures of the step before.
            noises: List of fresh noise, or `None` if the kind is not noisy.
            num_steps: Scalar int32.
            prepared: What `prepare` returned.
            table: dict of tensors that `plan` returned.
            options: dict of scalars: `guidance_scale`, `guidance_rescale`,
                `percentile`, `maximum`, and `num_resamplings`, an int32.

        Returns:
            A pair: the less noisy pictures, and the clean ones predicted.
        """
        x0 = self.predict(x, i, prepared, table, options)
        rows = [
            [ops.take(table["steps"][level, row], i) for row in range(6)]
            for level in range(len(x))
        ]
        other = history
        if self.kind.two_stage:
            guess = [r[4] * a + r[5] * b for r, a, b in zip(rows, x, x0, strict=True)]
            # The last step ends at a clean picture, which the network cannot be
            # asked about.
            other = ops.cond(
                i < num_steps - 1,
                lambda: self.predict(guess, i + 1, prepared, table, options),
                lambda: x0,
            )
        result = []
        for level, (on_x, on_x0, on_history, on_noise, *_) in enumerate(rows):
            value = on_x * x[level] + on_x0 * x0[level]
            if self.kind.two_stage or self.kind.history:
                value = value + on_history * other[level]
            if self.kind.noisy:
                value = value + on_noise * noises[level]
            result.append(value)
        return result, x0

    def advance(
        self, x, history, start, stop, num_steps, seeds, prepared, table, options
    ):
        """Runs steps `start` to `stop - 1` in one loop.

        Returns:
            A pair: noisy pictures, and the clean ones of the last step.
        """

        def body(i, carry):
            x, history = carry

            def step(x, history, fresh, steps):
                noises = fresh() if self.kind.noisy else None
                chosen = {**table, "steps": steps}
                return self.step(
                    i, x, history, noises, num_steps, prepared, chosen, options
                )

            def fresh():
                return [
                    sample_noise(seeds, noise_stream(level), i + 1, noisy.shape[1:])
                    for level, noisy in zip(self.network.resolutions, x, strict=True)
                ]

            if prepared["known"] is None:
                return step(x, history, fresh, table["steps"])
            return resampled_step(
                step,
                x,
                history,
                i,
                num_steps,
                prepared["known"],
                seeds,
                self.network.resolutions,
                table,
                options["num_resamplings"],
            )

        return ops.fori_loop(start, stop, body, (x, history))

    def finish(self, x):
        """Pictures in [-1, 1] from the last noisy pictures."""
        return [
            ops.clip(level * scale, -1.0, 1.0)
            for level, scale in zip(x, self.scales, strict=True)
        ]

    def whole(self, seeds, num_steps, features, negative, known, table, options):
        """The whole run as one function: `prepare`, every step, `finish`."""
        prepared, noise = self.prepare(seeds, features, negative, known)
        history = [ops.zeros_like(level) for level in noise]
        x, _ = self.advance(
            noise, history, 0, num_steps, num_steps, seeds, prepared, table, options
        )
        return self.finish(x)


def _concatenate(first, second):
    return {key: ops.concatenate([first[key], second[key]]) for key in second}


def _second_half(condition, batch):
    """The conditional half of a condition that was encoded for guidance."""
    return keras.tree.map_structure(
        lambda t: None if t is None else t[batch:], condition
    )
