"""`MDM.generate`: arguments in, pictures out. The run itself is in `run`."""

import dataclasses
from functools import partial

import keras
import numpy as np
from keras import ops

from keras_mdm import backend
from keras_mdm.checks import check_choice, check_flags, check_whole
from keras_mdm.diffusion.samplers import get_sampler
from keras_mdm.sampling.known_frames import read_known_frames
from keras_mdm.sampling.plan import RunKind, plan
from keras_mdm.sampling.requests import (
    RequestedCondition,
    read_conditions,
    sample_seeds,
)
from keras_mdm.sampling.run import SamplingRun


def generate(
    self,
    prompts=None,
    num_samples=1,
    *,
    labels=None,
    features=None,
    negative_prompt=None,
    negative_labels=None,
    negative_features=None,
    known_frames=None,
    num_resamplings=24,
    resolution=None,
    return_pyramid=False,
    seed=None,
    batch_size=None,
    sampler=None,
    num_steps=None,
    spacing=None,
    eta=None,
    guidance_scale=None,
    guidance_rescale=None,
    guidance_interval=None,
    threshold=None,
    dynamic_percentile=None,
    dynamic_maximum=None,
    use_ema=True,
    output="uint8",
    progress=False,
    callback=None,
):
    """Draws pictures. Arguments left at `None` take the model's `sampling` defaults.

    The whole run is one compiled function; a second call of the same shapes compiles
    nothing, whatever its seed, scale, number of steps or weights.

    Args:
        prompts: str or sequence of str. What to draw, for a model on text. An empty
            one is the null condition; of one that is too long, a warning shows what
            was cut off.
        num_samples: int. Pictures for each prompt or label; of an unconditional
            model, pictures in all.
        labels: int or sequence of int. Classes to draw, for a class-conditional model.
        features: Optional dict of arrays: other features of the condition, such as
            `text_embeddings` and `text_mask`, and micro-conditioning values (one
            number, or one for each prompt or label).
        negative_prompt: Optional str or sequence of str, one for each prompt: what
            guidance leads away from. Defaults to the null condition.
        negative_labels: Optional int or sequence of int: the same for labels.
        negative_features: Optional dict of arrays: the same for other features.
        known_frames: Optional dict of frame number to picture, for a model of clips:
            frames that are known and kept, so that the first ones are continued, or
            those between first and last are filled in. A picture is an array of shape
            `(height, width, channels)`, or has the clips' axis in front; uint8 in
            [0, 255] or float in [-1, 1].
        num_resamplings: int, from 1 to 1000. How often each step is taken where there
            are known frames, which the others fit better so, at as many times the
            cost; see `keras_mdm.sampling.known_frames`. A multistep sampler is then
            replaced by `"ddim"`, since its history would be that of other noise.
        resolution: int, or str for clips. Largest resolution drawn; networks around
            it are not run. Defaults to `mdm.resolution`.
        return_pyramid: bool. Whether every resolution is returned.
        seed: int or sequence of int. Picture i has the seed `seed + i`; it is the same
            picture whatever the batch. Defaults to `None`: a new one each time.
        batch_size: int. Pictures drawn at once, rounded up to a multiple of the
            devices of `keras.distribution`. Defaults to all.
        sampler: str or `keras_mdm.diffusion.Sampler`. `"ddim"`, `"ddpm"`,
            `"dpm_solver"` or `"heun"` (two predictions a step), or one of your own.
        num_steps: int. From 1 to the number of timesteps.
        spacing: str or callable. Which timesteps are visited: `"log_snr"`, `"index"` or
            a function; see `keras_mdm.diffusion.spacing`.
        eta: float in [0, 1]. Noise of `"ddim"`.
        guidance_scale: float. 1 for no guidance.
        guidance_rescale: float in [0, 1]. How far the standard deviation of guided
            predictions is brought back to that of the conditional ones.
        guidance_interval: Pair of float in [0, 1]. Noise levels (0 clean, 1 noise) at
            which guidance holds; elsewhere only the conditional half is run.
        threshold: str. `"none"`, `"static"` or `"dynamic"`; see
            `keras_mdm.diffusion.guidance.threshold`.
        dynamic_percentile: float in [0, 1].
        dynamic_maximum: float, at least 1.
        use_ema: bool. Whether the averaged weights are used. Defaults to `True`.
        output: str. `"uint8"` in [0, 255] or `"float"` in [-1, 1].
        progress: bool. Whether a progress bar over the steps is shown.
        callback: Optional callable `(step, num_steps, pyramid)`, called after each
            step with a dict of resolution to clean pictures predicted so far, float in
            [-1, 1].

    Returns:
        Array of shape `(pictures, resolution, resolution, channels)`, for clips
        `(clips, frames, resolution, resolution, channels)`; with `return_pyramid` a
        dict of resolution to such arrays, largest first.

    Example:

    ```python
    mdm.generate("a red circle above a small blue square", num_samples=4)
    mdm.generate(labels=[207, 281], num_steps=50, guidance_scale=2.0, seed=0)
    mdm.generate(labels=3, num_samples=4, resolution=16, return_pyramid=True)
    mdm.generate("a red circle moves up", known_frames={0: first, 15: last})  # clips
    ```
    """
    settings = self.sampling.override(
        sampler=sampler,
        num_steps=num_steps,
        spacing=spacing,
        eta=eta,
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        guidance_interval=guidance_interval,
        threshold=threshold,
        dynamic_percentile=dynamic_percentile,
        dynamic_maximum=dynamic_maximum,
    )
    check_choice(("uint8", "float"), output=output)
    check_flags(return_pyramid=return_pyramid, progress=progress)
    check_whole(num_samples=num_samples)
    check_whole(high=1000, num_resamplings=num_resamplings)
    if batch_size is not None:
        check_whole(batch_size=batch_size)
    network = self.network.at_level(
        self.resolution if resolution is None else resolution
    )
    guided = network.conditioner is not None and settings.guidance_scale != 1.0
    condition, negative, total = read_conditions(
        RequestedCondition(prompts, labels, features),
        RequestedCondition(
            negative_prompt, negative_labels, negative_features, negative=True
        ),
        network.conditioner,
        num_samples,
        guided,
    )
    known = read_known_frames(
        known_frames, network.level, network.image_channels, total
    )
    if settings.eta and settings.sampler != "ddim":
        # The default eta of a model is meant for DDIM.
        settings = dataclasses.replace(settings, eta=eta or 0.0)
    sampler = get_sampler(settings.sampler, settings.eta)
    if spacing is None and (sampler.spacing or known is not None):
        # Evenly in the index, few steps come too late to agree with known frames.
        own = sampler.spacing or "log_snr"
        settings = dataclasses.replace(settings, spacing=own)
    if known is not None and sampler.multistep:
        sampler = get_sampler("ddim")
    table = plan(self.process, network.levels, sampler, settings)
    if known is not None:
        repeated = plan(self.process, network.levels, get_sampler("ddpm"), settings)
        table["repeats"] = repeated["steps"]
    kind = RunKind(
        level=network.level,
        guided=guided,
        interval=guided and settings.guidance_interval is not None,
        rescaled=guided and settings.guidance_rescale > 0,
        two_stage=sampler.two_stage,
        multistep=sampler.multistep,
        noisy=known is not None or bool(table["steps"][:, 3].any()),
        threshold=settings.threshold,
    )
    options = {
        "guidance_scale": settings.guidance_scale,
        "guidance_rescale": settings.guidance_rescale,
        "percentile": settings.dynamic_percentile,
        "maximum": settings.dynamic_maximum,
    }
    options = {k: ops.convert_to_tensor(v, "float32") for k, v in options.items()}
    options["num_resamplings"] = ops.convert_to_tensor(num_resamplings, "int32")
    inputs = {
        "seeds": sample_seeds(seed, total),
        "features": condition,
        "negative": negative,
        "known": known,
    }
    fixed = {
        "num_steps": ops.convert_to_tensor(settings.num_steps, "int32"),
        "table": {key: ops.convert_to_tensor(value) for key, value in table.items()},
        "options": options,
    }
    functions = _functions(self, kind, use_ema)
    # Several devices share each batch.
    several = backend.rows_per_call()
    size = -(-min(batch_size or total, total) // several) * several
    bar = None
    if progress:
        steps = -(-total // size) * settings.num_steps
        bar = keras.utils.Progbar(steps, unit_name="step")
    batches = []
    for start in range(0, total, size):
        # The last batch is filled up, so that it has the shape of the others.
        rows = np.minimum(np.arange(start, start + size), total - 1)
        batch, kept = _pick(inputs, rows), min(size, total - start)
        if bar is None and callback is None:
            pictures = functions["draw"](**batch, **fixed)
        else:
            pictures = _draw_step_by_step(
                functions, network.levels, batch, fixed, settings, bar, callback, kept
            )
        batches.append([backend.to_numpy(p)[:kept] for p in pictures])
    levels = [np.concatenate(level) for level in zip(*batches, strict=True)]
    if output == "uint8":
        levels = [to_uint8(level) for level in levels]
    if return_pyramid:
        return dict(zip(network.levels, levels, strict=True))
    return levels[0]


def to_uint8(pictures):
    """Pictures from float in [-1, 1] to uint8 in [0, 255]."""
    return np.round((np.clip(pictures, -1.0, 1.0) + 1.0) * 127.5).astype("uint8")


def _pick(arrays, rows):
    """Some rows of every array in a structure, as tensors."""
    return keras.tree.map_structure(
        lambda array: None if array is None else backend.divide_rows(array[rows]),
        arrays,
    )


def _functions(mdm, kind, use_ema):
    """The compiled functions of a kind of run, with the weights they are to use.

    They are made at the first use of the kind.
    """
    variables = values = mdm.network.variables
    if use_ema and mdm.ema is not None:
        mdm.ema.follow()
        values = mdm.ema.in_place_of(variables)
    functions = mdm.sampling_functions.get(kind)
    if functions is None:
        run = SamplingRun(mdm, kind)
        functions = mdm.sampling_functions[kind] = {
            name: backend.compile_with_weights(
                getattr(run, name), variables, mdm.jit_compile
            )
            for name in ("draw", "prepare", "run_steps", "pictures")
        }
    current = [ops.convert_to_tensor(variable) for variable in values]
    return {name: partial(function, current) for name, function in functions.items()}


def _draw_step_by_step(functions, levels, batch, fixed, settings, bar, callback, kept):
    """The run step by step, for a progress bar or a callback of the `kept` pictures."""
    context, x = functions["prepare"](**batch)
    history = [ops.zeros_like(level) for level in x]
    for i in range(settings.num_steps):
        start, stop = (ops.convert_to_tensor(k, "int32") for k in (i, i + 1))
        x, history = functions["run_steps"](
            x, history, start, stop, batch["seeds"], context, **fixed
        )
        if bar is not None:
            bar.add(1)
        if callback is not None:
            clean = [backend.to_numpy(level)[:kept] for level in history]
            callback(i, settings.num_steps, dict(zip(levels, clean, strict=True)))
    return functions["pictures"](x)
