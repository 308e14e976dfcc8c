"""The defaults of `generate` that belong to a model and are saved with it."""

import dataclasses

import numpy as np

from keras_mdm.diffusion.guidance import THRESHOLDS
from keras_mdm.diffusion.samplers import SAMPLERS
from keras_mdm.diffusion.schedules import SPACINGS

# The run computes in float32, where anything larger is infinite.
_LARGEST = float(np.finfo("float32").max)


@dataclasses.dataclass(frozen=True)
class SamplingDefaults:
    """Defaults of `generate` that belong to a model; see there for each.

    Raises:
        ValueError: if a value is out of range.
    """

    sampler: str = "dpm_solver"
    num_steps: int = 50
    spacing: str = "log_snr"
    eta: float = 0.0
    guidance_scale: float = 2.0
    guidance_rescale: float = 0.0
    guidance_interval: tuple | None = None
    threshold: str = "static"
    dynamic_percentile: float = 0.995
    dynamic_maximum: float = 100.0

    def __post_init__(self):
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"`sampler` must be one of {sorted(SAMPLERS)}. "
                f"Received: sampler={self.sampler!r}"
            )
        if self.spacing not in SPACINGS:
            raise ValueError(
                f"`spacing` must be one of {SPACINGS}. "
                f"Received: spacing={self.spacing!r}"
            )
        if self.threshold not in THRESHOLDS:
            raise ValueError(
                f"`threshold` must be one of {THRESHOLDS}. "
                f"Received: threshold={self.threshold!r}"
            )
        for name, low, high in (
            ("eta", 0.0, 1.0),
            ("guidance_scale", 0.0, _LARGEST),
            ("guidance_rescale", 0.0, 1.0),
            ("dynamic_percentile", 0.0, 1.0),
            ("dynamic_maximum", 1.0, _LARGEST),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(
                    f"`{name}` must be from {low:g} to {high:g}. "
                    f"Received: {name}={value!r}"
                )
        if self.guidance_interval is not None:
            interval = tuple(float(v) for v in self.guidance_interval)
            if len(interval) != 2 or not 0.0 <= interval[0] < interval[1] <= 1.0:
                raise ValueError(
                    "`guidance_interval` must be two rising numbers from 0 (clean) to "
                    f"1 (noise). Received: guidance_interval={self.guidance_interval}"
                )
            object.__setattr__(self, "guidance_interval", interval)

    def get_config(self):
        return dataclasses.asdict(self)

    def override(self, **values):
        """Returns a copy in which values that are not `None` are replaced."""
        given = {key: value for key, value in values.items() if value is not None}
        return dataclasses.replace(self, **given)
