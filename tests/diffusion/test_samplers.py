"""Samplers on problems whose answer is known.

If all data are one point, the clean picture is known and every sampler must return
it. If they are normal with variance `s ** 2`, the best denoiser is linear, the
probability-flow ODE keeps `x / sqrt(alpha^2 s^2 + sigma^2)`, and the order of
convergence and the variance of ancestral sampling can be measured.
"""

import numpy as np
import pytest

from keras_mdm.diffusion import Coefficients, Process, Sampler
from keras_mdm.diffusion.samplers import SAMPLERS, get_sampler
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.diffusion.spacing import visited_timesteps
from keras_mdm.sampling.plan import plan
from keras_mdm.sampling.settings import SamplingSettings

N = 4096
SCHEDULE = NoiseSchedule("log_snr_cosine", N)


def _gamma(num_steps, top=N, bottom=0):
    """Signal shares at evenly spaced levels; ends clean only if `bottom` is 0."""
    indices = np.linspace(top, bottom, num_steps + 1).round().astype(int)
    return _smooth(indices)


def _smooth(indices):
    """The cosine schedule in float64: float32 would hide the fourth digit."""
    u = (indices - 1) / (N - 1)
    b = np.arctan(np.exp(-2.5))
    a = np.arctan(np.exp(2.5)) - b
    gamma = 1.0 / (1.0 + np.tan(a * u + b) ** 2)
    return np.where(indices == 0, 1.0, gamma)


def _levels(gamma):
    gamma = np.asarray(gamma, "float64")
    return np.sqrt(gamma), np.sqrt(1.0 - gamma)


def _run(sampler, gamma, denoise, x, eta=0.0, rng=None):
    """A sampling run in numpy, as `SamplingRun` does it."""
    return _run_on(sampler, *_levels(gamma), denoise, x, eta, rng)


def _run_on(sampler, alpha, sigma, denoise, x, eta=0.0, rng=None):
    c = get_sampler(sampler, eta).coefficients(alpha, sigma)
    history = np.zeros_like(x)
    for i in range(len(alpha) - 1):
        x0 = denoise(x, alpha[i], sigma[i])
        other = history
        if c.guess_on_x is not None:
            guess = c.guess_on_x[i] * x + c.guess_on_x0[i] * x0
            other = denoise(guess, alpha[i + 1], sigma[i + 1])
        x = c.on_x[i] * x + c.on_x0[i] * x0
        if c.on_history is not None:
            x = x + c.on_history[i] * other
        if rng is not None and c.on_noise is not None:
            x = x + c.on_noise[i] * rng.normal(size=x.shape)
        history = x0
    return x


def _normal(s):
    """The best denoiser of data that are normal with standard deviation `s`."""
    return lambda x, alpha, sigma: alpha * s**2 * x / (alpha**2 * s**2 + sigma**2)


@pytest.mark.parametrize("num_steps", [1, 2, 25])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_single_point(sampler, num_steps):
    point = np.array([0.3, -0.8])
    rng = np.random.default_rng(0)
    gamma = NoiseSchedule("log_snr_cosine").alphas_cumprod(2)
    gamma = gamma[visited_timesteps(NoiseSchedule(), num_steps)]
    x = rng.normal(size=2)
    found = _run(sampler, gamma, lambda *_: point, x, rng=rng)
    np.testing.assert_allclose(found, point, atol=1e-6)


@pytest.mark.parametrize(
    ("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm_solver", 2)]
)
def test_order_of_convergence(sampler, order):
    """Twice the steps: half the error at first order, a quarter at second."""
    s, top, bottom = 0.5, int(0.9 * N), int(0.1 * N)
    ends = _smooth(np.array([top, bottom]))
    scale = np.sqrt(ends * s**2 + 1.0 - ends)
    exact = scale[1] / scale[0]
    errors = []
    for num_steps in (32, 64, 128):
        gamma = _gamma(num_steps, top, bottom)
        found = _run(sampler, gamma, _normal(s), np.ones(1))
        errors.append(abs(found[0] - exact))
    measured = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 0.01
    assert np.all(np.abs(measured - order) < 0.35), measured


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_ancestral_variance(sampler):
    """With many small steps, noise in is data out: the right variance, any start."""
    s = 0.5
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    gamma = _gamma(512)
    found = _run(sampler, gamma, _normal(s), x, eta=float(sampler == "ddim"), rng=rng)
    assert found.std() == pytest.approx(s, rel=0.03)
    # Ancestral sampling forgets where it began; the ODE would keep the order.
    assert abs(np.corrcoef(x, found)[0, 1]) < 0.1
    ode = _run("ddim", gamma, _normal(s), x)
    assert np.corrcoef(x, ode)[0, 1] > 0.999
    assert ode.std() == pytest.approx(s, rel=0.03)


@pytest.mark.parametrize("ratio", [1, 4, 16])
@pytest.mark.parametrize(
    ("sampler", "num_steps"), [("dpm_solver", 10), ("heun", 10), ("ddim", 24)]
)
def test_few_steps_keep_the_spread_of_the_data(sampler, num_steps, ratio):
    """Within a tenth; that of pixels of photographs. First order needs more steps."""
    s, schedule = 0.12, NoiseSchedule()
    gamma = schedule.alphas_cumprod(ratio).astype("float64")
    gamma = gamma[visited_timesteps(schedule, num_steps)]
    found = _run(sampler, gamma, _normal(s), np.ones(1))
    assert found[0] == pytest.approx(s, rel=0.1)


def test_ddpm_is_the_posterior():
    """Bayes' rule: q(x_s | x_t, x0) is proportional to q(x_t | x_s) q(x_s | x0)."""
    gamma = _gamma(10)
    c = get_sampler("ddpm").coefficients(*_levels(gamma))
    for i in range(9):
        forward = gamma[i] / gamma[i + 1]
        precision = forward / (1 - forward) + 1 / (1 - gamma[i + 1])
        on_x = np.sqrt(forward) / (1 - forward) / precision
        on_x0 = np.sqrt(gamma[i + 1]) / (1 - gamma[i + 1]) / precision
        np.testing.assert_allclose(c.on_x[i], on_x)
        np.testing.assert_allclose(c.on_x0[i], on_x0)
        np.testing.assert_allclose(c.on_noise[i], precision**-0.5)
    assert c.on_noise[9] == 0.0


def test_ddim_with_eta_1_is_ddpm():
    gamma = NoiseSchedule("log_snr_cosine").alphas_cumprod().astype("float64")[::-1]
    ddim = get_sampler("ddim", 1.0).coefficients(*_levels(gamma))
    ddpm = get_sampler("ddpm").coefficients(*_levels(gamma))
    for name in ("on_x", "on_x0", "on_noise"):
        np.testing.assert_allclose(
            getattr(ddim, name), getattr(ddpm, name), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_marginals(eta):
    """With the true x0 and epsilon, x_s has the share of noise of its level."""
    gamma = _gamma(20)
    c = get_sampler("ddim", eta).coefficients(*_levels(gamma))
    alpha, sigma = np.sqrt(gamma), np.sqrt(1.0 - gamma)
    on_x0 = c.on_x * alpha[:-1] + c.on_x0
    variance = (c.on_x * sigma[:-1]) ** 2 + c.on_noise**2
    np.testing.assert_allclose(on_x0, alpha[1:])
    np.testing.assert_allclose(variance, sigma[1:] ** 2, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("euler",), "`sampler` must be one of .*'euler'"),
        (("ddim", 1.5), "`eta` must be from 0 to 1"),
        (("ddpm", 0.5), "`eta` belongs to the sampler 'ddim'"),
    ],
)
def test_bad_options(options, words):
    sampler, *eta = options
    with pytest.raises(ValueError, match=words):
        get_sampler(sampler, *eta)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_rectified_flow(sampler):
    """Where `alpha + sigma` is 1, from a top without any picture."""
    schedule = NoiseSchedule("flow")
    visited = visited_timesteps(schedule, 60)
    alpha, sigma = (values[visited] for values in schedule.levels(2))
    assert alpha[0] == 0.0
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    found = _run_on(sampler, alpha, sigma, lambda *_: 0.3, x, rng=rng)
    np.testing.assert_allclose(found, 0.3, atol=1e-9)
    found = _run_on(sampler, alpha, sigma, _normal(0.5), x, rng=rng)
    assert found.std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_flow_steps_are_those_of_the_scaled_path(sampler):
    """Divided by its norm, flow is variance preserving, and so are its steps."""
    schedule = NoiseSchedule("flow")
    visited = visited_timesteps(schedule, 10)
    alpha, sigma = (values[visited] for values in schedule.levels())
    norm = np.hypot(alpha, sigma)
    flow = get_sampler(sampler).coefficients(alpha, sigma)
    scaled = get_sampler(sampler).coefficients(alpha / norm, sigma / norm)
    after, before = norm[1:], norm[:-1]
    np.testing.assert_allclose(flow.on_x, scaled.on_x * after / before, atol=1e-12)
    np.testing.assert_allclose(flow.on_x0, scaled.on_x0 * after, atol=1e-12)
    np.testing.assert_allclose(flow.on_noise, scaled.on_noise * after, atol=1e-12)


class Wrong(Sampler):
    def __init__(self, **rows):
        self.rows = rows

    def coefficients(self, alpha, sigma):
        steps = np.ones(len(alpha) - 1)
        return Coefficients(**{"on_x": steps, "on_x0": steps, **self.rows})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"on_x0": np.ones(3)}, "Wrong must return `on_x0` as 4 finite numbers"),
        ({"on_noise": np.full(4, np.nan)}, "Wrong must return `on_noise`"),
        ({"on_history": np.ones(4)}, "Wrong returns `on_history`: it must say"),
    ],
)
def test_a_sampler_that_returns_nonsense_is_named(rows, words):
    process = Process((4,))
    with pytest.raises(ValueError, match=words):
        plan(process, [4], Wrong(**rows), SamplingSettings(num_steps=4))
