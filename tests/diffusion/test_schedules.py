"""Noise schedules against their published formulas."""

import math

import keras
import numpy as np
import pytest

from keras_mdm.diffusion.schedule_tables import TABLES
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.diffusion.spacing import time_shift_spacing, visited_timesteps

N = 1000


def _log_snr(gamma):
    gamma = gamma.astype("float64")
    return np.log(gamma) - np.log1p(-gamma)


def _brute_force(name):
    """Share of signal variance, one level after the other in plain Python."""
    found = [1.0]
    for i in range(N):
        if name == "log_snr_cosine":
            b = math.atan(math.exp(-2.5))
            a = math.atan(math.exp(2.5)) - b
            tan = math.tan(a * i / (N - 1) + b)
            found.append(1.0 / (1.0 + tan**2))
        elif name == "cosine":
            f = [
                math.cos((s / N + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (i, i + 1)
            ]
            found.append(found[-1] * (1.0 - min(1.0 - f[1] / f[0], 0.999)))
        elif name.startswith("linear"):
            found.append(found[-1] * (1.0 - (1e-4 + (0.02 - 1e-4) * i / (N - 1))))
        else:
            ends = [1.0 / (1.0 + math.exp(s)) for s in (3.0, -3.0)]
            here = 1.0 / (1.0 + math.exp(3.0 - 6.0 * (i + 1) / N))
            found.append(max((ends[1] - here) / (ends[1] - ends[0]), 1e-5))
    return np.array(found)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_values(name):
    gamma = NoiseSchedule(name).alphas_cumprod()
    assert gamma.dtype == np.float32 and gamma.shape == (N + 1,)
    np.testing.assert_allclose(gamma, _brute_force(name), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("name", sorted(TABLES))
def test_falls_from_clean_to_noise(name, ratio):
    gamma = NoiseSchedule(name).alphas_cumprod(ratio)
    assert gamma[0] == 1.0
    assert (np.diff(gamma) < 0).all()
    assert 0.0 < gamma[-1] < 0.05 and gamma[1] > 0.95


@pytest.mark.parametrize("num_timesteps", [10, 50, 100, 250, 1000, 4000])
@pytest.mark.parametrize("name", ["cosine", "linear", "sigmoid"])
def test_any_number_of_timesteps_ends_in_noise(name, num_timesteps):
    if name == "linear" and num_timesteps <= 20:
        with pytest.raises(ValueError, match="must be above 20.*num_timesteps=10"):
            NoiseSchedule(name, num_timesteps)
        return
    gamma = NoiseSchedule(name, num_timesteps).alphas_cumprod()
    assert (np.diff(gamma) < 0).all() and gamma[0] == 1.0
    assert np.sqrt(gamma[-1]) < 0.02


def test_linear_follows_its_continuous_form():
    """log(alpha^2) at the time u is -(0.1 u + 9.95 u^2), whatever the number."""
    for num_timesteps in (250, 1000, 4000):
        u = np.arange(1, num_timesteps + 1) / num_timesteps
        found = np.log(NoiseSchedule("linear", num_timesteps).alphas_cumprod()[1:])
        wanted = -(0.1 * u + 9.95 * u**2)
        assert np.abs(found - wanted).max() < 100 / num_timesteps


def test_cosine_ends():
    log_snr = _log_snr(NoiseSchedule("log_snr_cosine").alphas_cumprod()[1:])
    np.testing.assert_allclose(log_snr[[0, -1]], [5.0, -5.0], atol=1e-3)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_shift_moves_log_snr(power):
    schedule = NoiseSchedule("log_snr_cosine", shift_power=power)
    difference = _log_snr(schedule.alphas_cumprod(4)[1:]) - _log_snr(
        schedule.alphas_cumprod(1)[1:]
    )
    np.testing.assert_allclose(difference, -power * math.log(4), atol=1e-3)


def test_signal_scale():
    assert NoiseSchedule(scale_signal=True).signal_scale(4) == 4.0
    assert NoiseSchedule().signal_scale(4) == 1.0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 7, 10, 20, 250, 999, 1000])
@pytest.mark.parametrize("name", sorted(TABLES))
def test_sampling_indices(name, num_steps):
    """From pure noise, evenly in log-SNR, to the cleanest level; each once."""
    schedule = NoiseSchedule(name)
    indices = visited_timesteps(schedule, num_steps)
    assert len(indices) == num_steps + 1
    assert indices[0] == N and indices[-1] == 0
    assert (np.diff(indices) < 0).all()
    if num_steps == N:
        np.testing.assert_array_equal(indices, np.arange(N, -1, -1))
    if num_steps > 1:
        assert indices[-2] == 1
    if 2 < num_steps < 10:
        gaps = np.diff(_log_snr(schedule.alphas_cumprod())[indices[1:-1]])
        assert gaps.max() < 1.25 * gaps.min()


@pytest.mark.parametrize("num_steps", [1, 2, 7, 250, 999, 1000])
def test_official_sampling_indices(num_steps):
    indices = visited_timesteps(NoiseSchedule(), num_steps, "index")
    assert len(indices) == num_steps + 1 and indices[-1] == 0
    gaps = -np.diff(indices)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    # The top is one half spacing or less below that of evenly cut intervals.
    assert N - (N + 1) / (num_steps + 1) <= indices[0] <= N
    if num_steps == N:
        np.testing.assert_array_equal(indices, np.arange(N, -1, -1))


def test_config_round_trip():
    schedule = NoiseSchedule("sigmoid", 50, 0.5, True)
    copy = NoiseSchedule.from_config(schedule.get_config())
    assert copy.get_config() == schedule.get_config()
    np.testing.assert_array_equal(copy.alphas_cumprod(2), schedule.alphas_cumprod(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "quadratic"}, "`schedule` must be one of .*quadratic"),
        ({"num_timesteps": 1}, "`num_timesteps` must be a whole number from 2 to"),
        ({"shift_power": -1}, "`shift_power` must be at least 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        NoiseSchedule(**options)


def test_bad_spacing():
    with pytest.raises(ValueError, match="`spacing` must be one of .*'even'"):
        visited_timesteps(NoiseSchedule(), 10, "even")


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_bad_number_of_steps(num_steps):
    with pytest.raises(ValueError, match="`num_steps` must be from 1 to the 1000"):
        visited_timesteps(NoiseSchedule(), num_steps)


@pytest.mark.parametrize(
    ("options", "sigma", "choice"),
    [
        ({"name": "log_snr_cosine"}, "0.312", "Take NoiseSchedule(name='cosine')"),
        # A picture that is divided by 16 is hidden by as much less noise.
        (
            {"shift_power": 0.0, "scale_signal": True},
            "0.103",
            "Take NoiseSchedule(shift_power=1.0, scale_signal=False)",
        ),
        ({"shift_power": 2.0}, "0.102", "Take NoiseSchedule(shift_power=1.0)"),
        ({"num_timesteps": 50}, "0.165", "Take more `num_timesteps`"),
    ],
)
def test_noise_that_is_left_is_said_with_what_helps(options, sigma, choice):
    said = NoiseSchedule(**options).describe_ends({1024: 16.0, 256: 4.0, 64: 1.0})
    assert f"at level 1024 its least noise has the standard deviation {sigma}" in said
    assert choice in said


def test_clean_ends_are_not_spoken_of():
    assert NoiseSchedule().describe_ends({1024: 16.0, 256: 4.0, 64: 1.0}) == ""


# === Functions, and rectified flow ===


@keras.saving.register_keras_serializable("tests")
def straight_log_snr(u):
    return 10.0 - 20.0 * u


@pytest.mark.parametrize("path", ["variance_preserving", "flow"])
@pytest.mark.parametrize("ratio", [1, 4])
def test_a_function_of_ones_own(path, ratio):
    schedule = NoiseSchedule(straight_log_snr, 100, path=path)
    copy = NoiseSchedule.from_config(schedule.get_config())
    alpha, sigma = copy.levels(ratio)
    assert (alpha[0], sigma[0]) == (1.0, 0.0)
    log_snr = 2.0 * np.log(alpha[1:] / sigma[1:])
    wanted = 10.0 - 20.0 * np.arange(1, 101) / 100 - np.log(ratio)
    np.testing.assert_allclose(log_snr, wanted, atol=1e-9)
    total = alpha + sigma if path == "flow" else alpha**2 + sigma**2
    np.testing.assert_allclose(total, 1.0)


def test_flow_is_a_straight_line():
    alpha, sigma = NoiseSchedule("flow").levels()
    np.testing.assert_allclose(sigma, np.arange(N + 1) / N, atol=1e-12)
    np.testing.assert_allclose(alpha, 1.0 - np.arange(N + 1) / N, atol=1e-12)
    # Shifted, it is the same line in another time, ratio ** (power / 2) for the noise.
    alpha, sigma = NoiseSchedule("flow", shift_power=2.0).levels(3)
    u = np.arange(1, N) / N
    np.testing.assert_allclose(sigma[1:-1], 3 * u / (1 + 2 * u))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_levels_are_the_table(name):
    schedule = NoiseSchedule(name)
    alpha, sigma = schedule.levels(4)
    np.testing.assert_allclose(alpha**2, schedule.alphas_cumprod(4), rtol=1e-6)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0)


@pytest.mark.parametrize(
    "function",
    [lambda u: u, lambda u: 1.0, lambda u: np.full(len(u), np.nan)],
    ids=["rises", "one number", "nan"],
)
def test_a_wrong_function_is_refused(function):
    with pytest.raises(ValueError, match="must return a falling log-SNR"):
        NoiseSchedule(function)


def test_a_function_without_a_name_is_not_saved():
    with pytest.raises(ValueError, match="register_keras_serializable"):
        NoiseSchedule(lambda u: 1.0 - u).get_config()


def test_time_shift():
    found = visited_timesteps(NoiseSchedule("flow"), 10, time_shift_spacing(3.0))
    u = np.arange(10, 0, -1) / 10
    np.testing.assert_array_equal(found[:-1], np.round(3 * u / (1 + 2 * u) * N))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf")])
def test_wrong_time_shift(factor):
    with pytest.raises(ValueError, match="`factor` must be above 0"):
        time_shift_spacing(factor)


@pytest.mark.parametrize("spacing", [lambda s, n: [5, 3, 4, 0], lambda s, n: [3, 0]])
def test_a_spacing_that_does_not_fall_is_refused(spacing):
    with pytest.raises(ValueError, match="must return 4 whole numbers that fall"):
        visited_timesteps(NoiseSchedule(), 3, spacing)
