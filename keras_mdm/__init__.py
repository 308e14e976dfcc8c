"""Matryoshka Diffusion Models in Keras 3; `public` lists the names."""

import importlib.util
import multiprocessing

__version__ = "0.1.0"


def __getattr__(name):
    """Imports a module of the package alone, or else all public names."""
    if not name.startswith("_"):
        if importlib.util.find_spec(f"keras_mdm.{name}"):
            return importlib.import_module(f"keras_mdm.{name}")
        public = vars(importlib.import_module("keras_mdm.public"))
        if name in public:
            return public[name]
    raise AttributeError(f"module 'keras_mdm' has no attribute {name!r}")


# Worker processes that read pictures have no need of Keras, which would cost each two
# seconds and 200 MB. (They have no `parent_process` yet while they run the main file.)
if multiprocessing.current_process().name == "MainProcess":
    from keras_mdm.public import *  # noqa: F403
