"""Weights are cast once for a sampling run, to what their layers compute with."""

import numpy as np
import pytest
from helpers import randomize, tiny_mdm, tiny_nest

from keras_mdm.model import generate
from keras_mdm.model.weight_dtypes import weight_dtypes


def _is_cast(variable):
    """Kernels and biases, but not of the last layer, which computes in float32."""
    *_, layer, name = variable.path.split("/")
    return name in ("kernel", "bias") and layer != "conv_out"


def test_mixed_policy():
    network = tiny_nest(dtype="mixed_bfloat16")
    variables = network.variables
    expected = ["bfloat16" if _is_cast(v) else "float32" for v in variables]
    assert set(expected) == {"bfloat16", "float32"}
    assert weight_dtypes(network, variables) == expected
    assert weight_dtypes(network, variables[:0:-1]) == expected[:0:-1]


def test_float32():
    network = tiny_nest()
    assert set(weight_dtypes(network, network.variables)) == {"float32"}


@pytest.mark.parametrize("use_ema", [False, True])
def test_pictures_stay_the_same(monkeypatch, use_ema):
    """Casting is what the layers would do."""
    network = randomize(tiny_nest(dtype="mixed_bfloat16"))
    options = {"seed": 0, "labels": [0, 1], "num_steps": 3, "output": "float"}

    def draw():
        mdm = tiny_mdm(network=network, ema_momentum=0.9)
        return mdm.generate(**options, use_ema=use_ema)

    pictures, asked = draw(), []

    def own(network, variables):
        asked.append(len(variables))
        return ["float32"] * len(variables)

    monkeypatch.setattr(generate, "weight_dtypes", own)
    np.testing.assert_array_equal(draw(), pictures)
    assert asked and np.abs(pictures).max() > 0.01
