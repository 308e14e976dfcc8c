"""Convolution, projections and resampling against loops written out in numpy."""

import keras
import numpy as np
import pytest

from keras_mdm.layers import Conv3x3, Dense, Downsample, LayerNorm, Upsample


def _conv(x, kernel, bias, stride):
    """3x3 convolution with one pixel of zeros on every side, in float64."""
    batch, height, width, _ = x.shape
    padded = np.pad(x.astype("float64"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    rows, columns = range(0, height, stride), range(0, width, stride)
    result = np.empty((batch, len(rows), len(columns), kernel.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            patch = padded[:, row : row + 3, column : column + 3]
            result[:, i, j] = np.einsum("bhwc,hwcf->bf", patch, kernel) + bias
    return result


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _weights(layer):
    return (keras.ops.convert_to_numpy(v) for v in (layer.kernel, layer.bias))


@pytest.mark.parametrize("stride", [1, 2])
def test_conv3x3(stride):
    layer = Conv3x3(2, 3, stride=stride)
    layer.build()
    x = _random((2, 6, 8, 2))
    result = keras.ops.convert_to_numpy(layer(x))
    assert result.shape == (2, 6 // stride, 8 // stride, 3)
    np.testing.assert_allclose(result, _conv(x, *_weights(layer), stride), atol=1e-5)


def test_downsample():
    layer = Downsample(2)
    layer.build()
    x = _random((1, 4, 8, 2))
    result = keras.ops.convert_to_numpy(layer(x))
    assert result.shape == layer.compute_output_shape(x.shape) == (1, 2, 4, 2)
    np.testing.assert_allclose(result, _conv(x, *_weights(layer.conv), 2), atol=1e-5)


def test_upsample():
    layer = Upsample(2)
    layer.build()
    x = _random((1, 2, 4, 2))
    doubled = np.kron(x, np.ones((1, 2, 2, 1), "float32"))
    result = keras.ops.convert_to_numpy(layer(x))
    assert result.shape == layer.compute_output_shape(x.shape) == (1, 4, 8, 2)
    expected = _conv(doubled, *_weights(layer.conv), 1)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(Dense(64, 50), 64), (Conv3x3(8, 50), 72)]
)
def test_initial_weights(layer, fan_in):
    """Uniform in +-1/sqrt(fan_in), kernel and bias, and different in each layer."""
    layer.build()
    kernel, bias = _weights(layer)
    bound = fan_in**-0.5
    for values in (kernel, bias):
        assert np.abs(values).max() <= bound
    assert np.abs(kernel).max() > 0.99 * bound
    np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.05)
    other = type(layer).from_config({**layer.get_config(), "name": "other"})
    other.build()
    assert not np.allclose(kernel, keras.ops.convert_to_numpy(other.kernel))


@pytest.mark.parametrize("make", [Dense, Conv3x3])
def test_zero(make):
    layer = make(4, 3, zero=True)
    layer.build()
    assert not any(np.any(values) for values in _weights(layer))


def test_layer_norm():
    layer = LayerNorm(8)
    layer.build()
    x = _random((2, 3, 8))
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(x)), expected, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_layer_norm_with_a_large_mean(dtype):
    """No further from float64 than Keras' own layer."""
    layer = LayerNorm(64, dtype=dtype)
    other = keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype)
    layer.build()
    other.build((None, 64))
    x = _random((8, 64)) + (1000 if dtype == "float32" else 10)
    x = keras.ops.cast(x, layer.compute_dtype)
    wide = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")).astype("float64")
    expected = wide - wide.mean(-1, keepdims=True)
    expected /= np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    errors = [
        np.abs(keras.ops.convert_to_numpy(keras.ops.cast(f(x), "float32")) - expected)
        for f in (layer, other)
    ]
    assert errors[0].max() <= 1.05 * errors[1].max() + 1e-6
