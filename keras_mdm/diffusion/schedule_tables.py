"""The named noise schedules: tables of the share of signal, functions of time.

Plain numpy. `schedules.NoiseSchedule` is made of one of them. A table is a function of
the number of timesteps N: a float64 array of shape `(N + 1,)`, the share of signal
variance (alpha-bar); entry 0 is 1, a clean picture.
"""

import math

import numpy as np


def cosine(num_timesteps):
    """Cosine schedule with betas capped at 0.999.

    `beta_i = min(1 - f((i + 1) / N) / f(i / N), 0.999)` with
    `f(s) = cos((s + 0.008) / 1.008 * pi / 2) ** 2` ([Nichol and Dhariwal, 2021](
    https://arxiv.org/abs/2102.09672), eq. 17). The released models use it.
    """
    s = np.arange(num_timesteps + 1) / num_timesteps
    f = np.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.minimum(1.0 - f[1:] / f[:-1], 0.999)
    return np.cumprod(np.concatenate([[1.0], 1.0 - betas]))


def log_snr_cosine(num_timesteps):
    """Cosine schedule whose log-SNR runs from +5 to -5.

    The cleanest timestep keeps noise of standard deviation .08, and more where it is
    shifted, which no sampler can take away: it is for models that were trained with it.

    `log_snr(u) = -2 log(tan(a u + b))` with `b = arctan(exp(-2.5))` and
    `a = arctan(exp(2.5)) - b` ([Kingma and Gao, 2023](
    https://arxiv.org/abs/2303.00848)).
    """
    u = np.linspace(0.0, 1.0, num_timesteps)
    b = math.atan(math.exp(-2.5))
    a = math.atan(math.exp(2.5)) - b
    log_snr = -2.0 * np.log(np.tan(a * u + b))
    return np.concatenate([[1.0], 1.0 / (1.0 + np.exp(-log_snr))])


def linear(num_timesteps):
    """Betas linear from 1e-4 to 0.02 for 1000 timesteps ([Ho et al., 2020](
    https://arxiv.org/abs/2006.11239), section 4), and `1000 / N` times these for N.

    Raises:
        ValueError: if N is 20 or less: a beta would be 1 or more.
    """
    if num_timesteps <= 20:
        raise ValueError(
            "`num_timesteps` of the schedule 'linear' must be above 20: fewer steps "
            f"can't reach pure noise. Received: num_timesteps={num_timesteps}"
        )
    return linear_unscaled(num_timesteps, 1000 / num_timesteps)


def linear_unscaled(num_timesteps, factor=1.0):
    """Betas linear from 1e-4 to 0.02, times `factor`, for any number of timesteps.

    For models of the official implementation. Below 1000 timesteps the last one is far
    from pure noise, which sampling begins with.
    """
    betas = factor * np.linspace(1e-4, 0.02, num_timesteps)
    return np.cumprod(np.concatenate([[1.0], 1.0 - betas]))


def sigmoid(num_timesteps):
    """Sigmoid schedule from -3 to 3 with temperature 1 ([Chen, 2023](
    https://arxiv.org/abs/2301.10972), algorithm 1), at least 1e-5.
    """
    u = np.linspace(0.0, 1.0, num_timesteps + 1)
    squash = [logistic(x) for x in (3.0, 6.0 * u - 3.0, -3.0)]
    alphas = (squash[0] - squash[1]) / (squash[0] - squash[2])
    return np.maximum(alphas, 1e-5)


def flow(u):
    """Log-SNR of rectified flow, `x_t = (1 - u) x + u noise` ([Liu et al., 2022](
    https://arxiv.org/abs/2209.03003)).

    Args:
        u: float array in (0, 1], rising from clean to noise.

    Returns:
        float array: `2 log((1 - u) / u)`.
    """
    with np.errstate(divide="ignore"):
        return 2.0 * np.log((1.0 - u) / u)


# By name: tables of the share of signal variance, and functions of continuous time.
TABLES = {
    "cosine": cosine,
    "log_snr_cosine": log_snr_cosine,
    "linear": linear,
    "linear_unscaled": linear_unscaled,
    "sigmoid": sigmoid,
}
SCHEDULES = (*TABLES, "flow")


def shift(alphas_cumprod, ratio, power=1.0):
    """Divides the signal-to-noise ratio by `ratio ** power`.

    The same noise hides less of a larger picture, because neighboring pixels agree
    ([Hoogeboom et al., 2023](https://arxiv.org/abs/2301.11093), 3.1).

    Args:
        alphas_cumprod: float32 array of shape `(N + 1,)`; entry 0 is 1.
        ratio: float. Size of a level relative to the smallest of the nest; from 1.
        power: float. 0 leaves every level unshifted.

    Returns:
        float32 array of shape `(N + 1,)`.
    """
    if ratio <= 1 or power == 0:
        return alphas_cumprod
    alphas = alphas_cumprod[1:].astype("float32")
    snr = alphas / (np.float32(1.0) - alphas) / np.float32(ratio**power)
    return np.concatenate([alphas_cumprod[:1], snr / (1 + snr)]).astype("float32")


def logistic(x):
    """`1 / (1 + exp(-x))` of a number or an array, without a warning."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))
