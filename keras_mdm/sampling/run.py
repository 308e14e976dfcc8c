"""The compiled sampling run: noise and a condition in, pictures of every level out.

`generate` plans a run (`plan`, plain numpy), then calls `SamplingRun.draw`, or, for a
progress bar, its parts `prepare`, `run_steps` and `pictures`. All that changes from
call to call is an argument: schedule values, guidance scale, seeds, the range of steps.
What changes the computation itself is in `RunKind`, and each kind is compiled once.
"""

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.diffusion.guidance import guide, threshold
from keras_mdm.diffusion.noise import noise_stream, sample_noise
from keras_mdm.levels import level_shape
from keras_mdm.sampling.known_frames import insert, known_levels, resampled_step


class SamplingRun:
    """The run of one kind on one model, written for any backend, eager or compiled.

    Args:
        mdm: `MDM`.
        kind: `RunKind`.
    """

    def __init__(self, mdm, kind):
        self.mdm = mdm
        self.kind = kind
        self.process = mdm.process
        self.network = mdm.network.at_level(kind.level)
        self.scales = [
            mdm.process.tables[level]["signal_scale"] for level in self.network.levels
        ]

    def prepare(self, seeds, features, negative, known=None):
        """Encodes the condition and draws the initial noise.

        Args:
            seeds: int32 tensor of shape `(batch,)`.
            features: dict of the condition's features.
            negative: dict of the negative condition's features, or `None` for the
                null condition.
            known: Optional dict of known frames: `clips` of the largest level in
                [-1, 1], and `mask` of shape `(batch, frames)`, 1 where they are known.

        Returns:
            A pair: what `run_steps` needs beside noise, and the list of initial noise.
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
            for level in self.network.levels
        ]
        names = self.network.micro_names
        micro = {key: value for key, value in both.items() if key in names}
        condition = {"encoded": condition, "features": micro}
        known = known_levels(
            known,
            self.network.levels,
            self.process.frame_pooling,
            self.scales,
        )
        return {"condition": condition, "known": known}, noise

    def predict(self, x, i, context, table, options):
        """Clean pictures predicted at the `i`-th visited noise level.

        Known frames stay as they are.
        """
        condition, guided = context["condition"], self.kind.guided
        if self.kind.interval:
            alone = _second_half(condition, x[0].shape[0])
            clean = ops.cond(
                ops.take(table["guided"], i) > 0.5,
                lambda: self._predict(x, i, condition, table, options, True),
                lambda: self._predict(x, i, alone, table, options, False),
            )
        else:
            clean = self._predict(x, i, condition, table, options, guided)
        return clean if context["known"] is None else insert(context["known"], clean)

    def _predict(self, x, i, condition, table, options, guided):
        batch = x[0].shape[0]
        timestep = ops.take(table["timesteps"], i)
        images = [ops.concatenate([level, level]) for level in x] if guided else x
        timesteps = ops.broadcast_to(timestep, (images[0].shape[0],))
        outputs = backend.in_halves(
            self._denoise, (images, timesteps, condition), self.mdm.jit_compile
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
            x0 = self.process.to_x0(output, x_t, alpha, sigma)
            scale = self.scales[level]
            x0 = threshold(
                self.kind.threshold,
                x0 * scale,
                options["percentile"],
                options["maximum"],
            )
            clean.append(x0 / scale)
        return clean

    def _denoise(self, images, timesteps, condition):
        return self.network.denoise(
            images, timesteps, condition["encoded"], condition["features"]
        )[0]

    def step(self, i, x, history, noises, num_steps, context, table, options):
        """One sampler step from the `i`-th visited noise level to the next.

        Args:
            i: Scalar int32.
            x: List of noisy pictures, largest resolution first.
            history: List of the clean pictures of the step before.
            noises: List of fresh noise, or `None` if the kind is not noisy.
            num_steps: Scalar int32.
            context: What `prepare` returned.
            table: dict of tensors that `plan` returned.
            options: dict of scalars: `guidance_scale`, `guidance_rescale`,
                `percentile`, `maximum`, and `num_resamplings`, an int32.

        Returns:
            A pair: the less noisy pictures, and the clean ones predicted.
        """
        x0 = self.predict(x, i, context, table, options)
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
                lambda: self.predict(guess, i + 1, context, table, options),
                lambda: x0,
            )
        result = []
        for level, (on_x, on_x0, on_history, on_noise, *_) in enumerate(rows):
            value = on_x * x[level] + on_x0 * x0[level]
            if self.kind.two_stage or self.kind.multistep:
                value = value + on_history * other[level]
            if self.kind.noisy:
                value = value + on_noise * noises[level]
            result.append(value)
        return result, x0

    def run_steps(
        self, x, history, start, stop, seeds, context, num_steps, table, options
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
                    i, x, history, noises, num_steps, context, chosen, options
                )

            def fresh():
                return [
                    sample_noise(seeds, noise_stream(level), i + 1, noisy.shape[1:])
                    for level, noisy in zip(self.network.levels, x, strict=True)
                ]

            if context["known"] is None:
                return step(x, history, fresh, table["steps"])
            return resampled_step(
                step,
                x,
                history,
                i,
                num_steps,
                context["known"],
                seeds,
                self.network.levels,
                table,
                options["num_resamplings"],
            )

        return ops.fori_loop(start, stop, body, (x, history))

    def pictures(self, x):
        """Pictures in [-1, 1] from the last noisy pictures."""
        return [
            ops.clip(level * scale, -1.0, 1.0)
            for level, scale in zip(x, self.scales, strict=True)
        ]

    def draw(self, seeds, features, negative, known, num_steps, table, options):
        """The whole run as one function: `prepare`, every step, `pictures`."""
        context, x = self.prepare(seeds, features, negative, known)
        history = [ops.zeros_like(level) for level in x]
        x, _ = self.run_steps(
            x, history, 0, num_steps, seeds, context, num_steps, table, options
        )
        return self.pictures(x)


def _concatenate(first, second):
    return {key: ops.concatenate([first[key], second[key]]) for key in second}


def _second_half(condition, batch):
    """The conditional half of a condition that was encoded for guidance."""
    return keras.tree.map_structure(
        lambda t: None if t is None else t[batch:], condition
    )
