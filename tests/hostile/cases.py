"""Every forged file: importing the modules that forge them fills `forge.CASES`."""

import importlib

from hostile.forge import CASES

__all__ = ["CASES"]

_MODULES = (
    *("converted", "corners", "keras_weights", "others", "packed", "pictures"),
    *("presets", "reports", "runs", "sets", "tfds_sets", "weights"),
)
for _name in _MODULES:
    importlib.import_module(f"hostile.{_name}")
