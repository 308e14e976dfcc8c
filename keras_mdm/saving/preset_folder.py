"""The folder of a preset: `config.json`, `metadata.json` and `model.weights.h5`.

The model without weights; the format and the version that wrote it; the network's
weights, averaged if the model keeps an average. Called by `presets` and `convert`.
"""

import datetime
import json
import math

import keras

from keras_mdm import backend
from keras_mdm.checksums import check_values, file_checksum, with_checksum
from keras_mdm.files import finish_replacement, reserve, whole_folder, write_text
from keras_mdm.paths import as_path, leads_out, member
from keras_mdm.saving.finite import check_finite
from keras_mdm.saving.serialized import renamed
from keras_mdm.text_files import printable, read_json, reason

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_FILE = "model.weights.h5"
FILES = (CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE)


def write_preset(path, config, network, averaged, overwrite=False):
    """Writes a serialized `MDM` and the weights of its network; see `save_to_preset`.

    `averaged` says whether these are a moving average.
    """
    check_finite(network.weights, path)
    metadata = {
        "format_version": FORMAT_VERSION,
        "keras_version": keras.__version__,
        "parameters": network.count_params(),
        "averaged": averaged,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with whole_folder(path, is_preset, overwrite) as folder:
        _write_json(folder / CONFIG_FILE, config)
        # Numbers, and what HDF5 writes about each array.
        sizes = [4 * math.prod(variable.shape) for variable in network.variables]
        reserve(folder, sum(sizes) + 4096 * len(sizes))
        with backend.whole_values(network.variables):
            network.save_weights(folder / WEIGHTS_FILE)
        if backend.process_number() == 0:
            files = (CONFIG_FILE, WEIGHTS_FILE)
            metadata["files"] = {n: file_checksum(folder / n) for n in files}
            _write_json(folder / METADATA_FILE, with_checksum(metadata))
    backend.wait_for_all()


def preset_in(path):
    """The preset folder that a path means: its own, or `preset` of a run folder."""
    folder = as_path(path)
    inside = folder / "preset"
    if inside.is_dir() and leads_out(inside, folder):
        raise ValueError(
            f"'{printable(inside)}' is a link out of its run. Name the folder that it "
            "leads to."
        )
    for found in (folder, inside):
        finish_replacement(found)
    return inside if (inside / CONFIG_FILE).is_file() else folder


def is_preset(folder):
    """Whether a folder is one that `save_to_preset` wrote."""
    try:
        config = read_part(folder, CONFIG_FILE)
        metadata = read_part(folder, METADATA_FILE)
    except (OSError, ValueError):
        return False
    return config.get("class_name") == "MDM" and "format_version" in metadata


def check_metadata(folder):
    """A preset's metadata, if it can be read; a warning says if it has no checksum."""
    metadata = read_part(folder, METADATA_FILE)
    version = metadata.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"preset '{folder}': {METADATA_FILE} has the format version {version!r}, "
            f"and this version of keras_mdm reads up to {FORMAT_VERSION}. Install a "
            "newer keras_mdm, or get the preset again."
        )
    check_values(metadata, folder / METADATA_FILE)
    return metadata


def read_config(folder, metadata):
    """The serialized `MDM` of a preset folder, with today's names."""
    config = read_part(folder, CONFIG_FILE)
    check_file(folder, CONFIG_FILE, metadata)
    if metadata["format_version"] == 1:
        config = {**config, "config": renamed(config["config"])}
    return config


def check_file(folder, name, metadata):
    """Compares a file of a preset with its checksum in the metadata, if it has one."""
    known = metadata.get("files")
    if known is not None and (
        not isinstance(known, dict)
        or known.get(name) != file_checksum(member(folder, name))
    ):
        raise ValueError(
            f"preset '{printable(folder)}': {name} is damaged; by the checksum in "
            f"{METADATA_FILE} it is not what was saved. Get it again, or, if you "
            f"changed it yourself, remove 'files' and 'checksum' from {METADATA_FILE}."
        )


def load_network(network, folder):
    """Loads a preset's weights, with an error that says which file is damaged."""
    try:
        network.load_weights(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the weights of preset '{folder}' can't be loaded: {WEIGHTS_FILE} is "
            f"damaged or does not belong to {CONFIG_FILE}. Cause: {reason(error)}"
        ) from error


def _write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_part(folder, name):
    """A JSON file of a preset folder as a dict, with an error that names it."""
    try:
        return read_json(member(folder, name))
    except ValueError as error:
        raise ValueError(
            f"preset '{printable(folder)}' is damaged: {name} can't be "
            f"read. Cause: {reason(error)}"
        ) from error
