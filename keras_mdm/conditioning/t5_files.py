"""The folder of a T5 model as Hugging Face keeps it.

`config.json` has the sizes, `spiece.model` the vocabulary, and safetensors files the
weights: one `model.safetensors`, or several with an index that names them.
"""

import re

from keras_mdm import text_files
from keras_mdm.checksums import (
    CHECKSUM,
    check_values,
    file_checksum,
    tell_unchecked,
)
from keras_mdm.downloads import download_repository
from keras_mdm.files import finish_replacement
from keras_mdm.paths import as_path, member

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
VOCABULARY = "spiece.model"
# In the configuration that `keep_encoder` writes; Hugging Face's own has none.
CHECKSUMS = "checksums"
_MAX_HEADER = 2**24  # Bytes about the tensors of a file, of which a model has a few MB.


def find_folder(folder):
    """The folder that a path or `hf://user/repository` means."""
    if str(folder).startswith("hf://"):
        files = [CONFIG, VOCABULARY, "model*.safetensors*"]
        return download_repository(str(folder), files)
    path = as_path(folder)
    if not path.is_dir():
        raise ValueError(
            f"`folder` must be a folder or 'hf://user/repository'. "
            f"Received: folder={str(folder)!r}"
        )
    finish_replacement(path)
    return path


def read_json(path):
    """A JSON file as a dict."""
    try:
        value = text_files.read_json(member(path.parent, path.name))
    except FileNotFoundError as error:
        raise ValueError(
            f"'{path}' is missing: the folder must be a T5 model as Hugging Face keeps "
            f"it, with '{CONFIG}', '{VOCABULARY}' and safetensors files."
        ) from error
    if {CHECKSUM, CHECKSUMS} & value.keys():
        check_values(value, path)
        files = value.pop(CHECKSUMS, None)
        if not isinstance(files, dict):
            raise ValueError(f"'{path}' is damaged: it has no '{CHECKSUMS}' of files.")
        for name, known in files.items():
            if file_checksum(member(path.parent, name)) != known:
                raise ValueError(
                    f"'{path.parent / name}' is damaged: its checksum is not that in "
                    f"{CONFIG}. Run tools/convert_t5.py again."
                )
    elif path.name == CONFIG:
        tell_unchecked(path, "what tools/convert_t5.py writes has one")
    return value


def encoder_weights(folder):
    """The opened safetensors file of each tensor that the encoder needs.

    Args:
        folder: Path.

    Returns:
        dict, sorted by names. `files[name].get_tensor(name)` reads a tensor.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        names = _indexed(folder / INDEX)
    opened = [_open(member(folder, name)) for name in names]
    found = {name: file for file in opened for name in file.keys()}
    return {
        name: found[name]
        for name in sorted(found)
        if name == "shared.weight" or re.match("encoder[.]", name)
    }


def _indexed(path):
    """Sorted names of the files that an index has: names alone, without a folder."""
    files = read_json(path).get("weight_map")
    names = list(files.values()) if isinstance(files, dict) else [None]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError(
                f"'{path}' must map each weight to the name of a file beside it. "
                f"Received: {str(name)[:80]!r}"
            )
    return sorted(set(names))


def _open(path):
    try:
        import safetensors
    except ImportError as error:
        raise ImportError('T5 needs `pip install "keras-mdm[text]"`.') from error
    if not path.is_file():
        raise ValueError(
            f"'{path}' is missing. The weights must be safetensors files: if the model "
            "has only 'pytorch_model.bin', save it again with "
            "`save_pretrained(folder, safe_serialization=True)`."
        )
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _MAX_HEADER:
        raise ValueError(
            f"'{path}' is damaged: its header has {size} bytes, more than "
            f"{_MAX_HEADER}."
        )
    try:
        return safetensors.safe_open(path, "numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"'{path}' is damaged: {text_files.reason(error)}") from error
