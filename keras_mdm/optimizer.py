"""AdamW with the paper's settings, in few operations for each weight.

An update whose gradients are not finite is skipped, and counted.

The default optimizer of `MDM.compile` and of the stages of `ProgressiveSchedule`.
"""

import keras
from keras import ops

from keras_mdm.backend import inner_optimizer, is_schedule_free, sublayers
from keras_mdm.finite_updates import FiniteUpdates, ScaledFiniteUpdates


@keras.saving.register_keras_serializable("keras_mdm")
class AdamW(FiniteUpdates, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with the paper's settings and a smaller program.

    Keras computes what all weights share, such as the powers of both betas, anew for
    each of them. Networks have hundreds of weights, and compilers for accelerators need
    time for every operation. The numbers are the same.

    If a gradient is NaN or infinite, the update changes no weight and nothing that the
    optimizer keeps, but for `skipped_in_a_row`, and `iterations`, which counts batches.

    Args:
        learning_rate: float or `LearningRateSchedule`. Defaults to 1e-4.
        weight_decay: float. Defaults to 0.
        beta_1: float. Defaults to 0.9.
        beta_2: float. Defaults to 0.99.
        epsilon: float. Defaults to 1e-8.
        global_clipnorm: float or `None`. Gradients whose norm over all weights is
            larger are scaled down to it. Defaults to 2; to `None` with `clipnorm` or
            `clipvalue`.
        **kwargs: Other arguments of `keras.optimizers.AdamW`.

    Attributes:
        skipped_in_a_row: int32 variable. Updates that were skipped since the last one
            that was not.
        gradient_norms: float32 variable of shape `(groups,)`. Norms of the gradients of
            the last update, before clipping; of all in one group unless
            `group_gradients` was called.

    Example:

    ```python
    mdm.compile(keras_mdm.AdamW(1e-4))
    ```

    Reference:
        - [Loshchilov and Hutter, 2019](https://arxiv.org/abs/1711.05101)
        - [Gu et al., 2024](https://arxiv.org/abs/2405.21048), appendix B, for the
          settings
    """

    def __init__(
        self,
        learning_rate=1e-4,
        weight_decay=0.0,
        beta_1=0.9,
        beta_2=0.99,
        epsilon=1e-8,
        global_clipnorm=2.0,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            weight_decay,
            beta_1,
            beta_2,
            epsilon,
            global_clipnorm=global_clipnorm,
            **kwargs,
        )

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        step = ops.cast(self.iterations + 1, "float32")
        powers = [ops.power(beta, step) for beta in (self.beta_1, self.beta_2)]
        learning_rate = ops.cast(learning_rate, "float32")
        rate = learning_rate * ops.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        # Results of one operation: a number would be a constant of the program for each
        # weight.
        finite = ops.cast(self._finite, "float32")
        news = [(1.0 - beta) * finite for beta in (self.beta_1, self.beta_2)]
        numbers = [rate * finite, *news, self.epsilon]
        self._shared = ops.unstack(ops.stack(numbers))
        try:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        finally:
            # Tensors of a trace must not outlive it.
            self._shared = None

    def update_step(self, gradient, variable, learning_rate):
        if self.amsgrad or variable.dtype != "float32":
            self._update_as_keras(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        rate, new_1, new_2, epsilon = self._shared
        gradient = ops.cast(gradient, variable.dtype)
        first.assign(first + (gradient - first) * new_1)
        second.assign(second + (ops.square(gradient) - second) * new_2)
        self.assign_sub(variable, first * rate / (ops.sqrt(second) + epsilon))

    def _update_as_keras(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        kept = [variable, self._momentums[index], self._velocities[index]]
        if self.amsgrad:
            kept.append(self._velocity_hats[index])
        before = [ops.copy(v) for v in kept]
        super().update_step(gradient, variable, learning_rate)
        for one, value in zip(kept, before, strict=True):
            self.assign(one, ops.where(self._finite, ops.copy(one), value))


def get_optimizer(optimizer, network, auto_scale_loss, has_average):
    """The optimizer that `MDM.compile` was given for a network.

    It is in a `LossScaleOptimizer` where layers compute in float16, and knows the level
    of each weight, if it counts the norms of gradients.

    Raises:
        ValueError: if it is none, or weights are kept in float16, or it is a
            schedule-free one and the model has no average.
    """
    check_trainable(network)
    if isinstance(optimizer, str) and optimizer == "auto":
        optimizer = AdamW()
    wanted = "`optimizer` must be 'auto', a Keras optimizer, or the name of one."
    try:
        optimizer = keras.optimizers.get(optimizer)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{wanted} Received: optimizer={optimizer!r}") from error
    if optimizer is None:
        raise ValueError(f"{wanted} Received: optimizer=None")
    if not has_average and is_schedule_free(optimizer):
        raise ValueError(
            "a schedule-free optimizer trains an average of the weights, and this "
            "model has no place for it: build it with an `ema_momentum`, whatever "
            "it is. Received: ema_momentum=None"
        )
    inner = inner_optimizer(optimizer)
    if isinstance(inner, FiniteUpdates):
        numbers = zip(network.weights, network.level_numbers(), strict=True)
        inner.group_gradients({weight.path: number for weight, number in numbers})
    if "mixed_float16" not in _policies(network) or not auto_scale_loss:
        return optimizer
    if inner is not optimizer:
        return optimizer
    if isinstance(optimizer, FiniteUpdates):
        return ScaledFiniteUpdates(optimizer)
    return keras.optimizers.LossScaleOptimizer(optimizer)


def check_trainable(network):
    """Raises a `ValueError` if weights of a network are kept in float16."""
    if "float16" in _policies(network):
        raise ValueError(
            "weights kept in float16 can't be trained: most updates are too small for "
            "it. Make the network with dtype='mixed_bfloat16', or 'mixed_float16' on a "
            "device without bfloat16. Received: dtype='float16'"
        )


def _policies(network):
    return {layer.dtype_policy.name for layer in sublayers(network, recursive=True)}
