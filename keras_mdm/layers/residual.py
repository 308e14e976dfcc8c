"""The time-modulated residual block: the unit every path is made of."""

import keras
from keras import ops

from keras_mdm.layers.normalization import GroupNormalization
from keras_mdm.layers.primitives import Conv3x3, Dense, Layer


class ResidualBlock(Layer):
    """Two 3x3 convolutions, the second modulated by the time embedding.

    `h = conv_1(ops.silu(norm_1(x)))`, then
    `x + conv_2(dropout(ops.silu(norm_2(h) * (1 + scale) + shift)))`, where `scale`
    and `shift` are a projection of the embedding. The second convolution starts
    at zero: a new block is the identity (or its projection, where widths differ).

    Args:
        inputs: int. Number of input channels.
        channels: int. Number of output channels.
        embedding_size: int. Size of the embedding.
        groups: int. Groups of both normalizations. Defaults to 32.
        dropout: float. Share of features dropped in training. Defaults to 0.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, inputs)`.
        embedding: Tensor of shape `(batch, embedding_size)`, after its SiLU, which all
            blocks share.

    Returns:
        Tensor of shape `(batch, height, width, channels)`.

    Reference:
        - [Dhariwal and Nichol, 2021](https://arxiv.org/abs/2105.05233), 3.1
    """

    def __init__(
        self, inputs, channels, embedding_size, groups=32, dropout=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.inputs = inputs
        self.channels = channels
        self.embedding_size = embedding_size
        self.groups = groups
        self.dropout_rate = dropout
        policy = self.dtype_policy
        self.norm_1 = GroupNormalization(inputs, groups, dtype=policy, name="norm_1")
        self.conv_1 = Conv3x3(inputs, channels, dtype=policy, name="conv_1")
        self.modulation = Dense(
            embedding_size, 2 * channels, dtype=policy, name="modulation"
        )
        self.norm_2 = GroupNormalization(channels, groups, dtype=policy, name="norm_2")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.conv_2 = Conv3x3(
            channels, channels, zero=True, dtype=policy, name="conv_2"
        )
        self.skip = None
        if inputs != channels:
            self.skip = Dense(inputs, channels, dtype=policy, name="skip")

    def build(self, input_shape=None):
        self.dropout.build((None,))
        super().build()

    def call(self, x, embedding, training=False):
        h = self.conv_1(ops.silu(self.norm_1(x)))
        scale, shift = ops.split(self.modulation(embedding), 2, axis=-1)
        h = ops.silu(self.norm_2(h, scale, shift))
        h = self.conv_2(self.dropout(h, training=training))
        return h + (x if self.skip is None else self.skip(x))

    def compute_output_shape(self, input_shape, embedding_shape=None):
        return (*input_shape[:-1], self.channels)

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout_rate}
