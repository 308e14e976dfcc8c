"""Embeddings of the timestep and of micro-conditioning values."""

import math

from keras import ops

from keras_mdm.layers.primitives import Dense, Layer


def sinusoidal_embedding(values, size):
    """Sines and cosines of a scalar at geometrically spaced frequencies.

    Frequencies are `exp(-i * ln(10000) / half)` for `i` in `0 .. half - 1`, with
    `half = size / 2`; sines stand before cosines.

    Args:
        values: Tensor of shape `(batch,)`, not rescaled: timesteps from 0 to
            `num_timesteps - 1`.
        size: int. Even number of features.

    Returns:
        float32 tensor of shape `(batch, size)`.
    """
    half = size // 2
    frequencies = ops.exp(
        ops.arange(half, dtype="float32") * (-math.log(10000.0) / half)
    )
    angles = ops.cast(values, "float32")[:, None] * frequencies[None, :]
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


class ScalarEmbedding(Layer):
    """Two-layer perceptron on the sinusoidal embedding of one scalar per sample.

    Args:
        size: int. Size of the embedding, a multiple of 8.
        zero: bool. Whether the last layer starts at zero. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        values: Tensor of shape `(batch,)`, always taken in float32: in bfloat16
            neighboring timesteps would be the same number.

    Returns:
        Tensor of shape `(batch, size)`.
    """

    def __init__(self, size, zero=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if size % 8:
            raise ValueError(f"`size` must be a multiple of 8. Received: size={size}")
        self.size = size
        self.zero = zero
        policy = self.dtype_policy
        self.hidden = Dense(size // 4, size, dtype=policy, name="hidden")
        self.output_projection = Dense(
            size, size, zero=zero, dtype=policy, name="output"
        )

    def call(self, values):
        features = sinusoidal_embedding(values, self.size // 4)
        return self.output_projection(ops.silu(self.hidden(features)))


class TimestepEmbedding(ScalarEmbedding):
    """Embedding of the diffusion timestep; see `ScalarEmbedding`."""


class MicroConditioning(ScalarEmbedding):
    """Embedding of one extra number per sample, such as the original picture size.

    The last layer starts at zero, so a new micro-condition changes nothing.

    Args:
        size: int. Size of the embedding, a multiple of 8.
        feature: str. Name of the value in the batch. The value named `"scale"` is
            a size in pixels and is cut at `default`; any other value is a score,
            usually in [0, 1], and is multiplied by 1000.
        default: float. The value of samples that state none.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        values: Tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `(batch, size)`.

    Reference:
        - [SDXL, Podell et al., 2023](https://arxiv.org/abs/2307.01952), 2.2
    """

    def __init__(self, size, feature, default, **kwargs):
        super().__init__(size, zero=True, **kwargs)
        self.feature = feature
        self.default = float(default)

    def call(self, values):
        values = ops.cast(values, "float32")
        if self.feature == "scale":
            values = ops.minimum(values, self.default)
        else:
            values = values * 1000.0
        return super().call(values)
