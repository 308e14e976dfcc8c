"""Noise schedules and their shift per resolution. Plain numpy: no network, no backend.

The model reads these tables in training; the samplers make their coefficients of them.
"""

import math

import numpy as np

from keras_mdm.levels import read_level


def cosine(num_timesteps):
    """Cosine schedule whose log-SNR runs from +5 to -5.

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
    """Betas linear from 1e-4 to 0.02 ([Ho et al., 2020](
    https://arxiv.org/abs/2006.11239), section 4).

    Args:
        num_timesteps: int. Number of noise levels N.

    Returns:
        float64 array of shape `(N + 1,)`; see `cosine`.
    """
    betas = np.linspace(1e-4, 0.02, num_timesteps)
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
    "sigmoid": sigmoid,
}


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
        name: str. `"cosine"`, `"squared_cosine"`, `"linear"` or `"sigmoid"`.
            Defaults to `"squared_cosine"`.
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

    def sampling_indices(self, num_steps):
        """Noise levels that a sampler visits, evenly spaced.

        Args:
            num_steps: int. From 1 to `num_timesteps`. With all of them the run
                visits every level; with fewer it begins a little below the top, as
                the official sampler does.

        Returns:
            int array of shape `(num_steps + 1,)`, falling to 0.
        """
        if not 1 <= num_steps <= self.num_timesteps:
            raise ValueError(
                f"`num_steps` must be from 1 to the {self.num_timesteps} timesteps of "
                f"the schedule. Received: num_steps={num_steps}"
            )
        spacing = (self.num_timesteps + 1) / (num_steps + 1)
        indices = np.round(np.arange(num_steps + 1) * spacing).astype("int64")
        return indices[::-1].copy()

    def get_config(self):
        return {
            "name": self.name,
            "num_timesteps": self.num_timesteps,
            "shift_power": self.shift_power,
            "scale_signal": self.scale_signal,
            "count_frames": self.count_frames,
        }
