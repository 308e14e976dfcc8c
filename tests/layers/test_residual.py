"""The residual block against its formula, and the configurations of all layers."""

import keras
import numpy as np
import pytest
from helpers import compute, equal_values, randomize, to_numpy, values_of

from keras_mdm import layers
from keras_mdm.conditioning import ClassLabels, TextEmbeddings


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("channels", [8, 16])
def test_residual_block(channels):
    layer = layers.ResidualBlock(8, channels, 16, groups=8)
    layer.build()
    randomize(layer)
    x, embedding = _random(2, 4, 4, 8), _random(2, 16, seed=1)
    silu = keras.ops.silu

    def formula(x, embedding):
        h = layer.conv_1(silu(layer.norm_1(x)))
        modulation = layer.modulation(embedding)[:, None, None]
        scale, shift = modulation[..., :channels], modulation[..., channels:]
        h = layer.conv_2(silu(layer.norm_2(h) * (1 + scale) + shift))
        return h + (x if channels == 8 else layer.skip(x))

    x, embedding = (
        keras.ops.convert_to_tensor(x),
        keras.ops.convert_to_tensor(embedding),
    )
    np.testing.assert_allclose(
        compute(lambda *a: layer(*a), x, embedding),
        compute(formula, x, embedding),
        atol=1e-5,
    )


def test_fresh_block_is_the_identity():
    layer = layers.ResidualBlock(8, 8, 16, groups=8)
    layer.build()
    x = _random(1, 4, 4, 8)
    np.testing.assert_array_equal(compute(lambda *a: layer(*a), x, _random(1, 16)), x)


def test_dropout_in_training_only():
    layer = layers.ResidualBlock(8, 8, 16, groups=8, dropout=0.5)
    layer.build()
    randomize(layer)
    x, embedding = _random(1, 4, 4, 8), _random(1, 16)
    still, other, dropped = (
        to_numpy(layer(x, embedding, training=training))
        for training in (False, False, True)
    )
    np.testing.assert_array_equal(still, other)
    assert not np.allclose(still, dropped)


LAYERS = [
    layers.GroupNormalization(8, 2, epsilon=1e-3),
    layers.Conv3x3(2, 3, stride=2, zero=True),
    layers.Dense(2, 3, zero=True, use_bias=False),
    layers.LayerNorm(4),
    layers.Upsample(4),
    layers.Downsample(4),
    layers.FeedForward(8, spatial=False),
    layers.SpatialAttention(32, 4, token_size=8, feed_forward=False),
    layers.TimestepEmbedding(16, zero=True),
    layers.MicroConditioning(16, "scale", 64),
    layers.ResidualBlock(8, 16, 16, groups=4, dropout=0.25),
    layers.TokenBlock(8, num_heads=2),
    layers.TokenConditioning(8, 16, 8, num_blocks=1, masked_attention=False),
    ClassLabels(4, size=8),
    TextEmbeddings(8),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_config_round_trip(layer):
    config = layer.get_config()
    copy = type(layer).from_config(config)
    assert copy.get_config() == config
    for one in (layer, copy):
        if not one.built:
            one.build()
    assert [v.shape for v in layer.variables] == [v.shape for v in copy.variables]
    zero = getattr(layer, "zero", False)
    if zero and isinstance(layer, layers.Dense | layers.Conv3x3):
        assert equal_values(values_of(layer.variables), values_of(copy.variables))
