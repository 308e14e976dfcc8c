"""One resolution of a network's path: residual blocks, attention, resampling.

`UNet` and `NestedUNet` are made of these. A path keeps its skip connections on a
stack: each unit of the way down pushes its result, each unit of the way up pops
one and reads it beside its input.
"""

import keras
from keras import ops

from keras_mdm.layers import Downsample, ResidualBlock, SpatialAttention, Upsample
from keras_mdm.layers.primitives import build_children


class ResolutionBlock(keras.layers.Layer):
    """Residual blocks, each followed by attention layers, at one resolution.

    Args:
        widths: Sequence of (inputs, channels), one for each residual block.
        num_attention_layers: int. Attention layers after each residual block.
        embedding_size: int. Size of the time embedding.
        token_size: int or `None`. Size of the condition tokens.
        groups, num_heads, feed_forward, dropout: See `UNet`.
        remat: bool. Whether each residual block with its attention is computed
            again in the backward pass instead of being kept in memory.
        resample: `None`, `"down"` or `"up"`: what follows the last residual block.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        widths,
        num_attention_layers,
        *,
        embedding_size,
        token_size,
        groups,
        num_heads,
        feed_forward,
        dropout,
        remat,
        resample=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_attention_layers = num_attention_layers
        self.token_size = token_size
        self.remat = remat
        policy = self.dtype_policy
        self.residuals, self.attentions = [], []
        for i, (inputs, channels) in enumerate(widths):
            self.residuals.append(
                ResidualBlock(
                    inputs,
                    channels,
                    embedding_size,
                    groups,
                    dropout,
                    dtype=policy,
                    name=f"residual_{i}",
                )
            )
            for j in range(num_attention_layers):
                self.attentions.append(
                    SpatialAttention(
                        channels,
                        num_heads,
                        token_size,
                        feed_forward,
                        dtype=policy,
                        name=f"attention_{i * num_attention_layers + j}",
                    )
                )
        self.resample = None
        if resample is not None:
            layer = {"down": Downsample, "up": Upsample}[resample]
            self.resample = layer(widths[-1][1], dtype=policy, name=f"{resample}sample")

    def build(self, input_shape=None):
        build_children(self)

    def keys_values(self, tokens):
        """Keys and values of every cross-attention of the block, as a list."""
        return [attention.keys_values(tokens) for attention in self.attentions]

    def down(self, x, skips, embedding, keys_values, mask, training):
        """Runs the block on the way down; pushes every result on `skips`."""
        for i in range(len(self.residuals)):
            x = self._unit(i, x, embedding, keys_values, mask, training)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x)
            skips.append(x)
        return x

    def up(self, x, skips, embedding, keys_values, mask, training):
        """Runs the block on the way up; pops one of `skips` for each unit."""
        for i in range(len(self.residuals)):
            x = ops.concatenate([x, skips.pop()], axis=-1)
            x = self._unit(i, x, embedding, keys_values, mask, training)
        return x if self.resample is None else self.resample(x)

    def straight(self, x, embedding, keys_values, mask, training):
        """Runs the block without touching the skip connections."""
        for i in range(len(self.residuals)):
            x = self._unit(i, x, embedding, keys_values, mask, training)
        return x

    def _unit(self, i, x, embedding, keys_values, mask, training):
        """Residual block `i` and the attention layers that follow it."""
        first = i * self.num_attention_layers
        own = slice(first, first + self.num_attention_layers)

        def unit(x, embedding, keys_values):
            x = self.residuals[i](x, embedding, training=training)
            for attention, pair in zip(self.attentions[own], keys_values, strict=True):
                x = attention(x, pair, mask)
            return x

        if keys_values is None:
            keys_values = [None] * self.num_attention_layers
        else:
            keys_values = keys_values[own]
        if self.remat and training:
            # A fresh function each time: JAX caches the trace by function object
            # and would otherwise train nothing.
            return keras.remat(unit)(x, embedding, keys_values)
        return unit(x, embedding, keys_values)
