"""How pictures are drawn: the settings of `generate`, whose defaults a model keeps."""

import collections.abc
import dataclasses

import numpy as np

from keras_mdm.checks import between, check_choice, check_number, check_whole
from keras_mdm.diffusion.guidance import THRESHOLDS
from keras_mdm.diffusion.samplers import Sampler, get_sampler
from keras_mdm.diffusion.spacing import SPACINGS

# The run computes in float32, where anything larger is infinite.
_LARGEST = float(np.finfo("float32").max)


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Settings of a sampling run; `generate` explains each.

    A model keeps one as its defaults, which are saved with it.

    Raises:
        ValueError: if a value is out of range.
    """

    sampler: str | Sampler = "dpm_solver"
    num_steps: int = 50
    spacing: str | collections.abc.Callable = "log_snr"
    eta: float = 0.0
    guidance_scale: float = 2.0
    guidance_rescale: float = 0.0
    guidance_interval: tuple | None = None
    threshold: str = "static"
    dynamic_percentile: float = 0.995
    dynamic_maximum: float = 100.0

    @classmethod
    def of_model(cls, given):
        """A model's defaults, from a dict or `None`; what can't be saved is refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(given, dict | None) or not set(given or ()) <= known:
            raise ValueError(
                f"`sampling` must be a dict with keys among {sorted(known)}. "
                f"Received: sampling={given!r}"
            )
        settings = cls(**(given or {}))
        settings.get_config()
        return settings

    def __post_init__(self):
        get_sampler(self.sampler)
        named = isinstance(self.spacing, str) and self.spacing in SPACINGS
        if not named and not callable(self.spacing):
            raise ValueError(
                f"`spacing` must be one of {sorted(SPACINGS)}, or a function of the "
                f"schedule and `num_steps`. Received: spacing={self.spacing!r}"
            )
        check_choice(THRESHOLDS, threshold=self.threshold)
        check_whole(num_steps=self.num_steps)
        for name in ("eta", "guidance_rescale", "dynamic_percentile"):
            check_number(0, 1, **{name: getattr(self, name)})
        check_number(0, _LARGEST, guidance_scale=self.guidance_scale)
        check_number(1, _LARGEST, dynamic_maximum=self.dynamic_maximum)
        if self.guidance_interval is not None:
            interval = self.guidance_interval
            pair = isinstance(interval, tuple | list) and len(interval) == 2
            numbers = pair and all(between(v, 0.0, 1.0) for v in interval)
            if not numbers or not interval[0] < interval[1]:
                raise ValueError(
                    "`guidance_interval` must be two rising numbers from 0 (clean) to "
                    f"1 (noise). Received: guidance_interval={interval!r}"
                )
            interval = tuple(float(v) for v in interval)
            object.__setattr__(self, "guidance_interval", interval)

    def get_config(self):
        """JSON values.

        Raises:
            ValueError: if the sampler or its spacing is no name.
        """
        for name in ("sampler", "spacing"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(
                    f"`{name}` of a model's `sampling` is saved by its name; give an "
                    f"object to `generate`. Received: {name}={value!r}"
                )
        return dataclasses.asdict(self)

    def override(self, **values):
        """Returns a copy in which values that are not `None` are replaced."""
        values = {key: value for key, value in values.items() if value is not None}
        return dataclasses.replace(self, **values)
