"""Every forged file: importing the modules that forge them fills `forge.CASES`."""

from hostile import (
    converted,
    keras_weights,
    others,
    pictures,
    presets,
    reports,
    runs,
    sets,
    weights,
)
from hostile.forge import CASES

__all__ = ["CASES"]
MODULES = (
    converted,
    keras_weights,
    others,
    pictures,
    presets,
    reports,
    runs,
    sets,
    weights,
)
assert all(MODULES)
