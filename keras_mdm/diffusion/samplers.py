"""Samplers. Each turns noise levels into coefficients of one linear update.

For every step from noise level `t` to a lower one `s`, with
`x_t = alpha * x0 + sigma * epsilon`, all samplers here are of the form

    x_s = on_x * x_t + on_x0 * x0 + on_history * h + on_noise * z

where `x0` is the clean picture predicted at `t`, `z` fresh noise, and `h` either the
`x0` of the step before (multistep) or the one predicted at `s` from a first guess of
`x_s` (two-stage). So a sampler is a function from noise levels to four numbers a step,
computed in float64 outside of the compiled run: another sampler, another number of
steps or another eta needs no new compilation, except between one and two stages.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """Four arrays of shape `(num_steps,)`, and a first guess for two-stage samplers.

    Attributes:
        on_x: Factor of the current noisy picture.
        on_x0: Factor of the predicted clean picture.
        on_history: Factor of the other clean picture (see the module docstring).
        on_noise: Factor of fresh noise of unit variance.
        guess_on_x: Factor of the noisy picture in the first guess, or `None`.
        guess_on_x0: Factor of the clean picture in the first guess, or `None`.
    """

    on_x: np.ndarray
    on_x0: np.ndarray
    on_history: np.ndarray
    on_noise: np.ndarray
    guess_on_x: np.ndarray | None = None
    guess_on_x0: np.ndarray | None = None


def _levels(alphas_cumprod):
    """Shares (square-rooted) of signal and noise before and after each step."""
    gamma = np.asarray(alphas_cumprod, "float64")
    alpha, sigma = np.sqrt(gamma), np.sqrt(1.0 - gamma)
    return alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]


def ddpm(alphas_cumprod, eta=None):
    """Ancestral sampling ([Ho et al., 2020](https://arxiv.org/abs/2006.11239), eq. 7).

    The last step adds no noise.

    Args:
        alphas_cumprod: Array of shape `(num_steps + 1,)`: share of signal variance at
            each visited noise level, rising to 1.
        eta: Unused here; only DDIM has it.

    Returns:
        `Coefficients`.
    """
    alpha, sigma, alpha_s, sigma_s = _levels(alphas_cumprod)
    forward = (alpha / alpha_s) ** 2
    beta = 1.0 - forward
    noise = np.sqrt(beta) * sigma_s / sigma
    return Coefficients(
        on_x=np.sqrt(forward) * sigma_s**2 / sigma**2,
        on_x0=beta * alpha_s / sigma**2,
        on_history=np.zeros_like(alpha),
        on_noise=noise,
    )


def ddim(alphas_cumprod, eta=0.0):
    """DDIM ([Song et al., 2020](https://arxiv.org/abs/2010.02502), eq. 12 and 16).

    Args:
        alphas_cumprod: See `ddpm`.
        eta: float in [0, 1]. 0 is deterministic, 1 as noisy as DDPM.

    Returns:
        `Coefficients`.
    """
    alpha, sigma, alpha_s, sigma_s = _levels(alphas_cumprod)
    beta = 1.0 - (alpha / alpha_s) ** 2
    noise = eta * np.sqrt(beta) * sigma_s / sigma
    on_epsilon = np.sqrt(np.maximum(sigma_s**2 - noise**2, 0.0))
    return Coefficients(
        on_x=on_epsilon / sigma,
        on_x0=alpha_s - on_epsilon * alpha / sigma,
        on_history=np.zeros_like(alpha),
        on_noise=noise,
    )


def dpm_solver(alphas_cumprod, eta=None):
    """DPM-Solver++(2M) ([Lu et al., 2022](https://arxiv.org/abs/2211.01095),
    algorithm 2). The first and the last step are of first order.

    Args:
        alphas_cumprod: See `ddpm`.
        eta: Unused here; only DDIM has it.

    Returns:
        `Coefficients`, whose history is the `x0` of the step before.
    """
    alpha, sigma, alpha_s, sigma_s = _levels(alphas_cumprod)
    total = alpha_s - alpha * sigma_s / sigma  # -alpha_s * (exp(-h) - 1)
    half_log_snr = np.log(alpha / sigma)
    extrapolation = np.zeros_like(alpha)
    h = np.diff(half_log_snr)  # of all steps but the last, which is infinite
    extrapolation[1:-1] = h[1:] / (2.0 * h[:-1])
    return Coefficients(
        on_x=sigma_s / sigma,
        on_x0=total * (1.0 + extrapolation),
        on_history=-total * extrapolation,
        on_noise=np.zeros_like(alpha),
    )


def heun(alphas_cumprod, eta=None):
    """Heun's method on the probability-flow ODE, two predictions a step.

    The mean of the `x0` at both ends of a step, as in [Karras et al., 2022](
    https://arxiv.org/abs/2206.00364), algorithm 1; but the part of the ODE that is
    linear in `x` is solved exactly ([Lu et al., 2022](
    https://arxiv.org/abs/2211.01095), eq. 8), or else a step from pure noise, where
    `sigma / alpha` is in the thousands, would magnify every error. Euler's step is
    DDIM's, and so is the last one.

    Args:
        alphas_cumprod: See `ddpm`.
        eta: Unused here; only DDIM has it.

    Returns:
        `Coefficients`, whose history is the `x0` predicted at the first guess.
    """
    alpha, sigma, alpha_s, sigma_s = _levels(alphas_cumprod)
    euler = ddim(alphas_cumprod)
    on_history = np.where(sigma_s == 0, 0.0, 0.5 * euler.on_x0)
    return Coefficients(
        on_x=euler.on_x,
        on_x0=euler.on_x0 - on_history,
        on_history=on_history,
        on_noise=np.zeros_like(alpha),
        guess_on_x=euler.on_x,
        guess_on_x0=euler.on_x0,
    )


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "heun": heun}


def coefficients(sampler, alphas_cumprod, eta=0.0):
    """Coefficients of a sampler by name.

    Args:
        sampler: str. `"ddpm"`, `"ddim"`, `"dpm_solver"` or `"heun"`.
        alphas_cumprod: Array of shape `(num_steps + 1,)`, rising to 1.
        eta: float in [0, 1]. Noise of DDIM.

    Returns:
        `Coefficients`.

    Raises:
        ValueError: if the sampler is unknown or `eta` is out of range.
    """
    if sampler not in SAMPLERS:
        raise ValueError(
            f"`sampler` must be one of {sorted(SAMPLERS)}. "
            f"Received: sampler={sampler!r}"
        )
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must be from 0 to 1. Received: eta={eta}")
    if eta and sampler != "ddim":
        raise ValueError(
            f"`eta` belongs to the sampler 'ddim'. Received: eta={eta} with "
            f"sampler={sampler!r}"
        )
    return SAMPLERS[sampler](alphas_cumprod, eta)
