"""Guidance, thresholds and the pyramid against numpy."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_mdm.diffusion.guidance import guide, threshold
from keras_mdm.diffusion.pyramid import pyramid as make_pyramid

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rescale", [None, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guide(scale, rescale):
    u, c = RNG.normal(0.2, 1.0, (2, 3, 4, 4, 2)).astype("float32")
    expected = u + scale * (c - u)
    if rescale is not None:
        for i in range(3):
            factor = c[i].std() / expected[i].std()
            expected[i] *= rescale * factor + (1 - rescale)
    found = guide(*(keras.ops.convert_to_tensor(t) for t in (u, c)), scale, rescale)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4, atol=1e-5)
    if rescale == 1.0:
        stds = to_numpy(found).reshape(3, -1).std(1)
        np.testing.assert_allclose(stds, c.reshape(3, -1).std(1), rtol=1e-4)


def test_constant_prediction_can_be_rescaled():
    flat = keras.ops.zeros((1, 2, 2, 1))
    assert np.isfinite(to_numpy(guide(flat, flat, 2.0, 1.0))).all()


X0 = RNG.normal(0.0, 2.0, (3, 8, 8, 1)).astype("float32")
X0[2] *= 0.1


def test_threshold_none_and_static():
    np.testing.assert_array_equal(to_numpy(threshold("none", X0, 0.9, 10.0)), X0)
    found = to_numpy(threshold("static", X0, 0.9, 10.0))
    np.testing.assert_array_equal(found, np.clip(X0, -1, 1))


@pytest.mark.parametrize("maximum", [100.0, 1.5])
def test_threshold_dynamic(maximum):
    found = to_numpy(threshold("dynamic", X0, 0.9, maximum))
    for i in range(3):
        limit = np.clip(np.quantile(np.abs(X0[i]), 0.9), 1.0, maximum)
        expected = np.clip(X0[i], -limit, limit) / limit
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
    # A sample within the range stays as it is.
    np.testing.assert_allclose(found[2], X0[2], rtol=1e-6)


def test_pyramid():
    images = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
    pyramid = to_numpy(make_pyramid(keras.ops.convert_to_tensor(images), (16, 8, 2)))
    assert [level.shape for level in pyramid] == [
        (2, 16, 16, 3),
        (2, 8, 8, 3),
        (2, 2, 2, 3),
    ]
    np.testing.assert_array_equal(pyramid[0], images)
    for level, size in zip(pyramid[1:], (8, 2), strict=True):
        factor = 16 // size
        for row in range(size):
            for column in range(size):
                block = images[
                    :,
                    row * factor : (row + 1) * factor,
                    column * factor : (column + 1) * factor,
                ]
                np.testing.assert_allclose(
                    level[:, row, column], block.mean(axis=(1, 2)), atol=1e-5
                )
