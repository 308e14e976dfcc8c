"""Group normalization against Keras' own layer, the formula, and float64."""

import keras
import numpy as np
import pytest
from helpers import compute, gradient_of

from keras_mdm.layers import GroupNormalization


def _layer(channels=16, groups=4, seed=0):
    layer = GroupNormalization(channels, groups)
    layer.build()
    rng = np.random.default_rng(seed)
    layer.gamma.assign(rng.normal(size=channels))
    layer.beta.assign(rng.normal(size=channels))
    return layer


def _layer_and_keras(groups):
    """Our layer and Keras' own one with the same weights."""
    layer = _layer(groups=groups)
    other = keras.layers.GroupNormalization(groups, epsilon=1e-5)
    other.build((None, 5, 3, 16))
    other.gamma.assign(layer.gamma)
    other.beta.assign(layer.beta)
    return layer, other


def _numpy(x, layer):
    """Group normalization in float64, written out."""
    x = x.astype("float64")
    batch, height, width, channels = x.shape
    h = x.reshape(batch, height * width, layer.groups, channels // layer.groups)
    mean = h.mean(axis=(1, 3), keepdims=True)
    variance = ((h - mean) ** 2).mean(axis=(1, 3), keepdims=True)
    h = ((h - mean) / np.sqrt(variance + layer.epsilon)).reshape(x.shape)
    gamma, beta = (keras.ops.convert_to_numpy(v) for v in (layer.gamma, layer.beta))
    return h * gamma + beta


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_equals_keras(groups):
    layer, other = _layer_and_keras(groups)
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 16)).astype("float32")
    np.testing.assert_allclose(
        compute(lambda x: layer(x), x),
        compute(lambda x: other(x), x),
        atol=1e-5,
    )


def _slopes(layer, x, weights):
    """Gradient of the weighted sum of a layer's output by its input, as float32.

    It must have the dtype of the input.
    """

    def loss(x):
        result = keras.ops.cast(layer(x), "float32")
        return keras.ops.sum(keras.ops.multiply(result, weights))

    slopes, dtype = gradient_of(loss, x), keras.backend.standardize_dtype(x.dtype)
    assert keras.backend.standardize_dtype(slopes.dtype) == dtype
    return keras.ops.convert_to_numpy(keras.ops.cast(slopes, "float32"))


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_gradient_equals_that_of_keras(groups):
    layer, other = _layer_and_keras(groups)
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(2, 2, 5, 3, 16)).astype("float32")
    expected = _slopes(other, x, weights)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(_slopes(layer, x, weights), expected, atol=1e-4)


def test_gradient_of_bfloat16_is_bfloat16():
    layer = GroupNormalization(8, 2, dtype="mixed_bfloat16")
    layer.build()
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(2, 1, 4, 4, 8)).astype("float32")
    half = keras.ops.cast(x, "bfloat16")
    exact = GroupNormalization(8, 2)
    exact.build()
    expected = _slopes(exact, keras.ops.cast(half, "float32"), weights)
    np.testing.assert_allclose(_slopes(layer, half, weights), expected, atol=0.1)


def test_modulation():
    layer = _layer()
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 4, 16)).astype("float32")
    scale, shift = rng.normal(size=(2, 2, 16)).astype("float32")
    result = compute(lambda *a: layer(*a), x, scale, shift)
    expected = _numpy(x, layer) * (1 + scale[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize(
    ("mean", "dtype"), [(30.0, "float32"), (1000.0, "float32"), (10.0, "bfloat16")]
)
def test_large_mean(mean, dtype, groups):
    """No further from float64 than Keras' own layer, which was .46 and .03 here when
    the variance was E[x^2] - E[x]^2 and each operation rounded to bfloat16."""
    policy = "float32" if dtype == "float32" else "mixed_bfloat16"
    layer = GroupNormalization(16, groups, dtype=policy)
    other = keras.layers.GroupNormalization(groups, epsilon=1e-5, dtype=policy)
    layer.build()
    other.build((None, 8, 8, 16))
    x = np.random.default_rng(1).normal(mean, 1.0, (2, 8, 8, 16)).astype("float32")
    x = keras.ops.cast(x, dtype)
    exact = _numpy(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), layer)
    errors = [
        np.abs(compute(lambda x, f=f: keras.ops.cast(f(x), "float32"), x) - exact).max()
        for f in (layer, other)
    ]
    assert errors[0] <= 1.05 * errors[1] + 1e-6


def test_constant_picture_is_finite():
    """The variance of a constant picture must not round below zero."""
    layer = _layer()
    x = np.full((1, 8, 8, 16), 100.3, "float32")
    result = compute(lambda x: layer(x), x)
    assert np.isfinite(result).all()
    # At most: the rounding of the mean, multiplied by 1 / sqrt(epsilon).
    assert np.abs(result).max() < 50


def test_statistics_are_float32_in_bfloat16():
    layer = GroupNormalization(8, 2, dtype="mixed_bfloat16")
    layer.build()
    x = np.random.default_rng(1).normal(1.0, 1.0, (2, 16, 16, 8)).astype("float32")
    result = layer(x)
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    result = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_allclose(result, _numpy(x, layer), atol=0.05)
    assert keras.backend.standardize_dtype(layer.gamma.dtype) == "float32"


def test_channels_must_divide():
    with pytest.raises(ValueError, match="multiple of the 4 normalization groups"):
        GroupNormalization(10, 4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="second derivatives")
def test_second_derivatives():
    """Against differences of the gradient; what one-step models differentiate twice."""
    import jax

    layer = GroupNormalization(4, groups=2)
    layer.build()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 2, 4)).astype("float32")
    weights = rng.normal(size=x.shape).astype("float32")

    def loss(flat):
        return (layer(flat.reshape(x.shape)) * weights).sum()

    hessian = np.asarray(jax.hessian(loss)(x.ravel()))
    gradient = jax.jit(jax.grad(loss))
    step = 1e-2
    for place in (0, 5, 11):
        change = np.zeros(x.size, "float32")
        change[place] = step
        there, back = gradient(x.ravel() + change), gradient(x.ravel() - change)
        expected = (np.asarray(there) - np.asarray(back)) / (2 * step)
        np.testing.assert_allclose(hessian[place], expected, atol=2e-2)
