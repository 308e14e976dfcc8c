"""Group normalization, modulated. Used by the residual block and attention."""

from keras import ops

from keras_mdm.layers.initializers import HostConstant
from keras_mdm.layers.primitives import Layer, check_divisible


class GroupNormalization(Layer):
    """Group normalization, optionally modulated, in float32 and rounded once.

    `((x - mean) / std * gamma + beta) * (1 + scale) + shift`, with the gains and the
    biases folded into one each for each sample and channel.

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
        check_divisible(channels, groups, "normalization groups")
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
        x = ops.cast(x, "float32")
        # The mean first: the difference of E[x^2] and E[x]^2 cancels where the mean is
        # much larger than the standard deviation. Around any constant c the variance is
        # E[(x - c)^2] - (E[x] - c)^2: here 0 is taken off, but its second derivative is
        # not 0, and no sum over the picture flows back through the constant.
        mean = self._over_groups(x)
        constant = ops.stop_gradient(mean)
        variance = self._over_groups(ops.square(x - constant))
        variance = variance - ops.square(mean - constant)
        gamma, beta = (ops.cast(v, "float32") for v in (self.gamma, self.beta))
        # One factor and one offset a channel: then the sums of the gradient are few.
        factor = ops.rsqrt(variance + self.epsilon) * gamma
        offset = beta - mean * factor
        if scale is not None:
            shape = (-1, 1, 1, self.channels)
            scale = 1.0 + ops.reshape(ops.cast(scale, "float32"), shape)
            factor = factor * scale
            offset = offset * scale + ops.reshape(ops.cast(shift, "float32"), shape)
        return ops.cast(x * factor + offset, self.compute_dtype)

    def _over_groups(self, x):
        """Mean over the pixels and the group of each channel.

        Over the pixels first: a picture that was split into groups would lie in memory
        in another order on a TPU.

        Args:
            x: float32 tensor of shape `(batch, height, width, channels)`.

        Returns:
            float32 tensor of shape `(batch, 1, 1, channels)`.
        """
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        size = self.channels // self.groups
        if size == 1:
            return mean
        grouped = ops.reshape(mean, (-1, 1, self.groups, size))
        mean = ops.mean(grouped, axis=3, keepdims=True)
        mean = ops.broadcast_to(mean, ops.shape(grouped))
        return ops.reshape(mean, (-1, 1, 1, self.channels))
