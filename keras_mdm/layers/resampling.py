"""Halving and doubling of height and width inside a network."""

from keras_mdm.layers.primitives import Conv3x3, EnlargingConv3x3, Layer


class Downsample(Layer):
    """3x3 convolution with stride 2.

    Args:
        channels: int. Number of channels of input and output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, channels)`.

    Returns:
        Tensor of shape `(batch, height // 2, width // 2, channels)`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.conv = Conv3x3(
            channels, channels, stride=2, dtype=self.dtype_policy, name="conv"
        )

    def call(self, x):
        return self.conv(x)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, height // 2, width // 2, self.channels)


class Upsample(Layer):
    """Nearest-neighbor doubling followed by a 3x3 convolution.

    Args:
        channels: int. Number of channels of input and output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, channels)`.

    Returns:
        Tensor of shape `(batch, 2 * height, 2 * width, channels)`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.conv = EnlargingConv3x3(
            channels, channels, dtype=self.dtype_policy, name="conv"
        )

    def call(self, x):
        return self.conv(x)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, 2 * height, 2 * width, self.channels)
