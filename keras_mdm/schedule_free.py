"""Schedule-free AdamW: the average that it trains takes the place of a falling rate."""

import keras
from keras import ops

from keras_mdm.finite_updates import FiniteUpdates


@keras.saving.register_keras_serializable("keras_mdm")
class ScheduleFreeAdamW(FiniteUpdates, keras.optimizers.ScheduleFreeAdamW):
    """`keras.optimizers.ScheduleFreeAdamW` that begins with the weights as they are.

    It trains weights between those that gradients move and their average x. `MDM` makes
    x its moving average, which `evaluate`, `generate` and saved presets use.

    Keras' own begins with the weights as they were when the model was compiled, and the
    first step forgets what was loaded since; on TensorFlow, it takes what gradients
    have moved for what they will move.

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
        super().__init__(
            learning_rate, beta_2=beta_2, global_clipnorm=global_clipnorm, **kwargs
        )

    def add_counters(self):
        super().add_counters()
        # Not the number of batches: the average is of updates that were made.
        self.updates = self.add_variable(
            shape=(), dtype="int32", initializer="zeros", name="updates"
        )

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        self.updates.assign(self.updates + ops.cast(self._finite, "int32"))
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        moved, second = self._momentums[index], self._velocities[index]
        value, share = ops.convert_to_tensor(variable), self.beta_1
        gradient = ops.cast(ops.convert_to_tensor(gradient), value.dtype)
        learning_rate = ops.cast(learning_rate, value.dtype)
        step = ops.cast(self.updates, value.dtype)
        if self.warmup_steps:
            learning_rate *= ops.minimum(step / self.warmup_steps, 1.0)
        spread = second + (ops.square(gradient) - second) * (1.0 - self.beta_2)
        size = ops.sqrt(spread / (1.0 - ops.power(self.beta_2, step))) + self.epsilon
        old = ops.where(step == 1, value, moved.value)
        new = old - learning_rate * gradient / size
        average = (value - (1.0 - share) * old) / share
        average = average + (new - average) / step
        trained = share * average + (1.0 - share) * new
        for one, result in ((moved, new), (second, spread), (variable, trained)):
            self.assign(one, ops.where(self._finite, result, ops.copy(one)))
