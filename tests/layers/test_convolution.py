"""The 3x3 convolution that has its own filter gradient, against a brute-force one.

The loss is linear in the picture and in the filter, so each entry of a gradient is the
loss of a picture or a filter that is 1 there and 0 elsewhere.
"""

import keras
import numpy as np
import pytest
from helpers import gradient_of

from keras_mdm.backend import devices
from keras_mdm.layers import convolution, primitives
from keras_mdm.layers.convolution import convolve_3x3

NUMBERS = np.random.default_rng(0)
PICTURES = NUMBERS.normal(size=(2, 4, 5, 2)).astype("float32")
KERNEL = NUMBERS.normal(size=(3, 3, 2, 3)).astype("float32")
WEIGHTS = NUMBERS.normal(size=(2, 4, 5, 3)).astype("float32")


def convolve(x, kernel):
    """Sum over the nine places of a filter, in float64."""
    padded = np.pad(x.astype("float64"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def entry_by_entry(loss, shape):
    directions = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.array([loss(direction) for direction in directions]).reshape(shape)


def loss(x, kernel):
    return keras.ops.sum(keras.ops.multiply(convolve_3x3(x, kernel), WEIGHTS))


def test_value():
    x, kernel = (keras.ops.convert_to_tensor(a) for a in (PICTURES, KERNEL))
    result = keras.ops.convert_to_numpy(convolve_3x3(x, kernel))
    np.testing.assert_allclose(result, convolve(PICTURES, KERNEL), atol=1e-5)


@pytest.mark.parametrize("views", [True, False])
def test_gradients(monkeypatch, views):
    monkeypatch.setattr(convolution.backend, "slices_are_views", lambda: views)
    x, kernel = (keras.ops.convert_to_tensor(a) for a in (PICTURES, KERNEL))
    by_kernel = gradient_of(lambda k: loss(x, k), KERNEL)
    by_x = gradient_of(lambda p: loss(p, kernel), PICTURES)
    for found, exact in (
        (
            by_kernel,
            entry_by_entry(
                lambda k: np.sum(convolve(PICTURES, k) * WEIGHTS), KERNEL.shape
            ),
        ),
        (
            by_x,
            entry_by_entry(
                lambda p: np.sum(convolve(p, KERNEL) * WEIGHTS), PICTURES.shape
            ),
        ),
    ):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), exact, atol=2e-5)


def test_wide_layers_use_it(monkeypatch):
    """Also with a bias, whose gradient is the backend's."""
    layer = primitives.Conv3x3(2, 3)
    layer.build()
    found = []
    for wide in (True, False):
        monkeypatch.setattr(
            primitives.backend, "filter_gradient_by_products", lambda c, w=wide: w
        )
        x = keras.ops.convert_to_tensor(PICTURES)
        slopes = gradient_of(lambda p: keras.ops.sum(layer(p) ** 2), PICTURES)
        found.append([keras.ops.convert_to_numpy(t) for t in (layer(x), slopes)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_by_float32(monkeypatch, stride):
    """Rounded once, at the end: as near to float64 as bfloat16 can say it."""
    asked = []
    monkeypatch.setattr(
        convolution.backend,
        "convolves_slowly_in",
        lambda dtype: asked.append(dtype) or True,
    )
    layer = primitives.Conv3x3(2, 3, stride=stride, use_bias=False, dtype="bfloat16")
    layer.build()
    coarse = [
        keras.ops.convert_to_numpy(keras.ops.cast(v, "bfloat16")).astype("float32")
        for v in (PICTURES, KERNEL)
    ]
    layer.kernel.assign(coarse[1])
    result = layer(keras.ops.cast(coarse[0], "bfloat16"))
    assert asked == ["bfloat16"]
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    exact = convolve(*coarse)[:, ::stride, ::stride]
    result = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_allclose(result, exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    "name, dtype, flags, slow",
    [
        ("tensorflow", "bfloat16", {"avx2"}, True),
        ("tensorflow", "bfloat16", {"avx2", "avx512f"}, False),
        ("tensorflow", "float32", {"avx2"}, False),
        ("jax", "bfloat16", {"avx2"}, False),
    ],
)
def test_where_bfloat16_is_slow(monkeypatch, name, dtype, flags, slow):
    monkeypatch.setattr(devices, "name", lambda: name)
    monkeypatch.setattr(devices, "on_cpu", lambda: True)
    monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)
    assert devices.convolves_slowly_in(dtype) is slow
