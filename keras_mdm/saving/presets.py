"""Presets: named architectures, and models saved as folders.

Built-in presets are configurations that load without a network, some with the address
of published weights. Bound to `MDM` as `save_to_preset` and `from_preset`;
`transfer.py` loads weights of other models.
"""

import contextlib
import importlib
import importlib.resources
import json
import os
import warnings

import keras

from keras_mdm.backend import check_classes, serialize
from keras_mdm.checks import check_flags
from keras_mdm.downloads import download_repository
from keras_mdm.files import check_free
from keras_mdm.paths import as_path, member
from keras_mdm.saving import hub, preset_folder
from keras_mdm.saving.bundled import bundled_weights, read_bundled_weights
from keras_mdm.saving.limits import check_nest, no_larger_than
from keras_mdm.saving.serialized import change_network, deserialized, set_dtype

_told = set()
_readers = []


def register_reader(module):
    """Lets `from_preset` read a form of others, by a module that is imported at need.

    Args:
        module: str. Name of a module with `FILES` (names in a folder of the form),
            `reads(path)` (whether a folder or file is one), `to_preset(folder, output)`
            (writes a preset folder) and `load_weights(network, path)` (of a file).
    """
    if module not in _readers:
        _readers.append(module)


def _readers_of(path):
    return [r for r in map(importlib.import_module, _readers) if r.reads(as_path(path))]


def builtin_presets():
    """Built-in presets by name.

    Returns:
        dict of name to dict with `description` and `config`.
    """
    folder = importlib.resources.files("keras_mdm") / "presets"
    return {
        entry.name.removesuffix(".json"): json.loads(entry.read_text("utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".json")
    }


def save_to_preset(self, path, use_ema=True, overwrite=False):
    """Saves the model as a preset folder that `from_preset` loads on any backend.

    Whenever the program is stopped, the preset is the old or the new one, whole.

    Args:
        path: str or path. Folder to write.
        use_ema: bool. Whether the averaged weights are saved. Defaults to `True`.
        overwrite: bool. Whether the files of an existing preset may be replaced. Other
            files in its folder stay.

    Raises:
        ValueError: if `path` exists and may not be replaced, or if a weight is NaN or
            infinite.
    """
    check_flags(use_ema=use_ema, overwrite=overwrite)
    check_free(path, preset_folder.is_preset, overwrite)
    config = serialize(self)
    # Averages of this training, which the files do not hold.
    del config["config"]["power_averages"]
    averaged = use_ema and self.ema is not None
    if averaged:
        self.ema.follow()
    with self.ema.in_place() if averaged else contextlib.nullcontext():
        preset_folder.write_preset(path, config, self.network, averaged, overwrite)


def from_preset(
    cls,
    preset,
    load_weights=True,
    dtype=None,
    num_classes=None,
    image_channels=None,
    conditioner=None,
    weights=None,
    remat=None,
    **overrides,
):
    """Builds a model from a built-in preset, a folder or a hub repository.

    Args:
        preset: str or path. A built-in name (see `MDM.builtin_presets()`), a folder
            that `save_to_preset` wrote (or a run folder of a recipe, which has one),
            or `hf://user/repository`. A folder or repository may also have the form of
            another implementation; see `keras_mdm.convert`.
        load_weights: bool. Whether weights are loaded, if the preset has any.
            Published ones are downloaded at their first use. A built-in preset without
            published weights says so once. Defaults to `True`.
        dtype: Dtype policy of the network, such as `"mixed_bfloat16"`. Defaults to
            the global policy.
        num_classes: int or `None`. Replaces the number of classes of a
            class-conditional preset without weights; 0 makes it unconditional.
        image_channels: int or `None`. Replaces the number of channels of a preset
            without weights.
        conditioner: Optional layer of `keras_mdm.conditioning` that replaces that of a
            preset without weights.
        weights: str or path. Checkpoint file of another implementation, such as
            `"vis_model.pth"`, whose weights are taken instead of the preset's.
            Defaults to `None`.
        remat: bool or sequence of levels, such as `["16x256"]`. The networks whose
            activations are computed again in the backward pass, which saves memory;
            see `NestedUNet.set_remat`. Defaults to `None`: as the preset says.
        **overrides: Arguments of the constructor that replace the preset's, such as
            `ema_momentum=None`.

    Returns:
        An `MDM`.

    Raises:
        ValueError: if the preset is unknown, damaged, or written by a newer version;
            if its weights can't be downloaded, or `weights` do not fit it.

    Example:

    ```python
    mdm = keras_mdm.MDM.from_preset("mdm_s256")
    mdm = keras_mdm.MDM.from_preset("runs/shapes/preset")
    mdm = keras_mdm.MDM.from_preset("mdm_flickr_64", weights="vis_model.pth")
    ```
    """
    check_flags(load_weights=load_weights)
    name = str(preset)
    builtin = builtin_presets().get(name)
    folder = bundled = metadata = None
    if builtin is None:
        folder = _find_folder(name)
    elif load_weights and weights is None:
        folder, bundled = _weights_of(cls, name, builtin.get("weights"))
    if folder is not None:
        metadata = preset_folder.check_metadata(folder)
    if builtin is None:
        config = preset_folder.read_config(folder, metadata)
    else:
        config = builtin["config"]
    if config.get("class_name") != "MDM":
        raise ValueError(
            f"preset '{name}' holds a {config.get('class_name')!r}, not an 'MDM'."
        )
    check_nest(config, name)
    check_classes(config)
    config["config"].update(overrides)
    network = config["config"]["network"]
    changes = {
        "num_classes": num_classes,
        "image_channels": image_channels,
        "conditioner": conditioner,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes and any(given is not None for given in (folder, bundled, weights)):
        raise ValueError(
            f"{sorted(changes)} can't be changed in a preset with weights; of a "
            "built-in one take the architecture alone, with `load_weights=False`. "
            f"Received: {changes}, preset={name!r}"
        )
    change_network(network, **changes)
    set_dtype(network, keras.config.dtype_policy().name if dtype is None else dtype)
    limit = contextlib.nullcontext()
    if folder is not None:
        path = member(folder, preset_folder.WEIGHTS_FILE)
        if load_weights:
            preset_folder.check_file(folder, path.name, metadata)
        limit = no_larger_than(path, config, load_weights and weights is None)
    with limit:
        mdm = deserialized(config, cls, f"preset '{name}'")
    if remat is not None:
        mdm.network.set_remat(remat)
    if weights is not None:
        _read_foreign(mdm.network, weights)
    elif folder is not None and load_weights:
        preset_folder.load_network(mdm.network, folder)
    elif bundled is not None:
        read_bundled_weights(mdm.network, bundled)
    else:
        return mdm
    mdm.reset_ema()
    return mdm


def _weights_of(cls, name, published):
    """The preset folder of a built-in preset's published weights, and the file of those
    that come with the package; each `None` if there are none."""
    bundled = bundled_weights(name)
    if published is not None:
        folder = hub.published_preset(
            name,
            published,
            lambda file: from_preset(
                cls, name, dtype="float32", weights=file, ema_momentum=None
            ),
        )
        return folder, bundled
    if bundled is None and name not in _told:
        _told.add(name)
        warnings.warn(
            f"No trained weights are published for preset '{name}': the network "
            "starts from random weights. Train it with `mdm.compile(...)` and "
            "`mdm.fit(...)`, or with "
            f"`python recipes/train_image.py --preset {name}`.",
            stacklevel=3,
        )
    return None, bundled


def has_weights(preset):
    """Whether a preset has weights to load; a folder or an address always has."""
    builtin = builtin_presets().get(str(preset))
    return (
        builtin is None
        or bundled_weights(str(preset)) is not None
        or builtin.get("weights") is not None
    )


def _find_folder(name):
    """The preset folder that a path or a hub address means."""
    if name.startswith("hf://"):
        # Repositories may hold samples and other forms, which are not needed.
        files = [*preset_folder.FILES]
        for reader in map(importlib.import_module, _readers):
            files += reader.FILES
        folder = preset_folder.preset_in(download_repository(name, files))
    else:
        folder = preset_folder.preset_in(name)
    if not folder.is_dir():
        raise ValueError(
            f"Unknown preset '{name}'. It must be a folder, an address 'hf://user/"
            f"repository', or one of the built-in presets {sorted(builtin_presets())}."
        )
    if not (folder / preset_folder.CONFIG_FILE).is_file():
        for reader in _readers_of(folder):
            return hub.converted_preset(folder, reader)
    missing = [file for file in preset_folder.FILES if not (folder / file).is_file()]
    if missing:
        raise ValueError(
            f"'{folder}' is not a whole preset: it lacks {missing}. "
            f"It has: {sorted(entry.name for entry in folder.iterdir())}"
        )
    return folder


def _read_foreign(network, path):
    """Loads a file of weights in a form of others."""
    readers = isinstance(path, str | os.PathLike) and _readers_of(path)
    if not readers:
        raise ValueError(
            "`weights` must be a file of weights that exists. "
            f"Received: weights={str(path)!r}"
        )
    readers[0].load_weights(network, path)
