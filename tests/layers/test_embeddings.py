"""Embeddings of scalars and pooling of tokens against closed forms."""

import keras
import numpy as np
import pytest
from helpers import compute, randomize, to_numpy

from keras_mdm.layers import (
    MicroConditioning,
    TimestepEmbedding,
    TokenConditioning,
    sinusoidal_embedding,
)


def test_sinusoidal_closed_form():
    values = np.array([0, 1, 17, 999])
    frequencies = 10000.0 ** (-np.arange(8) / 8)
    angles = values[:, None] * frequencies
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    result = keras.ops.convert_to_numpy(sinusoidal_embedding(values, 16))
    np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "bfloat16"])
def test_timesteps_are_not_rounded(dtype):
    """998 and 999 are one number in bfloat16; the layer must still tell them apart."""
    layer = TimestepEmbedding(32, dtype=dtype)
    layer.build()
    seen = []
    hidden = layer.hidden.call
    layer.hidden.call = lambda x: seen.append(x) or hidden(x)
    layer(np.array([998.0, 999.0], "float32"))
    seen = keras.ops.convert_to_numpy(keras.ops.cast(seen[0], "float32"))
    exact = keras.ops.convert_to_numpy(
        sinusoidal_embedding(np.array([998.0, 999.0]), 8)
    )
    # Only the result is rounded, not the timestep.
    np.testing.assert_allclose(seen, exact, atol=0.01)
    assert np.abs(seen[0] - seen[1]).max() > 0.5


def test_size_is_checked():
    with pytest.raises(ValueError, match="multiple of 8"):
        TimestepEmbedding(12)


def _micro(feature, default, values):
    """Difference that the value makes, from a layer whose last projection is random."""
    layer = MicroConditioning(16, feature, default)
    layer.build()
    assert not np.any(keras.ops.convert_to_numpy(layer(np.array([5.0], "float32"))))
    randomize(layer)
    return layer, keras.ops.convert_to_numpy(layer(np.array(values, "float32")))


def test_scale_is_cut_at_its_default():
    _, result = _micro("scale", 64, [32.0, 64.0, 100.0])
    np.testing.assert_array_equal(result[1], result[2])
    assert np.abs(result[0] - result[1]).max() > 1e-3


def test_scores_are_multiplied_by_1000():
    layer, result = _micro("aesthetic", 0.5, [0.25])
    hidden = layer.hidden(sinusoidal_embedding(np.array([250.0]), 4))
    expected = layer.output_projection(keras.ops.silu(hidden))
    np.testing.assert_allclose(result, keras.ops.convert_to_numpy(expected), atol=1e-6)


TOKENS = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
MASK = np.array([[1, 0, 1], [0, 0, 1]], bool)


def test_pooling_leaves_out_padding():
    layer = TokenConditioning(8, 16)
    layer.build()
    kernel = to_numpy(layer.pooled.kernel)
    tokens, embedding = compute(lambda t: layer(t, MASK), TOKENS)
    np.testing.assert_array_equal(tokens, TOKENS)
    means = np.stack([TOKENS[0, [0, 2]].mean(0), TOKENS[1, 2]])
    np.testing.assert_allclose(embedding, means @ kernel, atol=1e-5)
    _, embedding = compute(lambda t: layer(t, None), TOKENS)
    np.testing.assert_allclose(embedding, TOKENS.mean(1) @ kernel, atol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_padding_reaches_pooled_embedding_only_if_unmasked(masked):
    layer = TokenConditioning(
        8, 16, projection_size=8, num_blocks=1, masked_attention=masked
    )
    layer.build()
    randomize(layer)
    changed = TOKENS.copy()
    changed[0, 1] += 1.0  # a padded token
    _, first = compute(lambda t: layer(t, MASK), TOKENS)
    _, second = compute(lambda t: layer(t, MASK), changed)
    assert np.array_equal(first, second) == masked


def test_without_a_single_token_is_finite():
    layer = TokenConditioning(8, 16, num_blocks=1)
    layer.build()
    _, embedding = compute(lambda t: layer(t, np.zeros((2, 3), bool)), TOKENS)
    assert np.isfinite(embedding).all()
