"""Noise schedules and their shift per level, as tables of numpy.

`Process` reads these tables in training, samplers make their coefficients of them.
"""

import math

import numpy as np

from keras_mdm.backend import deserialize, serialize
from keras_mdm.checks import check_choice, check_flags, check_number, check_whole
from keras_mdm.diffusion.schedule_tables import (
    SCHEDULES,
    TABLES,
    flow,
    logistic,
    shift,
)
from keras_mdm.levels import read_level

PATHS = ("variance_preserving", "flow")

# Standard deviation of the noise, and share of the picture, that may be left at an end.
_CLEAN, _NOISE = 0.05, 0.1

_MOST_TIMESTEPS = 10**6


class NoiseSchedule:
    """Signal and noise of every level of a nest at each timestep.

    `x_t = alpha[t] * x + sigma[t] * noise`, for `t` from 0 (clean) to
    `num_timesteps`. The network is told `t - 1`.

    Args:
        name: str or callable. `"cosine"` (default), `"linear"`, `"sigmoid"`, `"flow"`
            (rectified flow), or, for models that were trained with them,
            `"log_snr_cosine"` (of bounded log-SNR) and `"linear_unscaled"`. A callable
            returns the log-SNR at times in (0, 1], a float64 array that rises from
            clean to noise; it must fall. It is saved if it is registered with
            `keras.saving.register_keras_serializable`.
        num_timesteps: int. Number of timesteps. Defaults to 1000.
        shift_power: float. Each level's signal-to-noise ratio is divided by its ratio
            to the smallest level to this power. Defaults to 1.
        scale_signal: bool. Whether instead, or besides, pictures of a level are divided
            by that ratio ([Chen, 2023](https://arxiv.org/abs/2301.10972), 2.2).
            Defaults to `False`.
        count_frames: bool. Whether a clip's frames count like its pixels for that
            ratio: 16 frames are 4 times as large as one, as for the official code,
            which tiles them 4 by 4. Defaults to `True`.
        path: str or `None`. `"variance_preserving"` (`alpha^2 + sigma^2 = 1`) or
            `"flow"` (`alpha + sigma = 1`). Defaults to `None`: that of the name.

    Example:

    ```python
    alpha, sigma = NoiseSchedule("cosine").levels(ratio=4)  # 256 pixels around 64
    schedule = NoiseSchedule(lambda u: 10 - 20 * u)  # a lambda can't be saved
    ```
    """

    def __init__(
        self,
        name="cosine",
        num_timesteps=1000,
        shift_power=1.0,
        scale_signal=False,
        count_frames=True,
        path=None,
    ):
        check_flags(scale_signal=scale_signal, count_frames=count_frames)
        named = isinstance(name, str) and name in SCHEDULES
        if not named and not callable(name):
            raise ValueError(
                f"`schedule` must be one of {sorted(SCHEDULES)}, or a function that "
                f"returns the log-SNR. Received: schedule={name!r}{_hint(name)}"
            )
        check_whole(2, _MOST_TIMESTEPS, num_timesteps=num_timesteps)
        check_number(0, shift_power=shift_power)
        if path is not None:
            check_choice(PATHS, path=path)
        self.name = name
        self.num_timesteps = num_timesteps
        self.shift_power = shift_power
        self.scale_signal = scale_signal
        self.count_frames = count_frames
        self.path = path or ("flow" if name == "flow" else PATHS[0])
        if name in TABLES:
            self._table = TABLES[name](num_timesteps).astype("float32")
        else:
            self._table, self._log_snr = None, _log_snr_of(name, num_timesteps)

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
        """Share of signal in the variance of `x_t`: `snr / (1 + snr)`.

        Args:
            ratio: float. Size relative to the smallest level of the nest.

        Returns:
            Array of shape `(num_timesteps + 1,)`, from 1 downwards; float32 of a named
            table, as the official code has it.
        """
        if self._table is not None:
            return shift(self._table, ratio, self.shift_power)
        return np.concatenate([[1.0], logistic(self._shifted(ratio))])

    def levels(self, ratio=1):
        """Factors of picture and noise at each timestep.

        Args:
            ratio: float. Size relative to the smallest level of the nest.

        Returns:
            A pair of float64 arrays of shape `(num_timesteps + 1,)`: alpha from 1
            downwards, sigma from 0 upwards.
        """
        signal = self.alphas_cumprod(ratio).astype("float64")
        if self._table is not None:
            noise = 1.0 - signal
        else:  # Near 1 the share of signal has not the digits that sigma needs.
            noise = np.concatenate([[0.0], logistic(-self._shifted(ratio))])
        alpha, sigma = np.sqrt(signal), np.sqrt(noise)
        total = alpha + sigma if self.path == "flow" else 1.0
        return alpha / total, sigma / total

    def _shifted(self, ratio):
        return self._log_snr - self.shift_power * math.log(max(ratio, 1.0))

    def signal_scale(self, ratio=1):
        """Number by which pictures of a level are divided."""
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
        alpha = max(self.levels(r)[0][-1] for r in ratios.values())
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
                "picture is left. Take 'cosine' or more `num_timesteps`."
            )
        return ""

    def _least_noise(self, ratio):
        """Standard deviation of the least noise beside pictures in [-1, 1]."""
        alpha, sigma = (table[1] for table in self.levels(ratio))
        return sigma / math.hypot(alpha, sigma) * self.signal_scale(ratio)

    def _cleaner(self, ratio):
        """What gets clean where this schedule does not, in the fewest changes."""
        for change in (
            {"name": "cosine"},
            {"shift_power": 1.0},
            {"shift_power": 1.0, "scale_signal": False},
            {"name": "cosine", "shift_power": 1.0, "scale_signal": False},
        ):
            options = {**self._options(), **change}
            if "name" in change:
                options["path"] = None
            if NoiseSchedule(**options)._least_noise(ratio) <= _CLEAN:
                change = ", ".join(f"{key}={v!r}" for key, v in change.items())
                return f"NoiseSchedule({change})"
        return "more `num_timesteps`"

    def _options(self):
        return {
            "name": self.name,
            "num_timesteps": self.num_timesteps,
            "shift_power": self.shift_power,
            "scale_signal": self.scale_signal,
            "count_frames": self.count_frames,
            "path": self.path,
        }

    def get_config(self):
        """Arguments of the constructor as JSON values."""
        name = serialize(self.name) if callable(self.name) else self.name
        return {**self._options(), "name": name}

    @classmethod
    def from_config(cls, config):
        """A schedule from what `get_config` returned."""
        config = dict(config)
        if isinstance(config["name"], dict):
            config["name"] = deserialize(config["name"])
        return cls(**config)


def _log_snr_of(name, num_timesteps):
    """Log-SNR at timesteps 1 to N, of `"flow"` or of a function of one's own."""
    times = np.arange(1, num_timesteps + 1) / num_timesteps
    try:
        log_snr = np.asarray((flow if name == "flow" else name)(times), "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the noise schedule's function can't be called with {num_timesteps} times "
            f"in an array, or returns no numbers: {error}"
        ) from error
    good = log_snr.shape == times.shape and not np.isnan(log_snr).any()
    if not good or not (log_snr[1:] < log_snr[:-1]).all() or np.isinf(log_snr[0]):
        raise ValueError(
            "the noise schedule's function must return a falling log-SNR, one number "
            f"for each of {num_timesteps} times. Received: shape={log_snr.shape}, "
            f"beginning with {log_snr.ravel()[:3]}"
        )
    return log_snr


def _hint(name):
    old = isinstance(name, str) and name == "squared_cosine"
    return ", which is called 'cosine' now" if old else ""
