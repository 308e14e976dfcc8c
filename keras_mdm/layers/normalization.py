"""Group normalisation folded into one multiply-add. Used by residual and attention."""

import keras
from keras import ops

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
            shape=shape, initializer="ones", autocast=False, name="gamma"
        )
        self.beta = self.add_weight(
            shape=shape, initializer="zeros", autocast=False, name="beta"
        )

    def call(self, x, scale=None, shift=None):
        factor, offset = self._factor_and_offset(x)
        if scale is not None:
            scale = ops.cast(scale, "float32")
            factor = factor * (1.0 + scale)
            offset = offset * (1.0 + scale) + ops.cast(shift, "float32")
        shape = (-1, 1, 1, self.channels)
        factor = ops.reshape(ops.cast(factor, x.dtype), shape)
        offset = ops.reshape(ops.cast(offset, x.dtype), shape)
        return x * factor + offset

    def _factor_and_offset(self, x):
        """Returns two float32 tensors of shape `(batch, channels)`."""
        x = ops.cast(x, "float32")
        mean = ops.mean(x, axis=(1, 2))  # (batch, channels)
        square = ops.mean(ops.square(x), axis=(1, 2))
        grouped = (-1, self.groups, self.channels // self.groups)
        mean = ops.mean(ops.reshape(mean, grouped), axis=2, keepdims=True)
        square = ops.mean(ops.reshape(square, grouped), axis=2, keepdims=True)
        variance = ops.maximum(square - ops.square(mean), 0.0)
        inverse = ops.rsqrt(variance + self.epsilon)  # (batch, groups, 1)
        gamma = ops.reshape(self.gamma, (1, *grouped[1:]))
        factor = inverse * gamma
        offset = ops.reshape(self.beta, (1, *grouped[1:])) - mean * factor
        flat = (-1, self.channels)
        return ops.reshape(factor, flat), ops.reshape(offset, flat)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "groups": self.groups,
            "epsilon": self.epsilon,
        }
