"""Noise schedules and their shift per resolution. Plain numpy: no network, no backend.

The model reads these tables in training; the samplers make their coefficients of them.
"""

import math

import numpy as np

from keras_mdm.levels import read_level


def cosine(num_timesteps):
    """Cosine schedule whose log-SNR runs from +5 to -5.

    The cleanest level keeps noise of standard deviation .08, and more where it is
    shifted, which no sampler can take away: it is for models that were trained with it.

    `log_snr(u) = -2 log(tan(a u + b))` with `b = arctan(exp(-2.5))` and
    `a = arctan(exp(2.5)) - b` ([Kingma and Gao, 2023](
    https://arxiv.org/abs/2303.00848)).

    Args:
        num_timesteps: int. Number of noise levels N.

    Returns:
        float64 array of shape `(N + 1,)`: the share of signal variance
        (alpha-bar); entry 0 is 1, a clean picture.
    """
    u = np.linspace(0.0, 1.0, num_timesteps)
    b = math.atan(math.exp(-2.5))
    a = math.atan(math.exp(2.5)) - b
    log_snr = -2.0 * np.log(np.tan(a * u + b))
    return np.concatenate([[1.0], 1.0 / (1.0 + np.exp(-log_snr))])


def squared_cosine(num_timesteps):
    """Squared-cosine schedule with betas capped at 0.999.

    `beta_i = min(1 - f((i + 1) / N) / f(i / N), 0.999)` with
    `f(s) = cos((s + 0.008) / 1.008 * pi / 2) ** 2` ([Nichol and Dhariwal, 2021](
    https://arxiv.org/abs/2102.09672), eq. 17). The released models use it.

    Args:
        num_timesteps: int. Number of noise levels N.

    Returns:
        float64 array of shape `(N + 1,)`; see `cosine`.
    """
    s = np.arange(num_timesteps + 1) / num_timesteps
    f = np.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.minimum(1.0 - f[1:] / f[:-1], 0.999)
    return np.cumprod(np.concatenate([[1.0], 1.0 - betas]))


def linear(num_timesteps):
    """Betas linear from 1e-4 to 0.02 for 1000 levels ([Ho et al., 2020](
    https://arxiv.org/abs/2006.11239), section 4), and `1000 / N` times these for N.

    Args:
        num_timesteps: int. Number of noise levels N, above 20.

    Returns:
        float64 array of shape `(N + 1,)`; see `cosine`.

    Raises:
        ValueError: if a beta would be 1 or more.
    """
    if num_timesteps <= 20:
        raise ValueError(
            "`num_timesteps` of the schedule 'linear' must be above 20: fewer steps "
            f"can't reach pure noise. Received: num_timesteps={num_timesteps}"
        )
    return linear_unscaled(num_timesteps, 1000 / num_timesteps)


def linear_unscaled(num_timesteps, factor=1.0):
    """Betas linear from 1e-4 to 0.02 for any number of levels.

    For models of the official implementation. Below 1000 levels the last one is far
    from pure noise, which sampling begins with.

    Args:
        num_timesteps: int. Number of noise levels N.
        factor: float. All betas are multiplied by it. Defaults to 1.

    Returns:
        float64 array of shape `(N + 1,)`; see `cosine`.
    """
    betas = factor * np.linspace(1e-4, 0.02, num_timesteps)
    return np.cumprod(np.concatenate([[1.0], 1.0 - betas]))


def sigmoid(num_timesteps):
    """Sigmoid schedule from -3 to 3 with temperature 1 ([Chen, 2023](
    https://arxiv.org/abs/2301.10972), algorithm 1), at least 1e-5.

    Args:
        num_timesteps: int. Number of noise levels N.

    Returns:
        float64 array of shape `(N + 1,)`; see `cosine`.
    """

    def squash(x):
        return 1.0 / (1.0 + np.exp(-x))

    u = np.linspace(0.0, 1.0, num_timesteps + 1)
    alphas = (squash(3.0) - squash(6.0 * u - 3.0)) / (squash(3.0) - squash(-3.0))
    return np.maximum(alphas, 1e-5)


SCHEDULES = {
    "cosine": cosine,
    "squared_cosine": squared_cosine,
    "linear": linear,
    "linear_unscaled": linear_unscaled,
    "sigmoid": sigmoid,
}


SPACINGS = ("log_snr", "official")

# Log signal-to-noise ratio below which one step is enough.
_NOISIEST = -5.0
# Standard deviation of the noise, and share of the picture, that may be left at an end.
_CLEAN, _NOISE = 0.05, 0.1


def shift(alphas_cumprod, ratio, power=1.0):
    """Divides the signal-to-noise ratio by `ratio ** power`.

    The same noise hides less of a larger picture, because neighbouring pixels agree
    ([Hoogeboom et al., 2023](https://arxiv.org/abs/2301.11093), 3.1).

    Args:
        alphas_cumprod: float32 array of shape `(N + 1,)`; entry 0 is 1.
        ratio: float. Resolution relative to the smallest of the nest; from 1.
        power: float. 0 leaves every resolution unshifted.

    Returns:
        float32 array of shape `(N + 1,)`.
    """
    if ratio <= 1 or power == 0:
        return alphas_cumprod
    alphas = alphas_cumprod[1:].astype("float32")
    snr = alphas / (np.float32(1.0) - alphas) / np.float32(ratio**power)
    return np.concatenate([alphas_cumprod[:1], snr / (1 + snr)]).astype("float32")


class NoiseSchedule:
    """Noise levels of every resolution of a nest.

    `x_t = sqrt(alphas_cumprod[t]) * x + sqrt(1 - alphas_cumprod[t]) * noise`, for `t`
    from 0 (clean) to `num_timesteps`. The network is told `t - 1`.

    Args:
        name: str. `"squared_cosine"` (default), `"linear"`, `"sigmoid"`, or, for
            models that were trained with them, `"cosine"` (of bounded log-SNR) and
            `"linear_unscaled"`.
        num_timesteps: int. Number of noise levels. Defaults to 1000.
        shift_power: float. Each resolution's signal-to-noise ratio is divided by
            its ratio to the smallest resolution to this power. Defaults to 1.
        count_frames: bool. Whether a clip's frames count like its pixels for that
            ratio: 16 frames are 4 times as large as one, as for the official code,
            which tiles them 4 by 4. Defaults to `True`.
        scale_signal: bool. Whether instead, or besides, pictures of a resolution
            are divided by that ratio ([Chen, 2023](
            https://arxiv.org/abs/2301.10972), 2.2). Defaults to `False`.

    Example:

    ```python
    schedule = NoiseSchedule("cosine")
    schedule.alphas_cumprod(ratio=4)  # 256 pixels around 64
    ```
    """

    def __init__(
        self,
        name="squared_cosine",
        num_timesteps=1000,
        shift_power=1.0,
        scale_signal=False,
        count_frames=True,
    ):
        if name not in SCHEDULES:
            raise ValueError(
                f"`schedule` must be one of {sorted(SCHEDULES)}. "
                f"Received: schedule={name!r}"
            )
        if num_timesteps < 2:
            raise ValueError(
                "`num_timesteps` must be at least 2. "
                f"Received: num_timesteps={num_timesteps}"
            )
        if shift_power < 0:
            raise ValueError(
                f"`shift_power` must be at least 0. Received: {shift_power}"
            )
        self.name = name
        self.num_timesteps = num_timesteps
        self.shift_power = shift_power
        self.scale_signal = scale_signal
        self.count_frames = count_frames
        self._unshifted = SCHEDULES[name](num_timesteps).astype("float32")

    def ratio(self, level, smallest):
        """How much larger a level is than the smallest one of its nest.

        Args:
            level: int or str, see `keras_mdm.levels`.
            smallest: int or str.

        Returns:
            float.
        """
        (frames, resolution), (fewer, lower) = read_level(level), read_level(smallest)
        ratio = resolution / lower
        return ratio * math.sqrt(frames / fewer) if self.count_frames else ratio

    def alphas_cumprod(self, ratio=1):
        """Share of signal variance at each of the `num_timesteps + 1` noise levels.

        Args:
            ratio: float. Resolution relative to the smallest of the nest.

        Returns:
            float32 array of shape `(num_timesteps + 1,)`, from 1 downwards.
        """
        return shift(self._unshifted, ratio, self.shift_power)

    def signal_scale(self, ratio=1):
        """Number by which pictures of a resolution are divided."""
        return float(ratio) if self.scale_signal else 1.0

    def describe_ends(self, ratios):
        """Says where the schedule is neither clean nor noise at its ends.

        Args:
            ratios: dict of level to its ratio to the smallest of the nest.

        Returns:
            A sentence; empty if all is well.
        """
        level = max(ratios, key=lambda level: self._least_noise(ratios[level]))
        sigma = self._least_noise(ratios[level])
        alpha = math.sqrt(max(self.alphas_cumprod(r)[-1] for r in ratios.values()))
        if sigma > _CLEAN:
            return (
                f"the schedule {self.name!r} never gets clean: at level {level!r} its "
                f"least noise has the standard deviation {sigma:.3f}, which stays in "
                f"what is drawn. Take {self._cleaner(ratios[level])}."
            )
        if alpha > _NOISE:
            return (
                f"the schedule {self.name!r} with {self.num_timesteps} timesteps never "
                f"reaches pure noise, which sampling begins with: {alpha:.3f} of the "
                "picture is left. Take 'squared_cosine' or more `num_timesteps`."
            )
        return ""

    def _least_noise(self, ratio):
        """Standard deviation of the least noise beside pictures in [-1, 1]."""
        clean = float(self.alphas_cumprod(ratio)[1])
        return math.sqrt(1.0 - clean) * self.signal_scale(ratio)

    def _cleaner(self, ratio):
        """What gets clean where this schedule does not, in the fewest changes."""
        for change in (
            {"name": "squared_cosine"},
            {"shift_power": 1.0},
            {"shift_power": 1.0, "scale_signal": False},
            {"name": "squared_cosine", "shift_power": 1.0, "scale_signal": False},
        ):
            other = NoiseSchedule(**{**self.get_config(), **change})
            if other._least_noise(ratio) <= _CLEAN:
                options = ", ".join(f"{key}={v!r}" for key, v in change.items())
                return f"NoiseSchedule({options})"
        return "more `num_timesteps`"

    def sampling_indices(self, num_steps, spacing="log_snr"):
        """Noise levels that a sampler visits.

        Args:
            num_steps: int. From 1 to `num_timesteps`. All of them visit every level.
            spacing: str. One of `SPACINGS`:
                - `"log_snr"` (default): from pure noise, then evenly in the log
                  signal-to-noise ratio from -5, below which all is noise, to the
                  cleanest level ([Lu et al., 2022](https://arxiv.org/abs/2206.00927),
                  3.3);
                - `"official"`: evenly in the number of the level, as the official
                  sampler does; with few steps this begins below the top, and its last
                  step leaves much noise to one prediction.

        Returns:
            int array of shape `(num_steps + 1,)`, falling to 0.
        """
        if spacing not in SPACINGS:
            raise ValueError(
                f"`spacing` must be one of {SPACINGS}. Received: spacing={spacing!r}"
            )
        if not 1 <= num_steps <= self.num_timesteps:
            raise ValueError(
                f"`num_steps` must be from 1 to the {self.num_timesteps} timesteps of "
                f"the schedule. Received: num_steps={num_steps}"
            )
        if spacing == "official":
            gap = (self.num_timesteps + 1) / (num_steps + 1)
            indices = np.round(np.arange(num_steps + 1) * gap).astype("int64")
            return indices[::-1].copy()
        gamma = self._unshifted[1:].astype("float64")
        log_snr = np.log(gamma) - np.log1p(-gamma)
        wanted = np.linspace(max(log_snr[-1], _NOISIEST), log_snr[0], num_steps)
        levels = np.interp(-wanted, -log_snr, np.arange(1, self.num_timesteps + 1))
        levels = levels.round().astype("int64")
        levels[0] = self.num_timesteps
        # Each level once: as many below a level as steps are left, and falling.
        places = np.arange(num_steps)
        levels = np.maximum(levels, num_steps - places)
        levels = np.minimum.accumulate(levels + places) - places
        return np.append(levels, 0)

    def get_config(self):
        return {
            "name": self.name,
            "num_timesteps": self.num_timesteps,
            "shift_power": self.shift_power,
            "scale_signal": self.scale_signal,
            "count_frames": self.count_frames,
        }
