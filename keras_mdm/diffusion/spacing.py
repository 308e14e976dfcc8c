"""Which timesteps the steps of a sampler visit.

A spacing is a function of a `NoiseSchedule` and the number of steps: an int array of
shape `(num_steps + 1,)`, falling to 0.
"""

import numpy as np

# Log signal-to-noise ratio below which one step is enough.
_NOISIEST = -5.0


def log_snr_spacing(schedule, num_steps):
    """From pure noise, then evenly in the log-SNR to the cleanest timestep.

    It begins at -5, below which all is noise ([Lu et al., 2022](
    https://arxiv.org/abs/2206.00927), 3.3).
    """
    gamma = schedule.alphas_cumprod()[1:].astype("float64")
    with np.errstate(divide="ignore"):
        log_snr = np.log(gamma) - np.log1p(-gamma)
    wanted = np.linspace(max(log_snr[-1], _NOISIEST), log_snr[0], num_steps)
    steps = np.interp(-wanted, -log_snr, np.arange(1, len(gamma) + 1))
    return _each_once(schedule, steps)


def index_spacing(schedule, num_steps):
    """Evenly in the number of the timestep, as the official sampler does.

    With few steps this begins below the top, and its last step leaves much noise to one
    prediction.
    """
    gap = (schedule.num_timesteps + 1) / (num_steps + 1)
    return np.round(np.arange(num_steps + 1) * gap).astype("int64")[::-1].copy()


def time_shift_spacing(factor):
    """Evenly in a time that spends more steps on noise: `f u / (1 + (f - 1) u)`.

    Args:
        factor: float, above 0. 1 is even in the timestep; large pictures need more
            ([Esser et al., 2024](https://arxiv.org/abs/2403.03206), eq. 23).

    Returns:
        A spacing for `generate` or a `Sampler`.

    Raises:
        ValueError: if `factor` is not above 0.
    """
    if not 0.0 < factor < np.inf:
        raise ValueError(f"`factor` must be above 0. Received: factor={factor}")

    def spacing(schedule, num_steps):
        u = np.linspace(1.0, 0.0, num_steps + 1)[:-1]
        steps = factor * u / (1.0 + (factor - 1.0) * u) * schedule.num_timesteps
        return _each_once(schedule, steps)

    return spacing


SPACINGS = {"log_snr": log_snr_spacing, "index": index_spacing}


def visited_timesteps(schedule, num_steps, spacing="log_snr"):
    """Timesteps that a sampler visits.

    Args:
        schedule: `NoiseSchedule`.
        num_steps: int. From 1 to `num_timesteps`. All of them visit every timestep.
        spacing: str, one of `SPACINGS`, or a callable of `schedule` and `num_steps`.

    Returns:
        int array of shape `(num_steps + 1,)`, falling to 0.

    Raises:
        ValueError: if `num_steps` is out of range, or `spacing` is unknown or does not
            fall to 0.
    """
    if spacing not in SPACINGS and not callable(spacing):
        raise ValueError(
            f"`spacing` must be one of {sorted(SPACINGS)}, or a function of the "
            f"schedule and `num_steps`. Received: spacing={spacing!r}"
        )
    top = schedule.num_timesteps
    if not 1 <= num_steps <= top:
        raise ValueError(
            f"`num_steps` must be from 1 to the {top} timesteps of the schedule. "
            f"Received: num_steps={num_steps}"
        )
    try:
        found = np.asarray(SPACINGS.get(spacing, spacing)(schedule, num_steps))
    except TypeError as error:
        raise ValueError(
            "`spacing` must be a function of the schedule and `num_steps`. Received: "
            f"spacing={spacing!r}, which can't be called with them: {error}"
        ) from error
    whole = found.shape == (num_steps + 1,) and found.dtype.kind in "iu"
    if not whole or found[0] > top or found[-1] != 0 or (np.diff(found) >= 0).any():
        raise ValueError(
            f"`spacing` must return {num_steps + 1} whole numbers that fall from at "
            f"most {top} to 0. Received: {found}"
        )
    return found


def _each_once(schedule, steps):
    """Whole timesteps, from the top and falling, each once, with 0 behind them."""
    steps = np.asarray(steps).round().astype("int64")
    steps[0] = schedule.num_timesteps
    places = np.arange(len(steps))
    # As many below a timestep as steps are left.
    steps = np.maximum(steps, len(steps) - places)
    return np.append(np.minimum.accumulate(steps + places) - places, 0)
