"""Attention against loops in numpy, with and without a mask."""

import functools
import math

import keras
import numpy as np
import pytest
from helpers import compute, gradient_of, randomize, to_numpy

from keras_mdm import backend
from keras_mdm.backend import attention
from keras_mdm.layers import FeedForward, SpatialAttention, attend, standardize
from keras_mdm.layers.attention import gelu


def _softmax(scores):
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def _attend(query, key, value, mask=None):
    """One sample, one head and one query after the other, in float64."""
    result = np.zeros(query.shape)
    for b in range(query.shape[0]):
        keep = slice(None) if mask is None else np.flatnonzero(mask[b])
        for h in range(query.shape[2]):
            for q in range(query.shape[1]):
                scores = key[b, keep, h] @ query[b, q, h] / query.shape[-1] ** 0.5
                result[b, q, h] = _softmax(scores) @ value[b, keep, h]
    return result


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.fixture(params=["plain", "gpu", "tpu"])
def road(request, monkeypatch):
    """All roads of `attend`: those of accelerators' kernels as far as a CPU can.

    JAX' own products stand in for cuDNN's kernel behind the same function, and Pallas'
    interpreter runs the kernel for TPUs.
    """
    if request.param == "plain":
        kernel = None
    elif keras.backend.backend() != "jax":
        pytest.skip("kernels are called on JAX alone")
    elif request.param == "gpu":
        kernel = functools.partial(attention.attend_on_gpu, implementation="xla")
    else:
        kernel = attention.attend_on_tpu
        make = splash_attention_kernel().make_splash_mha
        interpreted = functools.partial(make, interpret=True)
        monkeypatch.setattr(splash_attention_kernel(), "make_splash_mha", interpreted)
    monkeypatch.setattr(backend, "attention_kernel", lambda query, key: kernel)


def splash_attention_kernel():
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
    )

    return splash_attention_kernel


NAMES = ("query", "key", "value")
MASK = np.array([[1, 1, 0, 0], [0, 1, 0, 1]], bool)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_attend(road, mask):
    query = _random(2, 5, 2, 3, seed=1)
    key, value = _random(2, 4, 2, 3, seed=2), _random(2, 4, 2, 3, seed=3)
    result = compute(lambda q, k, v: attend(q, (k, v, mask)), query, key, value)
    np.testing.assert_allclose(result, _attend(query, key, value, mask), atol=1e-5)


@pytest.mark.parametrize("mask", [False, True], ids=["all", "masked"])
def test_many_keys(road, mask):
    """More than one block of a kernel, the last one not full."""
    query = _random(1, 131, 1, 8, seed=1)
    key, value = _random(1, 261, 1, 8, seed=2), _random(1, 261, 1, 8, seed=3)
    keep = np.random.default_rng(4).random((1, 261)) < 0.5 if mask else None
    result = compute(lambda q, k, v: attend(q, (k, v, keep)), query, key, value)
    np.testing.assert_allclose(result, _attend(query, key, value, keep), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone has kernels")
@pytest.mark.parametrize(
    ("device", "dtype", "shape", "wanted"),
    [
        ("cpu", "bfloat16", (1, 256, 2, 64), None),
        ("gpu", "bfloat16", (1, 256, 2, 64), attention.attend_on_gpu),
        ("gpu", "bfloat16", (1, 7, 2, 64), attention.attend_on_gpu),
        ("gpu", "float32", (1, 256, 2, 64), None),
        ("gpu", "bfloat16", (1, 256, 2, 12), None),
        ("gpu", "bfloat16", (1, 256, 2, 136), None),
        ("tpu", "bfloat16", (1, 256, 2, 64), attention.attend_on_tpu),
        ("tpu", "float32", (1, 1000, 2, 96), attention.attend_on_tpu),
        ("tpu", "bfloat16", (1, 256, 2, 32), None),
        ("tpu", "bfloat16", (1, 64, 2, 64), None),
    ],
)
def test_choice_of_the_kernel(monkeypatch, device, dtype, shape, wanted):
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: device)
    query = jax.ShapeDtypeStruct(shape, dtype)
    assert backend.attention_kernel(query, query) is wanted


def test_results_of_all_sources_are_summed(road):
    """Also those of a single key, which need no softmax."""
    query = _random(2, 5, 2, 3)
    sources = [
        (_random(2, keys, 2, 3, seed=keys), _random(2, keys, 2, 3, seed=9), mask)
        for keys, mask in ((4, None), (1, None), (4, MASK))
    ]
    expected = sum(_attend(query, *source) for source in sources)
    result = compute(lambda q: attend(q, *sources), query)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("which", ["query", "key", "value"])
def test_gradient(road, which, mask):
    """Against differences of the loops in numpy."""
    given = {name: _random(2, 4, 2, 3, seed=i) for i, name in enumerate(NAMES)}
    weights = _random(2, 4, 2, 3, seed=5)

    def loss(x):
        query, key, value = ({**given, which: x}[name] for name in NAMES)
        result = attend(keras.ops.convert_to_tensor(query), (key, value, mask))
        return keras.ops.sum(keras.ops.multiply(result, weights))

    slopes = keras.ops.convert_to_numpy(gradient_of(loss, given[which]))
    expected, step = np.zeros(slopes.shape), 1e-5
    for place in np.ndindex(slopes.shape):
        sums = []
        for sign in (-1, 1):
            moved = {name: array.astype("float64") for name, array in given.items()}
            moved[which][place] += sign * step
            sums.append((_attend(*moved.values(), mask) * weights).sum())
        expected[place] = (sums[1] - sums[0]) / (2 * step)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(slopes, expected, atol=1e-5)


def test_single_key_is_a_copy(road):
    query, key, value = _random(2, 5, 2, 3), _random(2, 1, 2, 3), _random(2, 1, 2, 3)
    result = compute(lambda q, k, v: attend(q, (k, v, None)), query, key, value)
    np.testing.assert_allclose(result, _attend(query, key, value), atol=1e-6)


def test_row_without_any_key_is_finite(road):
    mask = np.array([[False] * 4, [True] * 4])
    query, key, value = _random(2, 5, 2, 3), _random(2, 4, 2, 3), _random(2, 4, 2, 3)
    result = compute(lambda q, k, v: attend(q, (k, v, mask)), query, key, value)
    assert np.isfinite(result).all()


def test_bfloat16(road):
    """Results have the policy's dtype and its precision, no less."""
    arrays = [_random(2, 5, 2, 8), _random(2, 4, 2, 8), _random(2, 4, 2, 8, seed=3)]
    half = [keras.ops.cast(array, "bfloat16") for array in arrays]
    result = attend(half[0], (*half[1:], None))
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    rounded = [keras.ops.convert_to_numpy(keras.ops.cast(h, "float32")) for h in half]
    result = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_allclose(result, _attend(*rounded), atol=0.02)


def _projected(layer, x):
    kernel, bias = to_numpy([layer.kernel, layer.bias])
    return x @ kernel + bias


def _grouped(x):
    """Group normalization with 32 groups of one channel."""
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_spatial_attention(mask):
    """x + project(self + cross), one query for both, heads side by side."""
    layer = SpatialAttention(32, 4, token_size=8, feed_forward=False)
    layer.build()
    randomize(layer, 0.1)
    for norm in (layer.norm, layer.token_norm):  # as after construction
        norm.gamma.assign(np.ones(norm.gamma.shape))
        norm.beta.assign(np.zeros(norm.beta.shape))
    x, tokens = _random(2, 2, 3, 32), _random(2, 4, 8, seed=1)
    qkv = _projected(layer.qkv, _grouped(x).reshape(2, 6, 32))
    query, key, value = (p.reshape(2, 6, 4, 8) for p in np.split(qkv, 3, axis=-1))
    normed = tokens - tokens.mean(-1, keepdims=True)
    normed = normed / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
    kv = _projected(layer.token_kv, normed)
    others = [p.reshape(2, 4, 4, 8) for p in np.split(kv, 2, axis=-1)]
    attended = _attend(query, key, value) + _attend(query, *others, mask)
    attended = attended.reshape(2, 2, 3, 32)
    expected = x + _projected(layer.output_projection, attended)
    result = compute(
        lambda x, t: layer(x, layer.keys_values(standardize(t)), mask), x, tokens
    )
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize(
    "layer", [SpatialAttention(32, 4, name="a"), FeedForward(32, name="f")]
)
def test_fresh_layer_is_the_identity(layer):
    layer.build()
    x = _random(1, 2, 2, 32)
    np.testing.assert_array_equal(compute(lambda x: layer(x), x), x)


@pytest.mark.parametrize(("channels", "heads"), [(48, 8), (32, 5)])
def test_widths_are_checked(channels, heads):
    with pytest.raises(ValueError, match="positive multiple of the .* attention"):
        SpatialAttention(channels, heads)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_gelu(dtype, error):
    x = keras.ops.cast(np.linspace(-8.0, 8.0, 401, dtype="float32"), dtype)
    given = to_numpy(keras.ops.cast(x, "float32")).astype("float64")
    expected = given * [0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in given]
    result = compute(gelu, x)
    assert keras.backend.standardize_dtype(gelu(x).dtype) == dtype
    # Rounded once.
    bound = error * np.maximum(np.abs(expected), 1.0)
    assert (np.abs(np.asarray(result, "float64") - expected) <= bound).all()
