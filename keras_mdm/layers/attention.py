"""Spatial self-attention joined with cross-attention to condition tokens."""

import functools
import math

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.layers.flops import record
from keras_mdm.layers.normalization import GroupNormalization
from keras_mdm.layers.primitives import (
    Dense,
    Layer,
    LayerNorm,
    check_divisible,
    rows,
)

# Attention normalizes with 32 groups whatever the residual blocks use: this is how
# the official weights were trained.
ATTENTION_GROUPS = 32


def attend(query, *sources):
    """Scaled dot-product attention, softmax in float32.

    With several sources, each is attended to on its own and the results are summed.

    Args:
        query: Tensor of shape `(batch, queries, heads, size)`.
        *sources: Tuples of a key and a value, both of shape
            `(batch, keys, heads, size)`, and a mask: a bool tensor of shape
            `(batch, keys)`, `True` where a key may be attended to, or `None`.

    Returns:
        Tensor of the shape of `query`.
    """
    results, plain = [], []
    for key, value, mask in sources:
        kernel = backend.attention_kernel(query, key)
        if key.shape[1] == 1 and mask is None:
            # The softmax is over one key, so 1: a class label, for example.
            results.append(ops.broadcast_to(value, ops.shape(query)))
            continue
        record(2 * math.prod(size or 0 for size in query.shape) * key.shape[1])
        if kernel is not None:
            results.append(kernel(query, key, value, mask))
        else:
            plain.append((key, value, mask))
    if plain:
        # Heads come before queries once for all sources: moving them is slow on a CPU.
        query = ops.transpose(query / math.sqrt(query.shape[-1]), (0, 2, 1, 3))
        by_heads = [_attend_by_heads(query, *source) for source in plain]
        results.append(ops.transpose(functools.reduce(ops.add, by_heads), (0, 2, 1, 3)))
    return functools.reduce(ops.add, results)


def _attend_by_heads(query, key, value, mask):
    """Attention of a scaled query of shape `(batch, heads, queries, size)`."""
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 3, 1)))
    scores = ops.cast(scores, "float32")
    if mask is not None:
        # Finite, so that a sample without any valid key gives a mean, not NaN.
        scores = ops.where(mask[:, None, None, :], scores, -1e30)
    weights = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
    return ops.matmul(weights, ops.transpose(value, (0, 2, 1, 3)))


class ToHeads(Dense):
    """Projections of one input to several tensors, each divided into heads.

    Each is a product of its own with a part of the kernel. Taken apart after one
    product of all, on a TPU they would be brought into another order in memory.

    Args:
        inputs: int. Size of the last axis of the input.
        channels: int. Features of each tensor, of all heads together.
        parts: int. Tensors: 3 for queries, keys and values, or 2 for keys and values.
        num_heads: int.
        **kwargs: Arguments of `Dense`.

    Call arguments:
        x: Tensor of shape `(batch, length, inputs)`.

    Returns:
        List of tensors of shape `(batch, length, num_heads, channels // num_heads)`.
    """

    def __init__(self, inputs, channels, parts, num_heads, **kwargs):
        super().__init__(inputs, parts * channels, **kwargs)
        self.parts = parts
        self.head_shape = (num_heads, channels // num_heads)

    def call(self, x):
        record(rows(x) * self.inputs * self.units)
        kernel = ops.reshape(self.kernel, (self.inputs, self.parts, *self.head_shape))
        bias = ops.reshape(self.bias, (self.parts, 1, *self.head_shape))
        pairs = zip(
            ops.split(kernel, self.parts, axis=1),
            ops.split(bias, self.parts),
            strict=True,
        )
        return [
            ops.einsum("blc,chs->blhs", x, ops.squeeze(kernel, 1)) + bias
            for kernel, bias in pairs
        ]


class FromHeads(Dense):
    """Projection of what all heads of attention found.

    Args: of `Dense`.

    Call arguments:
        x: Tensor of shape `(batch, length, heads, size)`, with `heads * size` features.

    Returns:
        Tensor of shape `(batch, length, units)`.
    """

    def build(self, input_shape=None):
        super().build()
        self.input_spec = keras.InputSpec(ndim=4)

    def call(self, x):
        kernel = ops.reshape(self.kernel, (*x.shape[2:], self.units))
        bias = ops.reshape(self.bias, (1, 1, self.units))
        result = ops.einsum("blhs,hsu->blu", x, kernel) + bias
        record(rows(result) * self.inputs * self.units)
        return result


class FeedForward(Layer):
    """Residual perceptron `x + project(gelu(expand(norm(x))))`, four times as wide.

    Args:
        channels: int. Size of the last axis.
        spatial: bool. `True`: input is a picture, normalized by groups. `False`:
            a sequence, normalized over its last axis. Defaults to `True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, channels)`, or
            `(batch, length, channels)` if not `spatial`.

    Returns:
        Tensor of the shape of `x`.
    """

    def __init__(self, channels, spatial=True, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.spatial = spatial
        policy = self.dtype_policy
        if spatial:
            self.norm = GroupNormalization(
                channels, ATTENTION_GROUPS, dtype=policy, name="norm"
            )
        else:
            self.norm = LayerNorm(channels, dtype=policy, name="norm")
        self.expand = Dense(channels, 4 * channels, dtype=policy, name="expand")
        self.project = Dense(
            4 * channels, channels, zero=True, dtype=policy, name="project"
        )

    def call(self, x):
        return x + self.project(gelu(self.expand(self.norm(x))))


def gelu(x):
    """`x` times the share of a standard normal distribution below it, in float32.

    By erf: with JAX' own, by erfc, a product that takes this for its input takes twice
    as long on a TPU in bfloat16, by the compiler's estimate.
    """
    wide = ops.cast(x, "float32")
    share = 0.5 * (1.0 + ops.erf(wide * math.sqrt(0.5)))
    return ops.cast(wide * share, x.dtype)


class SpatialAttention(Layer):
    """Self-attention over pixels plus cross-attention to tokens with the same query.

    Both results are summed before one shared output projection, which starts at
    zero; a feed-forward layer may follow.

    Args:
        channels: int. Number of channels, a multiple of 32 and of `num_heads`.
        num_heads: int. Number of attention heads. Defaults to 8.
        token_size: int. Size of the condition tokens, or `None` for
            self-attention alone. Defaults to `None`.
        feed_forward: bool. Whether a feed-forward layer follows. Defaults to `True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, height, width, channels)`.
        keys_values: Optional pair of tensors made by `keys_values`, each of shape
            `(batch, tokens, num_heads, channels // num_heads)`.
        token_mask: Optional bool tensor of shape `(batch, tokens)`.

    Returns:
        Tensor of the shape of `x`.
    """

    def __init__(
        self, channels, num_heads=8, token_size=None, feed_forward=True, **kwargs
    ):
        super().__init__(**kwargs)
        check_divisible(channels, num_heads, "attention heads")
        check_divisible(channels, ATTENTION_GROUPS, "attention groups")
        self.channels = channels
        self.num_heads = num_heads
        self.token_size = token_size
        policy = self.dtype_policy
        self.norm = GroupNormalization(
            channels, ATTENTION_GROUPS, dtype=policy, name="norm"
        )
        self.qkv = ToHeads(channels, channels, 3, num_heads, dtype=policy, name="qkv")
        if token_size is not None:
            self.token_norm = LayerNorm(token_size, dtype=policy, name="token_norm")
            self.token_kv = ToHeads(
                token_size, channels, 2, num_heads, dtype=policy, name="token_kv"
            )
        self.output_projection = FromHeads(
            channels, channels, zero=True, dtype=policy, name="output"
        )
        self.feed_forward = None
        if feed_forward:
            self.feed_forward = FeedForward(channels, dtype=policy, name="feed_forward")

    def keys_values(self, tokens):
        """Keys and values of the cross-attention: the same at every timestep.

        Args:
            tokens: float32 tensor of shape `(batch, tokens, token_size)`, standardized
                once for all layers by `standardize`. Dozens of normalizations of the
                same tokens took XLA minutes to compile for a GPU.

        Returns:
            A pair of tensors of shape
            `(batch, tokens, num_heads, channels // num_heads)`.
        """
        return tuple(self.token_kv(self.token_norm(tokens, standardized=True)))

    def call(self, x, keys_values=None, token_mask=None):
        height, width = x.shape[1:3]
        h = ops.reshape(self.norm(x), (-1, height * width, self.channels))
        query, key, value = self.qkv(h)
        sources = [(key, value, None)]
        if keys_values is not None:
            sources.append((*keys_values, token_mask))
        h = self.output_projection(attend(query, *sources))
        x = x + ops.reshape(h, (-1, height, width, self.channels))
        return x if self.feed_forward is None else self.feed_forward(x)

    def get_config(self):
        return {**super().get_config(), "feed_forward": self.feed_forward is not None}
