"""Where training draws its timesteps, besides evenly. Given to `Process` and `MDM`."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mdm")
class LogitNormal:
    """Timesteps whose logit is normal: mostly in the middle, few at the ends.

    Args:
        mean: float. Of the logit of the share of time, 0 clean and 1 noise; above 0
            for more noise. Defaults to 0. JiT has 0.8.
        std: float, above 0. Defaults to 1. JiT has 0.8.

    Reference:
        - [Esser et al., 2024](https://arxiv.org/abs/2403.03206), 3.1
        - [Li and He, 2025](https://arxiv.org/abs/2511.13720), for JiT
    """

    def __init__(self, mean=0.0, std=1.0):
        if not (math.isfinite(mean) and 0.0 < std < math.inf):
            raise ValueError(
                "`mean` must be finite and `std` above 0. "
                f"Received: mean={mean}, std={std}"
            )
        self.mean, self.std = mean, std

    def __call__(self, uniform):
        """Turns uniform numbers in (0, 1) into times in (0, 1)."""
        normal = math.sqrt(2.0) * ops.erfinv(2.0 * uniform - 1.0)
        return ops.sigmoid(self.mean + self.std * normal)

    def get_config(self):
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
