"""What optimizers share: updates that are not finite are skipped, and counted."""

import keras
from keras import ops


class FiniteUpdates:
    """The part of an optimizer that skips updates whose gradients are not finite.

    It comes before a Keras optimizer among the bases of a class. Gradients that
    `update_step` is given are finite; where `_finite` is false they are zero, and the
    update must leave every variable as it is.

    Args:
        *args: As of the Keras optimizer.
        global_clipnorm: float or `None`. Gradients whose norm over all weights is
            larger are scaled down to it. To `None` with `clipnorm` or `clipvalue`.
        **kwargs: As of the Keras optimizer.

    It has the attributes `skipped_in_a_row` and `gradient_norms`; see `AdamW`.
    """

    def __init__(self, *args, global_clipnorm=2.0, **kwargs):
        if kwargs.get("clipnorm") or kwargs.get("clipvalue"):
            global_clipnorm = None
        super().__init__(*args, global_clipnorm=global_clipnorm, **kwargs)
        self._groups = {}

    def group_gradients(self, groups):
        """Chooses of which variables `gradient_norms` has a norm; before `build`.

        Args:
            groups: dict from the path of each variable to the number of its group.
        """
        self._groups = dict(groups)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.add_counters()

    def add_counters(self):
        """Makes `skipped_in_a_row` and `gradient_norms`; the last part of `build`."""
        self.skipped_in_a_row = self.add_variable(
            shape=(), dtype="int32", initializer="zeros", name="skipped_in_a_row"
        )
        self.gradient_norms = self.add_variable(
            shape=(1 + max(self._groups.values(), default=0),),
            dtype="float32",
            initializer="zeros",
            name="gradient_norms",
        )

    def _backend_apply_gradients(self, grads, trainable_variables):
        # Of the gradients that `_clip_gradients` is given without their variables.
        self._numbers = [self._groups.get(v.path, 0) for v in trainable_variables]
        super()._backend_apply_gradients(grads, trainable_variables)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        try:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        finally:
            # Tensors of a trace must not outlive it.
            self._finite = None

    def _clip_gradients(self, grads):
        grads = [ops.convert_to_tensor(g) for g in grads]
        squares = [0.0] * self.gradient_norms.shape[0]
        for number, gradient in zip(self._numbers, grads, strict=True):
            squares[number] += ops.sum(ops.square(ops.cast(gradient, "float32")))
        squares = ops.stack([ops.cast(s, "float32") for s in squares])
        norm = ops.sqrt(ops.sum(squares))
        self._finite = ops.isfinite(norm)
        self.gradient_norms.assign(ops.sqrt(squares))
        self.skipped_in_a_row.assign(
            ops.where(self._finite, 0, self.skipped_in_a_row + 1)
        )
        grads = [ops.where(self._finite, g, ops.zeros_like(g)) for g in grads]
        if self.clipnorm or not self.global_clipnorm:
            return super()._clip_gradients(grads)
        # Of a norm that is not finite, the gradients are zero by now.
        scale = ops.minimum(self.global_clipnorm / norm, 1.0)
        scale = ops.where(self._finite, scale, 0.0)
        return [g * ops.cast(scale, g.dtype) for g in grads]

    def _apply_weight_decay(self, variables):
        if not self.weight_decay:
            return
        # As PyTorch does it: `variable - variable * rate` goes twice through memory.
        rate = ops.cast(self.learning_rate, "float32") * self.weight_decay
        kept = ops.where(self._finite, 1.0 - rate, 1.0)
        for variable in variables:
            if self._use_weight_decay(variable):
                variable.assign(variable * ops.cast(kept, variable.dtype))


@keras.saving.register_keras_serializable("keras_mdm")
class ScaledFiniteUpdates(keras.optimizers.LossScaleOptimizer):
    """Scales the loss for an optimizer with `FiniteUpdates`.

    That of Keras keeps gradients that are not finite from the optimizer inside it. Then
    nobody knows of the batch, and a run that is resumed takes one more.
    """

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        finite = self.check_finite(grads)
        _, lowered = self._stateless_handle_non_finite_grads(
            optimizer_variables, trainable_variables
        )
        own = len(self._variables)
        pairs = zip(optimizer_variables[:own], lowered[:own], strict=True)
        values = [ops.where(finite, *pair) for pair in pairs]
        values += optimizer_variables[own:]
        return self._stateless_handle_finite_grads(values, grads, trainable_variables)

    def _common_apply(self, grads, trainable_variables=None):
        ops.cond(
            self.check_finite(grads),
            lambda: None,
            self._stateful_handle_non_finite_grads,
        )
        self._stateful_handle_finite_grads(grads, trainable_variables)
