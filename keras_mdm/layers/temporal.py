"""Attention, resampling and an embedding over the frames of a clip.

Networks keep a clip as `batch * frames` pictures, frames of a clip next to each other,
because most of their layers work on single frames. The layers here are told the number
of frames and look along them. Used by `keras_mdm.networks`.
"""

import math

import numpy as np
from keras import ops

from keras_mdm.layers.attention import FeedForward, FromHeads, ToHeads, attend
from keras_mdm.layers.primitives import (
    Conv3x3,
    Dense,
    FrameConv,
    Layer,
    LayerNorm,
    check_divisible,
)

# The official weights were trained with heads of this size. Narrower layers have
# smaller ones.
HEAD_SIZE = 32


def rotate(x):
    """Rotary positions: turns pair i of features by position times a frequency.

    Frequencies are `10000 ** (-2 i / size)`.

    Args:
        x: Tensor of shape `(batch, length, heads, size)`, `size` an even number.

    Returns:
        Tensor of the shape of `x`.

    Reference:
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864), 3.2.2
    """
    length, size = x.shape[1], x.shape[3]
    frequencies = 10000.0 ** (-np.arange(0, size, 2) / size)
    angles = np.outer(np.arange(length), frequencies).astype("float32")
    angles = angles[None, :, None, :]  # (1, length, 1, size // 2)
    cosine = ops.cast(ops.convert_to_tensor(np.cos(angles)), x.dtype)
    sine = ops.cast(ops.convert_to_tensor(np.sin(angles)), x.dtype)
    pairs = ops.reshape(x, (-1, *x.shape[1:3], size // 2, 2))
    first, second = ops.unstack(pairs, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return ops.reshape(ops.stack(turned, axis=-1), (-1, *x.shape[1:]))


class TemporalAttention(Layer):
    """Each place of the picture attends to the same place in every frame.

    At half the height and width: 3x3 convolution with stride 2, attention over frames
    and a feed-forward layer, nearest-neighbor doubling, 3x3 convolution, plus the
    input. The last convolution starts at zero: a new layer is the identity.

    Args:
        channels: int. Number of channels, even. Heads have 32 of them, or as many as
            the largest power of two that divides `channels`.
        rotary: bool. Whether queries and keys are turned by rotary positions. There is
            no other sign of time. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch * frames, height, width, channels)`, height and
            width even.
        frames: int. Number of frames of a clip.

    Returns:
        Tensor of the shape of `x`.
    """

    def __init__(self, channels, rotary=False, **kwargs):
        super().__init__(**kwargs)
        check_divisible(channels, 2, "features that rotary positions turn")
        self.channels = channels
        self.rotary = rotary
        policy = self.dtype_policy
        self.downsample = Conv3x3(
            channels, channels, stride=2, dtype=policy, name="downsample"
        )
        self.norm = LayerNorm(channels, dtype=policy, name="norm")
        num_heads = channels // math.gcd(channels, HEAD_SIZE)
        self.qkv = ToHeads(channels, channels, 3, num_heads, dtype=policy, name="qkv")
        self.output_projection = FromHeads(
            channels, channels, zero=True, dtype=policy, name="output"
        )
        self.feed_forward = FeedForward(
            channels, spatial=False, dtype=policy, name="feed_forward"
        )
        self.upsample = Conv3x3(
            channels, channels, zero=True, dtype=policy, name="upsample"
        )

    def call(self, x, frames):
        h = self.downsample(x)
        height, width = h.shape[1:3]
        h = ops.reshape(h, (-1, frames, height * width, self.channels))
        h = ops.reshape(ops.swapaxes(h, 1, 2), (-1, frames, self.channels))
        h = self.feed_forward(h + self._attend(h))
        h = ops.reshape(h, (-1, height * width, frames, self.channels))
        h = ops.reshape(ops.swapaxes(h, 1, 2), (-1, height, width, self.channels))
        h = ops.repeat(ops.repeat(h, 2, axis=1), 2, axis=2)
        return x + self.upsample(h)

    def _attend(self, h):
        query, key, value = self.qkv(self.norm(h))
        if self.rotary:
            query, key = rotate(query), rotate(key)
        return self.output_projection(attend(query, (key, value, None)))


class FrameEmbedding(Layer):
    """Makes of each sample's embedding one for each of its frames.

    Features of the embedding are multiplied by cosines over the frames: what moves
    where is told by a condition and the time within the clip together, not by one of
    them alone. The last layer starts at zero: all frames of a new layer are alike.

    Args:
        frames: int. Frames of a clip.
        size: int. Size of the embedding.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        embedding: Tensor of shape `(batch, size)`.

    Returns:
        Tensor of shape `(batch * frames, size)`, frames of a clip next to each other.
    """

    def __init__(self, frames, size, **kwargs):
        super().__init__(**kwargs)
        self.frames = frames
        self.size = size
        policy = self.dtype_policy
        self.hidden = Dense(size, size, dtype=policy, name="hidden")
        self.output_projection = Dense(
            size, size, zero=True, dtype=policy, name="output"
        )
        # The cosine transform's basis: constant, ramp, and so on.
        places = (np.arange(frames) + 0.5) / frames
        waves = np.arange(size) % frames
        self._basis = np.cos(np.pi * np.outer(places, waves)).astype("float32")

    def call(self, embedding):
        h = ops.silu(self.hidden(embedding))[:, None]
        h = h * ops.cast(ops.convert_to_tensor(self._basis), h.dtype)
        return ops.reshape(
            embedding[:, None] + self.output_projection(h), (-1, self.size)
        )


class FrameDownsample(Layer):
    """Halves the number of frames: a convolution over three frames with stride 2.

    Args:
        channels: int. Number of channels of input and output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch * frames, height, width, channels)`.
        frames: int. Number of frames of a clip, even.

    Returns:
        Tensor of shape `(batch * frames // 2, height, width, channels)`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.conv = FrameConv(
            channels, channels, stride=2, dtype=self.dtype_policy, name="conv"
        )

    def call(self, x, frames):
        return over_frames(self.conv, x, frames)


class FrameUpsample(Layer):
    """Doubles the number of frames: each twice, then a convolution over three.

    Args:
        channels: int. Number of channels of input and output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch * frames, height, width, channels)`.
        frames: int. Number of frames of a clip.

    Returns:
        Tensor of shape `(batch * frames * 2, height, width, channels)`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.conv = FrameConv(channels, channels, dtype=self.dtype_policy, name="conv")

    def call(self, x, frames):
        return over_frames(lambda h: self.conv(ops.repeat(h, 2, axis=1)), x, frames)


def over_frames(function, x, frames):
    """Applies a function of `(batch, frames, places, channels)` to a clip.

    Args:
        function: Callable that may change the number of frames.
        x: Tensor of shape `(batch * frames, height, width, channels)`.
        frames: int.

    Returns:
        Tensor of shape `(batch * new frames, height, width, channels)`.
    """
    height, width, channels = x.shape[1:]
    h = function(ops.reshape(x, (-1, frames, height * width, channels)))
    return ops.reshape(h, (-1, height, width, h.shape[-1]))
