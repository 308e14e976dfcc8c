"""The 3x3 convolution against a brute-force one, forward and backward."""

import keras
import numpy as np
import pytest
from helpers import gradient_of

from keras_mdm.layers.primitives import Conv3x3

NUMBERS = np.random.default_rng(0)
PICTURES = NUMBERS.normal(size=(2, 8, 4, 2)).astype("float32")


def convolve(x, kernel, stride):
    """Sum over the nine places of a filter, one zero on every side, in float64."""
    padded = np.pad(x.astype("float64"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height : stride, j : j + width : stride] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_value_and_gradient(stride):
    layer = Conv3x3(2, 3, stride=stride)
    layer.build()
    kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in layer.weights)
    expected = convolve(PICTURES, kernel, stride) + bias
    result = keras.ops.convert_to_numpy(layer(PICTURES))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    weights = NUMBERS.normal(size=expected.shape).astype("float32")

    def loss(x):
        return keras.ops.sum(keras.ops.multiply(layer(x), weights))

    # The loss is linear: each entry of its gradient is the loss of a picture that is 1
    # there and 0 elsewhere.
    found = keras.ops.convert_to_numpy(gradient_of(loss, PICTURES)).ravel()
    for place in range(0, PICTURES.size, 7):
        one = np.zeros(PICTURES.size)
        one[place] = 1.0
        entry = convolve(one.reshape(PICTURES.shape), kernel, stride)
        assert found[place] == pytest.approx(np.sum(entry * weights), abs=2e-5)
