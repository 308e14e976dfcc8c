"""Presets that come from elsewhere: from a hub, or in the form of the official code.

What had to be converted is kept in the folder `keras_mdm` of `XDG_CACHE_HOME`
(`~/.cache`), so that it is done once.
"""

import hashlib
import os
import pathlib

OFFICIAL_CONFIG = "config.yaml"
OFFICIAL_WEIGHTS = "vis_model.pth"
# Repositories may hold samples and other formats, which are not needed.
_PRESET_FILES = (
    "config.json",
    "metadata.json",
    "model.weights.h5",
    OFFICIAL_CONFIG,
    OFFICIAL_WEIGHTS,
)


def cache_folder():
    """Where converted presets are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "keras_mdm" / "presets"


def is_official(folder):
    """Whether a folder has the form of the official implementation."""
    return all((folder / n).is_file() for n in (OFFICIAL_CONFIG, OFFICIAL_WEIGHTS))


def download_repository(repository):
    """Downloads what a preset needs of a Hugging Face repository.

    Args:
        repository: str. `"user/name"`.

    Returns:
        Path of a folder.

    Raises:
        ValueError: if it can't be downloaded.
    """
    try:
        from huggingface_hub import snapshot_download

        return pathlib.Path(
            snapshot_download(repository, allow_patterns=list(_PRESET_FILES))
        )
    except Exception as error:  # of the network, the hub or the file system
        raise ValueError(
            f"'hf://{repository}' can't be downloaded. Fetch the files of "
            f"https://huggingface.co/{repository}/tree/main into a folder and pass the "
            f"folder instead. {_cause(error)}"
        ) from error


def converted_preset(folder):
    """The preset that a folder in the official form stands for, converted once.

    Args:
        folder: Path with `config.yaml` and `vis_model.pth`.

    Returns:
        Path of a preset folder in the cache.
    """
    from keras_mdm.convert.convert import convert_checkpoint

    weights = folder.resolve() / OFFICIAL_WEIGHTS
    config = folder / OFFICIAL_CONFIG
    state = weights.stat()
    key = f"{weights.resolve()} {state.st_size} {state.st_mtime_ns}".encode()
    digest = hashlib.sha256(key + config.read_bytes()).hexdigest()[:16]
    target = cache_folder() / f"converted-{digest}"
    if not target.is_dir():
        convert_checkpoint(weights, config, target)
    return target


def released_preset(name, published):
    """The published weights of a built-in preset, downloaded and converted once.

    Args:
        name: str. Name of the preset.
        published: dict. `weights` of the preset: the `repository` and the `url` of the
            file, its `size`, and the released `configuration` it belongs to.

    Returns:
        Path of a preset folder in the cache.

    Raises:
        ValueError: if it can't be downloaded; it says what to fetch from where.
    """
    from keras_mdm.convert.convert import convert_checkpoint
    from keras_mdm.convert.released import RELEASED

    target = cache_folder() / name
    if target.is_dir():
        return target
    repository = published["repository"]
    try:
        from huggingface_hub import hf_hub_download

        weights = hf_hub_download(repository, OFFICIAL_WEIGHTS)
    except Exception as error:  # of the network, the hub or the file system
        raise ValueError(
            f"the weights of preset '{name}' can't be downloaded. Fetch "
            f"'{OFFICIAL_WEIGHTS}' ({published['size']}) from {published['url']} or "
            f"https://huggingface.co/{repository}/resolve/main/{OFFICIAL_WEIGHTS} and "
            f"pass `weights='{OFFICIAL_WEIGHTS}'`; `load_weights=False` gives the "
            f"architecture with random weights. {_cause(error)}"
        ) from error
    convert_checkpoint(weights, RELEASED[published["configuration"]], target)
    return target


def load_official(network, path):
    """Puts the weights of an official checkpoint file into a network."""
    from keras_mdm.convert.checkpoint import Checkpoint
    from keras_mdm.convert.ml_mdm import assign_weights

    with Checkpoint(path) as weights:
        assign_weights(network, weights)


def _cause(error):
    if isinstance(error, ImportError):
        return 'Downloads need `pip install "keras-mdm[hub]"`.'
    return f"Cause: {type(error).__name__}: {error}"
