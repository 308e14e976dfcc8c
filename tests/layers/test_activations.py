"""SiLU and GELU and their written-out gradients, against formulas in float64."""

import math

import keras
import numpy as np
import pytest
from helpers import compute, gradient_of

from keras_mdm.layers.activations import gelu, silu

# Also far outside, where the gate is 0 or 1, and zero itself.
PLACES = np.array([*np.linspace(-6.0, 6.0, 41), -40.0, 40.0], "float32")


def _silu(x):
    return x / (1.0 + np.exp(-x))


def _gelu(x):
    return np.array([0.5 * v * math.erfc(-v / math.sqrt(2.0)) for v in x])


def _slope(function, x, step=1e-5):
    return (function(x + step) - function(x - step)) / (2.0 * step)


@pytest.fixture(params=[(silu, _silu), (gelu, _gelu)], ids=["silu", "gelu"])
def pair(request):
    """Our function and the same in numpy."""
    return request.param


def test_value(pair):
    ours, exact = pair
    expected = exact(PLACES.astype("float64"))
    np.testing.assert_allclose(compute(ours, PLACES), expected, atol=1e-6)


def test_gradient(pair):
    ours, exact = pair
    weights = np.random.default_rng(0).normal(size=PLACES.shape).astype("float32")
    slopes = gradient_of(
        lambda x: keras.ops.sum(keras.ops.multiply(ours(x), weights)), PLACES
    )
    expected = weights * _slope(exact, PLACES.astype("float64"))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(slopes), expected, atol=2e-6, rtol=1e-5
    )


def test_bfloat16(pair):
    """Slopes are rounded once; values may be by the library's own SiLU twice."""
    ours, exact = pair
    half = keras.ops.cast(PLACES[:41], "bfloat16")
    places = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    places = places.astype("float64")
    slopes = gradient_of(lambda x: keras.ops.sum(ours(x)), half)
    for result, expected, error in (
        (ours(half), exact(places), 2**-7),
        (slopes, _slope(exact, places), 2**-8),
    ):
        assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
        result = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
        np.testing.assert_allclose(result, expected, rtol=error, atol=1e-6)
