"""One resolution of a network's path: residual blocks, attention, resampling.

`UNet` and `NestedUNet` are made of these. A path keeps its skip connections on a
stack: each unit of the way down pushes its result, each unit of the way up pops
one and reads it beside its input.
"""

import keras
from keras import ops

from keras_mdm.layers import (
    Downsample,
    FrameDownsample,
    FrameUpsample,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    Upsample,
)
from keras_mdm.layers.primitives import build_children

_SPATIAL = {"down": Downsample, "up": Upsample}
_TEMPORAL = {"down": FrameDownsample, "up": FrameUpsample}


def per_frame(value, frames):
    """Repeats each sample's value for each of its frames; `None` stays `None`."""
    if value is None or frames == 1:
        return value
    return ops.repeat(value, frames, axis=0)


class ResolutionBlock(keras.layers.Layer):
    """Residual blocks, each followed by attention layers, at one resolution.

    Clips go in and out as `batch * frames` pictures.

    Args:
        widths: Sequence of (inputs, channels), one for each residual block.
        num_attention_layers: int. Attention layers after each residual block.
        embedding_size: int. Size of the time embedding.
        token_size: int or `None`. Size of the condition tokens.
        groups, num_heads, feed_forward, dropout: See `UNet`.
        remat: bool. Whether each residual block with its attention is computed
            again in the backward pass instead of being kept in memory.
        num_temporal_attention_layers: int. Attention layers over frames after those.
        rotary_positions: bool. Whether these know the places of frames.
        resample: `None`, `"down"` or `"up"`: what follows the last residual block.
        temporal_resampling: bool. Whether that changes the number of frames rather
            than height and width.
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
        num_temporal_attention_layers,
        rotary_positions,
        resample,
        temporal_resampling,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_attention_layers = num_attention_layers
        self.num_temporal_attention_layers = num_temporal_attention_layers
        self.remat = remat
        policy = self.dtype_policy
        self.residuals, self.attentions, self.temporal_attentions = [], [], []
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
            for j in range(num_temporal_attention_layers):
                number = i * num_temporal_attention_layers + j
                self.temporal_attentions.append(
                    TemporalAttention(
                        channels,
                        rotary_positions,
                        dtype=policy,
                        name=f"temporal_attention_{number}",
                    )
                )
        self.resample = None
        self.temporal_resampling = temporal_resampling
        if resample is not None:
            layer = (_TEMPORAL if temporal_resampling else _SPATIAL)[resample]
            self.resample = layer(widths[-1][1], dtype=policy, name=f"{resample}sample")

    def build(self, input_shape=None):
        build_children(self)

    def keys_values(self, tokens):
        """Keys and values of every cross-attention of the block, as a list."""
        return [attention.keys_values(tokens) for attention in self.attentions]

    def down(self, x, skips, embedding, keys_values, mask, training, frames, hook):
        """Runs the block on the way down; pushes every result on `skips`.

        `hook`, here and in `up` and `middle`, is called with features, the name of
        the block and the number of the residual block that made them, and returns them
        changed; see `InflatedUNet`.
        """
        inputs = self._per_frame(embedding, keys_values, mask, frames)
        for i in range(len(self.residuals)):
            x = self._unit(i, x, *inputs, training, frames, hook)
            skips.append(x)
        if self.resample is not None:
            x = self._resample(x, frames)
            skips.append(x)
        return x

    def up(self, x, skips, embedding, keys_values, mask, training, frames, hook):
        """Runs the block on the way up; pops one of `skips` for each unit."""
        inputs = self._per_frame(embedding, keys_values, mask, frames)
        for i in range(len(self.residuals)):
            x = ops.concatenate([x, skips.pop()], axis=-1)
            x = self._unit(i, x, *inputs, training, frames, hook)
        return x if self.resample is None else self._resample(x, frames)

    def middle(self, x, embedding, keys_values, mask, training, frames, hook):
        """Runs the block without touching the skip connections."""
        inputs = self._per_frame(embedding, keys_values, mask, frames)
        for i in range(len(self.residuals)):
            x = self._unit(i, x, *inputs, training, frames, hook)
        return x

    def _per_frame(self, embedding, keys_values, mask, frames):
        """What each unit takes beside the pictures, for each frame."""
        if keys_values is None:
            keys_values = [None] * len(self.attentions)
        else:
            keys_values = [
                tuple(per_frame(tensor, frames) for tensor in pair)
                for pair in keys_values
            ]
        return per_frame(embedding, frames), keys_values, per_frame(mask, frames)

    def _resample(self, x, frames):
        options = {"frames": frames} if self.temporal_resampling else {}
        return self.resample(x, **options)

    def _unit(self, i, x, embedding, keys_values, mask, training, frames, hook):
        """Residual block `i` and the attention layers that follow it."""
        own = _part(i, self.num_attention_layers)
        temporal = _part(i, self.num_temporal_attention_layers)

        def unit(x, embedding, keys_values):
            x = self.residuals[i](x, embedding, training=training)
            for attention, pair in zip(self.attentions[own], keys_values, strict=True):
                x = attention(x, pair, mask)
            for attention in self.temporal_attentions[temporal]:
                x = attention(x, frames=frames)
            return x if hook is None else hook(x, self.name, i)

        remat = self.remat or (hook is not None and hook.remat)
        if remat and training:
            # A fresh function each time: JAX caches the trace by function object
            # and would otherwise train nothing.
            return keras.remat(unit)(x, embedding, keys_values[own])
        return unit(x, embedding, keys_values[own])


def _part(i, count):
    """Which of a block's layers follow residual block `i`, `count` of them."""
    return slice(i * count, (i + 1) * count)
