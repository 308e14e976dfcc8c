"""What is known of a sampling run before it is compiled: its kind and its numbers."""

import dataclasses

import numpy as np

from keras_mdm.diffusion.spacing import visited_timesteps


@dataclasses.dataclass(frozen=True)
class RunKind:
    """What is fixed when a sampling run is compiled.

    Attributes:
        level: int or str. Largest level that is drawn.
        guided: bool. Whether a second, unconditional half runs along.
        interval: bool. Whether guidance holds for a part of the steps only.
        rescaled: bool. Whether guidance is rescaled.
        two_stage: bool. Whether each step makes two predictions (Heun).
        multistep: bool. Whether a step uses the clean picture of the step before.
        noisy: bool. Whether steps add noise.
        threshold: str. `"none"`, `"static"` or `"dynamic"`.
    """

    level: int | str
    guided: bool
    interval: bool
    rescaled: bool
    two_stage: bool
    multistep: bool
    noisy: bool
    threshold: str


def plan(process, levels, sampler, settings):
    """Everything about a run that numpy can know: coefficients and noise levels.

    Arrays are padded to the schedule's number of timesteps, so that another number of
    steps has the same shapes.

    Args:
        process: `Process`.
        levels: Sequence of levels that are drawn, largest first.
        sampler: `Sampler`.
        settings: `SamplingSettings`.

    Returns:
        dict of float32 arrays, with N timesteps: `steps` of shape `(levels, 6, N)`, the
        rows of `Coefficients`; `alpha` and `sigma` of shape `(levels, N + 1)`, at the
        visited timesteps; `timesteps` and `guided` of shape `(N + 1,)`: what the
        network is told, and 1 where guidance holds.
    """
    schedule, num_steps = process.schedule, settings.num_steps
    visited = visited_timesteps(schedule, num_steps, settings.spacing)
    padding = schedule.num_timesteps - num_steps
    steps, alphas, sigmas = [], [], []
    for level in levels:
        alpha, sigma = (t[visited] for t in schedule.levels(process.ratios[level]))
        rows = _rows(sampler, sampler.coefficients(alpha, sigma), num_steps)
        steps.append(np.pad(np.stack(rows), ((0, 0), (0, padding))))
        alphas.append(np.pad(alpha, (0, padding)))
        sigmas.append(np.pad(sigma, (0, padding)))
    guided = np.ones(num_steps + 1)
    if settings.guidance_interval is not None:
        low, high = settings.guidance_interval
        time = visited / schedule.num_timesteps
        guided = ((time >= low) & (time <= high)).astype("float64")
    arrays = {
        "steps": np.stack(steps),
        "alpha": np.stack(alphas),
        "sigma": np.stack(sigmas),
        "timesteps": np.pad(visited - 1, (0, padding)),
        "guided": np.pad(guided, (0, padding)),
    }
    return {key: value.astype("float32") for key, value in arrays.items()}


def _rows(sampler, coefficients, num_steps):
    """Arrays of a sampler's coefficients, checked, in the order of `Coefficients`."""
    rows, name = [], type(sampler).__name__
    for key, row in dataclasses.asdict(coefficients).items():
        row = np.zeros(num_steps) if row is None else np.asarray(row)
        if row.shape != (num_steps,) or not np.isfinite(row).all():
            raise ValueError(
                f"the sampler {name} must return `{key}` as {num_steps} finite numbers,"
                f" one a step. Received: shape={row.shape}, {row.ravel()[:5]}"
            )
        rows.append(row)
    if coefficients.on_history is not None and not (
        sampler.multistep or sampler.two_stage
    ):
        raise ValueError(
            f"the sampler {name} returns `on_history`: it must say `multistep = True` "
            "or `two_stage = True`."
        )
    if sampler.two_stage and coefficients.guess_on_x is None:
        raise ValueError(
            f"the sampler {name} has two stages and must return `guess_on_x` and "
            "`guess_on_x0`."
        )
    return rows
