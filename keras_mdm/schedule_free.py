"""Schedule-free AdamW: the average that it trains takes the place of a falling rate."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mdm")
class ScheduleFreeAdamW(keras.optimizers.ScheduleFreeAdamW):
    """`keras.optimizers.ScheduleFreeAdamW` that begins with the weights as they are.

    It trains weights between those that gradients move and their average x. `MDM` makes
    x its moving average, which `evaluate`, `generate` and saved presets use.

    Keras' own begins with the weights as they were when the model was compiled, and the
    first step forgets what was loaded since.

    Args:
        learning_rate: float or `LearningRateSchedule`; it may rise at first, and need
            not fall. Defaults to 1e-4.
        beta_2: float. Defaults to 0.99.
        global_clipnorm: float or `None`. See `keras_mdm.AdamW`. Defaults to 2.
        **kwargs: Other arguments of `keras.optimizers.ScheduleFreeAdamW`.

    Example:

    ```python
    mdm.compile(keras_mdm.ScheduleFreeAdamW(1e-3))
    ```

    Reference:
        - [Defazio et al., 2024](https://arxiv.org/abs/2405.15682)
    """

    def __init__(self, learning_rate=1e-4, beta_2=0.99, global_clipnorm=2.0, **kwargs):
        if kwargs.get("clipnorm") or kwargs.get("clipvalue"):
            global_clipnorm = None
        super().__init__(
            learning_rate, beta_2=beta_2, global_clipnorm=global_clipnorm, **kwargs
        )

    def update_step(self, gradient, variable, learning_rate):
        moved = self._momentums[self._get_variable_index(variable)]
        moved.assign(ops.where(self.iterations == 0, variable.value, moved.value))
        super().update_step(gradient, variable, learning_rate)
