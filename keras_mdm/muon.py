"""Muon: updates of hidden matrices and convolution kernels are made orthogonal."""

import math

import keras
from keras import ops

from keras_mdm.checks import check_number
from keras_mdm.optimizer import AdamW

# Coefficients and number of iterations of Jordan et al., 2024, and of Keras.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
# Root mean square of AdamW's updates, by Liu et al., 2025.
_SIZE = 0.2


@keras.saving.register_keras_serializable("keras_mdm")
class Muon(AdamW):
    """Momentum made orthogonal for kernels, `keras_mdm.AdamW` for all other weights.

    Kernels of two and more dimensions are taken as matrices: that of a convolution has
    the shape `(height * width * in, out)`. `keras.optimizers.Muon` takes those of two
    dimensions alone, which are few of a convolutional network's. Updates are scaled to
    the size of AdamW's, so that learning rate and weight decay are as for AdamW, which
    trains biases, gains, embeddings, and the first and the last layer. Of kernels, half
    of its state is kept.

    Args:
        learning_rate: float or `LearningRateSchedule`. Defaults to 1e-4.
        momentum: float in [0, 1). Of the kernels' gradients, after Nesterov. Defaults
            to 0.95.
        exclude: Sequence of str. Layers whose kernels are trained by AdamW. Defaults to
            `("conv_in", "conv_out")`: those that pictures go into and come out of.
        **kwargs: Other arguments of `keras_mdm.AdamW`, but for `amsgrad`.

    Example:

    ```python
    mdm.compile(keras_mdm.Muon(1e-3))
    ```

    Reference:
        - [Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/)
        - [Liu et al., 2025](https://arxiv.org/abs/2502.16982), for the size of updates
    """

    def __init__(
        self,
        learning_rate=1e-4,
        momentum=0.95,
        exclude=("conv_in", "conv_out"),
        **kwargs,
    ):
        check_number(0, below=1, momentum=momentum)
        if isinstance(exclude, str) or not all(isinstance(n, str) for n in exclude):
            raise ValueError(
                "`exclude` must be a sequence of names of layers. Received: "
                f"exclude={exclude!r}"
            )
        if kwargs.get("amsgrad"):
            raise ValueError("`Muon` knows no `amsgrad`. Received: amsgrad=True")
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.exclude = tuple(exclude)

    def build(self, variables):
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        self._velocities = [
            None
            if self.is_orthogonal(variable)
            else self.add_variable_from_reference(variable, name="velocity")
            for variable in variables
        ]
        self.add_counters()

    def is_orthogonal(self, variable):
        """Whether a variable is a kernel whose updates are made orthogonal."""
        *layers, name = variable.path.split("/")
        return (
            name == "kernel"
            and len(variable.shape) >= 2
            and not any(layer in self.exclude for layer in layers)
        )

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        groups = {}
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            if self._velocities[index] is None:
                new = self._moved(gradient, index)
                gradient = ops.cast(gradient, new.dtype)
                matrix = _to_matrix(gradient + (new - gradient) * self.momentum)
                groups.setdefault(tuple(matrix.shape), []).append((index, matrix))
        directions = [None] * len(self._momentums)
        for shape, members in groups.items():
            # One program for all kernels of a shape: compilers need time for each.
            indices, matrices = zip(*members, strict=True)
            found = orthogonalize(ops.stack(matrices))
            found = found * (_SIZE * math.sqrt(max(shape)))
            for index, direction in zip(indices, ops.unstack(found), strict=True):
                directions[index] = direction
        self._directions = directions
        try:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        finally:
            self._directions = None

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if self._velocities[index] is not None:
            super().update_step(gradient, variable, learning_rate)
            return
        self._momentums[index].assign(self._moved(gradient, index))
        direction = self._directions[index]
        shape = tuple(variable.shape)
        if math.prod(shape[:-1]) > shape[-1]:
            direction = ops.transpose(direction)
        # A gradient that is not finite changes nothing, whatever the momentum.
        rate = learning_rate * ops.cast(self._finite, learning_rate.dtype)
        change = ops.reshape(direction, shape) * ops.cast(rate, direction.dtype)
        self.assign_sub(variable, ops.cast(change, variable.dtype))

    def _moved(self, gradient, index):
        """A momentum with a new gradient in it."""
        momentum = self._momentums[index].value
        gradient = ops.cast(gradient, momentum.dtype)
        share = (1.0 - self.momentum) * ops.cast(self._finite, momentum.dtype)
        return momentum + (gradient - momentum) * share

    def get_config(self):
        config = super().get_config()
        return {**config, "momentum": self.momentum, "exclude": list(self.exclude)}


def orthogonalize(matrices):
    """Matrices `U V^T` of the singular value decompositions `U S V^T`, nearly.

    Singular values become 0.7 to 1.2, not 1, which is as good for training and takes
    five iterations (Newton-Schulz).

    Args:
        matrices: Tensor of shape `(..., rows, columns)`, no more rows than columns.

    Returns:
        Tensor of the same shape.
    """
    squares = ops.sum(ops.square(matrices), axis=(-2, -1), keepdims=True)
    x = matrices / (ops.sqrt(squares) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = ops.matmul(x, ops.swapaxes(x, -2, -1))
        polynomial = _B * gram + _C * ops.matmul(gram, gram)
        x = _A * x + ops.matmul(polynomial, x)
    return x


def _to_matrix(kernel):
    """A kernel as a matrix with no more rows than columns."""
    size, out = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    matrix = ops.reshape(kernel, (size, out))
    return ops.transpose(matrix) if size > out else matrix
