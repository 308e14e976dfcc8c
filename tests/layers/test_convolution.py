"""The 3x3 convolution, in each way that it is computed, against a brute-force one.

The loss is linear in the picture and in the filter, so each entry of a gradient is the
loss of a picture or a filter that is 1 there and 0 elsewhere.
"""

import time

import keras
import numpy as np
import pytest
from helpers import gradient_of

from keras_mdm import backend
from keras_mdm.backend import convolutions
from keras_mdm.layers import convolution, primitives, winograd
from keras_mdm.layers.convolution import convolve_3x3

NUMBERS = np.random.default_rng(0)
PICTURES = NUMBERS.normal(size=(2, 8, 4, 2)).astype("float32")
KERNEL = NUMBERS.normal(size=(3, 3, 2, 3)).astype("float32")
WEIGHTS = NUMBERS.normal(size=(2, 8, 4, 3)).astype("float32")
WAYS = ("backend's own", "copies", "views", "tiles")
# Tiles are summed with factors of up to 11, and gradients of filters over 64 pixels.
VALUE_ERROR = {"tiles": 2e-5}
GRADIENT_ERROR = {"tiles": 5e-5}


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


def use(monkeypatch, how):
    """Makes `convolve_3x3` compute in one of its ways on every backend."""
    answers = {
        "winograd_pays": lambda what, size, *_: size > 0 and how == "tiles",
        "filter_gradient_by_products": lambda *_: how in ("views", "copies"),
        "slices_are_views": lambda: how == "views",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(convolution.backend, name, answer)


@pytest.mark.parametrize("how", WAYS)
def test_value(monkeypatch, how):
    use(monkeypatch, how)
    x, kernel = (keras.ops.convert_to_tensor(a) for a in (PICTURES, KERNEL))
    result = keras.ops.convert_to_numpy(convolve_3x3(x, kernel))
    np.testing.assert_allclose(
        result, convolve(PICTURES, KERNEL), atol=VALUE_ERROR.get(how, 1e-5)
    )


@pytest.mark.parametrize("how", WAYS)
def test_gradients(monkeypatch, how):
    use(monkeypatch, how)
    x, kernel = (keras.ops.convert_to_tensor(a) for a in (PICTURES, KERNEL))
    by_kernel = gradient_of(lambda k: loss(x, k), KERNEL)
    by_x = gradient_of(lambda p: loss(p, kernel), PICTURES)
    exact = entry_by_entry(
        lambda k: np.sum(convolve(PICTURES, k) * WEIGHTS), KERNEL.shape
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(by_kernel),
        exact,
        atol=GRADIENT_ERROR.get(how, 2e-5),
    )
    exact = entry_by_entry(
        lambda p: np.sum(convolve(p, KERNEL) * WEIGHTS), PICTURES.shape
    )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(by_x), exact, atol=2e-5)


@pytest.mark.parametrize("size", [(6, 8), (8, 6)])
def test_pictures_that_are_not_whole_tiles(monkeypatch, size):
    use(monkeypatch, "tiles")
    pictures = NUMBERS.normal(size=(1, *size, 2)).astype("float32")
    result = convolve_3x3(*(keras.ops.convert_to_tensor(a) for a in (pictures, KERNEL)))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(result), convolve(pictures, KERNEL), atol=1e-5
    )


def test_the_ways_of_a_layer_agree(monkeypatch):
    """Also with a bias, whose gradient is the backend's."""
    layer = primitives.Conv3x3(2, 3)
    layer.build()
    found = []
    for how in WAYS:
        use(monkeypatch, how)
        x = keras.ops.convert_to_tensor(PICTURES)
        slopes = gradient_of(lambda p: keras.ops.sum(layer(p) ** 2), PICTURES)
        found.append([keras.ops.convert_to_numpy(t) for t in (layer(x), slopes)])
    for one in found[1:]:
        for ours, theirs in zip(one, found[0], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


def test_error_of_tiles_in_wide_layers():
    """As near to float64 as a few additions more can be, of results about 1."""
    numbers = np.random.default_rng(1)
    x = numbers.normal(size=(1, 16, 16, 256)).astype("float32")
    kernel = numbers.normal(size=(3, 3, 256, 8)).astype("float32") / 48
    exact = convolve(x, kernel)
    result = winograd.convolve(*(keras.ops.convert_to_tensor(a) for a in (x, kernel)))
    error = keras.ops.convert_to_numpy(result) - exact
    assert np.sqrt(np.mean(error**2)) < 3e-6


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
    "name, dtype, avx512, slow",
    [
        ("tensorflow", "bfloat16", False, True),
        ("tensorflow", "bfloat16", True, False),
        ("tensorflow", "float32", False, False),
        ("jax", "bfloat16", False, False),
    ],
)
def test_where_bfloat16_is_slow(monkeypatch, name, dtype, avx512, slow):
    monkeypatch.setattr(convolutions, "name", lambda: name)
    monkeypatch.setattr(convolutions, "on_cpu", lambda: True)
    monkeypatch.setattr(convolutions, "_has_avx512", lambda: avx512)
    assert convolutions.convolves_slowly_in(dtype) is slow


@pytest.mark.parametrize("name", ["jax", "tensorflow"])
def test_accelerators_compute_in_their_own_way(monkeypatch, name):
    monkeypatch.setattr(convolutions, "name", lambda: name)
    monkeypatch.setattr(convolutions, "_has_avx512", lambda: False)
    for on_cpu in (True, False):
        monkeypatch.setattr(convolutions, "on_cpu", lambda here=on_cpu: here)
        for channels, ours in ((512, on_cpu), (3, False)):
            kind = (channels, "float32")
            assert convolutions.filter_gradient_by_products(*kind) is ours
            assert convolutions.winograd_pays("filter_gradient", 4096, *kind) is ours


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its executor's")
def test_not_before():
    """A graph computes the value last, though nothing else makes it wait."""
    import tensorflow as tf

    order = []

    def note(what, seconds):
        def run(x):
            time.sleep(seconds)
            order.append(what)
            return x

        return lambda x: tf.numpy_function(run, [x], tf.float32, stateful=False)

    @tf.function
    def compute(x):
        other = note("other", 0.2)(x)
        return other + note("value", 0.0)(backend.not_before(other, x))

    compute(tf.constant(1.0))
    assert order == ["other", "value"]


@pytest.mark.parametrize("avx512", [False, True])
def test_tensorflow_keeps_its_filter_gradient_with_avx512(monkeypatch, avx512):
    monkeypatch.setattr(convolutions, "on_cpu", lambda: True)
    monkeypatch.setattr(convolutions, "_has_avx512", lambda: avx512)
    for name, ours in (("tensorflow", not avx512), ("jax", True)):
        monkeypatch.setattr(convolutions, "name", lambda here=name: here)
        assert convolutions.filter_gradient_by_products(512, "float32") is ours
        assert convolutions.winograd_pays("filter_gradient", 4096, 128, "float32")
