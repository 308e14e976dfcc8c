"""Weights of one model for another: those of the largest doll that both have.

Bound to `MDM` as `load_weights`.
"""

import pathlib

import keras

from keras_mdm.model import presets
from keras_mdm.model.serialized import architecture
from keras_mdm.networks.base import serialize


def load_weights(self, filepath, skip_mismatch=False, **kwargs):
    """Loads weights: of this model, or of a preset that shares a doll with it.

    Args:
        filepath: str or path. A `.weights.h5` file that `save_weights` wrote, or a
            preset as `from_preset` takes it. Of a preset, the largest doll that this
            model has too gives its weights, the whole network or a part of it: the
            pictures of `"mdm_shapes_64"` can begin a model of clips. The other dolls
            keep theirs.
        skip_mismatch: bool. As in `keras.Model.load_weights`; not for presets.
        **kwargs: As in `keras.Model.load_weights`.

    Raises:
        ValueError: if the preset has no weights, or no doll of this model.
    """
    if not _is_preset(filepath):
        return keras.Model.load_weights(
            self, filepath, skip_mismatch=skip_mismatch, **kwargs
        )
    if not presets.has_weights(filepath):
        raise ValueError(
            f"no trained weights are published for preset '{filepath}': there is "
            "nothing to load."
        )
    other = type(self).from_preset(filepath, ema_momentum=None).network
    theirs = [(doll, architecture(serialize(doll))) for doll in other.dolls]
    for doll in self.network.dolls:
        mine = architecture(serialize(doll))
        for candidate, its in theirs:
            if mine == its:
                _copy(candidate, doll)
                self.reset_ema()
                return None
    raise ValueError(
        f"the network saved in '{filepath}', whose resolutions are "
        f"{other.resolutions}, has none of the dolls of this model, whose resolutions "
        f"are {self.network.resolutions}: their classes or their options differ. Build "
        "both from the same options."
    )


def _is_preset(filepath):
    name = str(filepath)
    return (
        name in presets.builtin_presets()
        or name.startswith("hf://")
        or pathlib.Path(name).is_dir()
    )


def _copy(source, target):
    for theirs, mine in zip(source.variables, target.variables, strict=True):
        mine.assign(theirs.value)
