"""Samplers. Each turns signal and noise into coefficients of one linear update.

For every step from timestep `t` to a lower one `s`, with
`x_t = alpha * x0 + sigma * epsilon`, all samplers here are of the form

    x_s = on_x * x_t + on_x0 * x0 + on_history * h + on_noise * z

where `x0` is the clean picture predicted at `t`, `z` fresh noise, and `h` either the
`x0` of the step before (`multistep`) or the one predicted at `s` from a first guess of
`x_s` (`two_stage`). So a sampler is a function from alpha and sigma to four numbers a
step, computed in float64 outside of the compiled run: another sampler, another number
of steps or another eta needs no new compilation, except for a history, a second stage
or noise where there was none.

Another sampler is a class like these, given to `generate`.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """Arrays of shape `(num_steps,)`; those that are `None` are zero.

    Attributes:
        on_x: Factor of the current noisy picture.
        on_x0: Factor of the predicted clean picture.
        on_history: Factor of the other clean picture (see the module docstring).
        on_noise: Factor of fresh noise of unit variance.
        guess_on_x: Factor of the noisy picture in the first guess of two stages.
        guess_on_x0: Factor of the clean picture in the first guess of two stages.
    """

    on_x: np.ndarray
    on_x0: np.ndarray
    on_history: np.ndarray | None = None
    on_noise: np.ndarray | None = None
    guess_on_x: np.ndarray | None = None
    guess_on_x0: np.ndarray | None = None


class Sampler:
    """Base of samplers; `generate(sampler=...)` takes one by name or as an object.

    Attributes:
        multistep: bool. Whether `on_history` is the factor of the `x0` before.
        two_stage: bool. Whether it is that of a second prediction in each step.
        spacing: str, callable or `None`. Which timesteps are visited, see
            `keras_mdm.diffusion.spacing`; `None` leaves it to the model and the call.
    """

    multistep = False
    two_stage = False
    spacing = None

    def coefficients(self, alpha, sigma):
        """Coefficients of every step.

        Args:
            alpha: float64 array of shape `(num_steps + 1,)`: factor of the picture at
                each visited timestep, rising to 1.
            sigma: Array like it: factor of the noise, falling to 0.

        Returns:
            `Coefficients`.
        """
        raise NotImplementedError


class DDPM(Sampler):
    """Ancestral sampling ([Ho et al., 2020](https://arxiv.org/abs/2006.11239), eq. 7).

    The last step adds no noise.
    """

    def coefficients(self, alpha, sigma):
        alpha, alpha_s, sigma, sigma_s = *_pairs(alpha), *_pairs(sigma)
        forward = alpha / alpha_s
        added = np.maximum(sigma**2 - (forward * sigma_s) ** 2, 0.0)
        return Coefficients(
            on_x=forward * (sigma_s / sigma) ** 2,
            on_x0=added * alpha_s / sigma**2,
            on_noise=np.sqrt(added) * sigma_s / sigma,
        )


class DDIM(Sampler):
    """DDIM ([Song et al., 2020](https://arxiv.org/abs/2010.02502), eq. 12 and 16).

    Args:
        eta: float in [0, 1]. 0 is deterministic, 1 as noisy as DDPM.
    """

    def __init__(self, eta=0.0):
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"`eta` must be from 0 to 1. Received: eta={eta}")
        self.eta = eta

    def coefficients(self, alpha, sigma):
        noise = self.eta * DDPM().coefficients(alpha, sigma).on_noise
        alpha, alpha_s, sigma, sigma_s = *_pairs(alpha), *_pairs(sigma)
        on_epsilon = np.sqrt(np.maximum(sigma_s**2 - noise**2, 0.0))
        return Coefficients(
            on_x=on_epsilon / sigma,
            on_x0=alpha_s - on_epsilon * alpha / sigma,
            on_noise=noise,
        )


class DPMSolver(Sampler):
    """DPM-Solver++(2M) ([Lu et al., 2022](https://arxiv.org/abs/2211.01095),
    algorithm 2). The first and the last step are of first order.
    """

    multistep = True

    def coefficients(self, alpha, sigma):
        with np.errstate(divide="ignore"):
            half_log_snr = np.log(alpha[:-1] / sigma[:-1])
        alpha, alpha_s, sigma, sigma_s = *_pairs(alpha), *_pairs(sigma)
        total = alpha_s - alpha * sigma_s / sigma  # -alpha_s * (exp(-h) - 1)
        extrapolation = np.zeros_like(alpha)
        h = np.diff(half_log_snr)  # of all steps but the last, which is infinite
        extrapolation[1:-1] = h[1:] / (2.0 * h[:-1])
        return Coefficients(
            on_x=sigma_s / sigma,
            on_x0=total * (1.0 + extrapolation),
            on_history=-total * extrapolation,
        )


class Heun(Sampler):
    """Heun's method on the probability-flow ODE, two predictions a step.

    The mean of the `x0` at both ends of a step, as in [Karras et al., 2022](
    https://arxiv.org/abs/2206.00364), algorithm 1; but the part of the ODE that is
    linear in `x` is solved exactly ([Lu et al., 2022](
    https://arxiv.org/abs/2211.01095), eq. 8), or else a step from pure noise, where
    `sigma / alpha` is in the thousands, would magnify every error. Euler's step is
    DDIM's, and so is the last one.
    """

    two_stage = True

    def coefficients(self, alpha, sigma):
        euler = DDIM().coefficients(alpha, sigma)
        on_history = np.where(sigma[1:] == 0, 0.0, 0.5 * euler.on_x0)
        return Coefficients(
            on_x=euler.on_x,
            on_x0=euler.on_x0 - on_history,
            on_history=on_history,
            guess_on_x=euler.on_x,
            guess_on_x0=euler.on_x0,
        )


SAMPLERS = {"ddpm": DDPM, "ddim": DDIM, "dpm_solver": DPMSolver, "heun": Heun}


def get_sampler(sampler, eta=0.0):
    """A sampler by name, or the object that is given.

    Args:
        sampler: str or `Sampler`.
        eta: float in [0, 1]. Noise of `"ddim"`.

    Returns:
        `Sampler`.

    Raises:
        ValueError: if the sampler is unknown or `eta` does not belong to it.
    """
    if isinstance(sampler, str) and sampler == "ddim":
        return DDIM(eta)
    if eta:
        raise ValueError(
            f"`eta` belongs to the sampler 'ddim'. Received: eta={eta} with "
            f"sampler={sampler!r}"
        )
    if isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(
            f"`sampler` must be one of {sorted(SAMPLERS)}, or a `Sampler`. "
            f"Received: sampler={sampler!r}"
        )
    return SAMPLERS[sampler]()


def _pairs(values):
    """Values before and after each step."""
    return values[:-1], values[1:]
