"""Group normalisation folded into one multiply-add. Used by residual and attention."""

import math

import keras
from keras import ops

from keras_mdm.layers.initializers import HostConstant
from keras_mdm.layers.primitives import check_divisible


class GroupNormalization(keras.layers.Layer):
    """Group normalisation, optionally modulated, as a single multiply-add.

    Mean and variance of each group, `gamma`, `beta` and an optional modulation
    by `scale` and `shift` are folded into one factor and one offset per sample
    and channel, so that the picture is read twice and written once:
    `((x - mean) / std * gamma + beta) * (1 + scale) + shift`.
    Statistics are computed in float32.

    Args:
        channels: int. Number of channels of the input.
        groups: int. Number of groups of contiguous channels. Defaults to 32.
        epsilon: float. Added to the variance. Defaults to 1e-5.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, channels)`.
        scale: Optional tensor of shape `(batch, channels)`.
        shift: Optional tensor of shape `(batch, channels)`; given with `scale`.

    Returns:
        Tensor of the shape of `x`.

    Reference:
        - [Wu and He, 2018](https://arxiv.org/abs/1803.08494)
    """

    def __init__(self, channels, groups=32, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        check_divisible(channels, groups, "normalisation groups")
        self.channels = channels
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape=None):
        shape = (self.channels,)
        self.gamma = self.add_weight(
            shape=shape, initializer=HostConstant(1.0), autocast=False, name="gamma"
        )
        self.beta = self.add_weight(
            shape=shape, initializer=HostConstant(0.0), autocast=False, name="beta"
        )

    def call(self, x, scale=None, shift=None):
        factor, offset = self._factor_and_offset(x)
        if scale is not None:
            shape = (-1, 1, 1, self.channels)
            scale = 1.0 + ops.reshape(ops.cast(scale, "float32"), shape)
            factor = factor * scale
            offset = offset * scale + ops.reshape(ops.cast(shift, "float32"), shape)
        return x * ops.cast(factor, x.dtype) + ops.cast(offset, x.dtype)

    def _factor_and_offset(self, x):
        """Returns two float32 tensors of shape `(batch, 1, 1, channels)`.

        There are dozens of these layers in a network, so an operation more is felt
        when it is compiled, and by small networks in every step.
        """
        # A single group needs no detour by channels.
        mean, square = moments(x, (1, 2) if self.groups > 1 else (1, 2, 3))
        gamma, beta = self.gamma, self.beta
        grouped = 1 < self.groups < self.channels
        if grouped:
            sizes = (self.groups, self.channels // self.groups)
            mean, square = (
                ops.mean(ops.reshape(h, (-1, 1, *sizes)), axis=3, keepdims=True)
                for h in (mean, square)
            )
            gamma, beta = ops.reshape(gamma, sizes), ops.reshape(beta, sizes)
        variance = ops.maximum(square - ops.square(mean), 0.0)
        factor = ops.rsqrt(variance + self.epsilon) * gamma
        offset = beta - mean * factor
        if grouped:
            shape = (-1, 1, 1, self.channels)
            factor, offset = ops.reshape(factor, shape), ops.reshape(offset, shape)
        return factor, offset

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "groups": self.groups,
            "epsilon": self.epsilon,
        }


def moments(x, axes):
    """Mean and mean square in float32.

    The gradient is written out: derived from the formula, it goes through twice as
    many tensors of the size of `x` where nothing fuses them (TensorFlow without XLA).

    Args:
        x: Tensor whose shape is known along `axes`.
        axes: Tuple of int.

    Returns:
        A pair of float32 tensors that have size 1 along `axes`.
    """
    count = math.prod(x.shape[axis] for axis in axes)

    @ops.custom_gradient
    def both(x):
        wide = ops.cast(x, "float32")
        means = [
            ops.mean(value, axis=axes, keepdims=True)
            for value in (wide, ops.square(wide))
        ]

        def gradient(*args, upstream=None):
            slopes = (args[0] if upstream is None else upstream) / count
            # In the dtype of `x`, to which this is rounded anyway.
            offset, factor = ops.cast(slopes[0], x.dtype), 2.0 * slopes[1]
            return x * ops.cast(factor, x.dtype) + offset

        return ops.stack(means), gradient

    result = both(x)
    return result[0], result[1]
