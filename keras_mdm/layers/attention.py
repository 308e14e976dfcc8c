"""Spatial self-attention joined with cross-attention to condition tokens."""

import functools
import math

from keras import ops

from keras_mdm import backend
from keras_mdm.layers.flops import record
from keras_mdm.layers.normalization import GroupNormalization
from keras_mdm.layers.primitives import (
    Dense,
    Layer,
    LayerNorm,
    check_divisible,
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


def split_heads(h, parts, num_heads):
    """Splits the last axis into queries, keys and values, and each into heads.

    Args:
        h: Tensor of shape `(batch, length, parts * channels)`.
        parts: int. Tensors to return: 3, or 2 for keys and values alone.
        num_heads: int.

    Returns:
        List of tensors of shape `(batch, length, num_heads, channels // num_heads)`.
    """
    shape = (-1, h.shape[1], num_heads, h.shape[2] // (parts * num_heads))
    # Not by indexing: in TensorFlow the gradient of that writes zeros for the rest.
    return [ops.reshape(part, shape) for part in ops.split(h, parts, axis=-1)]


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
        self.qkv = Dense(channels, 3 * channels, dtype=policy, name="qkv")
        if token_size is not None:
            self.token_norm = LayerNorm(token_size, dtype=policy, name="token_norm")
            self.token_kv = Dense(
                token_size, 2 * channels, dtype=policy, name="token_kv"
            )
        self.output_projection = Dense(
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
        h = self.token_kv(self.token_norm(tokens, standardized=True))
        return tuple(split_heads(h, 2, self.num_heads))

    def call(self, x, keys_values=None, token_mask=None):
        height, width = x.shape[1:3]
        h = ops.reshape(self.norm(x), (-1, height * width, self.channels))
        query, key, value = split_heads(self.qkv(h), 3, self.num_heads)
        sources = [(key, value, None)]
        if keys_values is not None:
            sources.append((*keys_values, token_mask))
        attended = attend(query, *sources)
        attended = ops.reshape(attended, (-1, height, width, self.channels))
        x = x + self.output_projection(attended)
        return x if self.feed_forward is None else self.feed_forward(x)

    def get_config(self):
        return {**super().get_config(), "feed_forward": self.feed_forward is not None}
