"""Weights of one model for another: those of the largest network that both have.

Bound to `MDM` as `load_weights`.
"""

import keras

from keras_mdm.backend import serialize, sublayers
from keras_mdm.layers import TemporalAttention
from keras_mdm.networks import InflatedUNet
from keras_mdm.paths import as_path
from keras_mdm.saving import presets
from keras_mdm.saving.serialized import architecture
from keras_mdm.saving.weights_file import check_weights_files

# Options of networks of clips, beside those of the pictures that their frames are.
_OF_CLIPS = ("frames", "num_temporal_attention_layers", "rotary_positions")


def load_weights(self, filepath, skip_mismatch=False, **kwargs):
    """Loads weights: of this model, or of a preset that shares a network with it.

    Args:
        filepath: str or path. A `.weights.h5` file that `save_weights` wrote, or a
            preset as `from_preset` takes it. Of a preset, the largest network that this
            model has too gives its weights, and so do all inside it, the whole network
            or a part of it. A network of clips takes those of the pictures that its
            frames are, and draws these until it has learned motion: `"mdm_shapes_64"`
            can begin `"mdm_shapes_32v"`. The other networks keep theirs.
        skip_mismatch: bool. As in `keras.Model.load_weights`; not for presets.
        **kwargs: As in `keras.Model.load_weights`.

    Raises:
        ValueError: if the preset has no weights, or no network of this model.
    """
    if not _is_preset(filepath):
        filepath = as_path(filepath)
        check_weights_files(filepath)
        keras.Model.load_weights(self, filepath, skip_mismatch=skip_mismatch, **kwargs)
        for average in self.all_averages():
            average.note()
        return None
    if not presets.has_weights(filepath):
        raise ValueError(
            f"no trained weights are published for preset '{filepath}': there is "
            "nothing to load."
        )
    other = type(self).from_preset(filepath, ema_momentum=None).network
    for mine in self.network.networks:
        for theirs in other.networks:
            pairs = _pair(mine, theirs)
            if pairs:
                for pair in pairs:
                    _copy(*pair)
                variables = [v for network, _ in pairs for v in network.variables]
                for average in self.all_averages():
                    average.reset(variables)
                return None
    raise ValueError(
        f"the network saved in '{filepath}', whose resolutions are "
        f"{other.levels}, has none of the networks of this model, whose resolutions "
        f"are {self.network.levels}: their classes or their options differ. Build "
        "both from the same options."
    )


def _is_preset(filepath):
    name = str(filepath)
    return (
        name in presets.builtin_presets()
        or name.startswith("hf://")
        or as_path(name).is_dir()
    )


def _pair(mine, theirs):
    """Pairs of networks, outermost first, if the weights of `theirs` fit `mine`.

    Returns:
        List of (network of this model, one of the other); `None` if they do not fit.
    """
    of_pictures = theirs.frames == 1
    if isinstance(mine, InflatedUNet) and of_pictures:
        return _pair(mine.inner, theirs)
    if _options(mine, of_pictures) != _options(theirs, of_pictures):
        return None
    if len(mine.networks) == 1:
        return [(mine, theirs)]
    inside = _pair(mine.inner, theirs.inner)
    return inside and [(mine, theirs), *inside]


def _options(network, of_pictures):
    """What must agree, but for the networks inside."""
    serialized = architecture(serialize(network))
    left_out = ("inner", *(_OF_CLIPS if of_pictures else ()))
    options = {k: v for k, v in serialized["config"].items() if k not in left_out}
    return {**serialized, "config": options}


def _copy(mine, theirs):
    of_pictures = theirs.frames == 1
    for source, target in zip(
        _own_variables(theirs, of_pictures),
        _own_variables(mine, of_pictures),
        strict=True,
    ):
        target.assign(source.value)


def _own_variables(network, of_pictures):
    """Variables of a network alone; without attention over frames if `of_pictures`."""
    temporal = {
        id(variable)
        for layer in network.own_layers
        for part in sublayers(layer, recursive=True)
        if of_pictures and isinstance(part, TemporalAttention)
        for variable in part.variables
    }
    return [v for v in network.own_variables if id(v) not in temporal]
