"""Examples on a small network: they are run here, and what they learn is not asked."""

import copy

import pytest
from helpers import tiny_mdm, tiny_nest

from keras_mdm.backend import serialize
from keras_mdm.saving import presets


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    """`mdm_tiny_32`, with a network whose step compiles in a fifth of the time."""
    known = presets.builtin_presets()
    mdm = tiny_mdm(network=tiny_nest(2, classes=10, resolution=16), ema_momentum=0.9)
    known["mdm_tiny_32"]["config"] = serialize(mdm)
    monkeypatch.setattr(presets, "builtin_presets", lambda: copy.deepcopy(known))
