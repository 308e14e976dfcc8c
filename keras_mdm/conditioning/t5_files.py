"""The folder of a T5 model as Hugging Face keeps it, without its libraries.

`config.json` has the sizes, `spiece.model` the vocabulary, and safetensors files the
weights: one `model.safetensors`, or several with an index that says where each tensor
is. Such a file is the length of a JSON header, the header, and raw numbers.
"""

import json
import pathlib

import ml_dtypes
import numpy as np

from keras_mdm import text_files
from keras_mdm.files import as_path, finish_replacement

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
VOCABULARY = "spiece.model"
# What the configuration of a folder without the decoder calls the model.
REDUCED = "T5EncoderModel"

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": ml_dtypes.bfloat16,
}


class WeightFiles:
    """Tensors of a folder by name, each read when it is asked for.

    Args:
        folder: str or path.

    Raises:
        ValueError: if a file is missing or damaged.
    """

    def __init__(self, folder):
        folder = as_path(folder)
        if (folder / INDEX).is_file():
            names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
        else:
            names = [WEIGHTS]
        self._places = {}
        for name in names:
            self._places.update(_header(folder / name))

    @property
    def names(self):
        """Names of all tensors."""
        return self._places.keys()

    def read(self, name):
        """Returns a tensor as an array that lies in the file."""
        path, dtype, shape, start = self._places[name]
        return np.memmap(path, dtype, "r", start, tuple(shape))


def _header(path):
    """Yields (name, (path, dtype, shape, start in the file)) of every tensor."""
    if not path.is_file():
        raise ValueError(
            f"'{path}' is missing. The weights must be safetensors files: if the model "
            "has only 'pytorch_model.bin', save it again with "
            "`save_pretrained(folder, safe_serialization=True)`."
        )
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length + 8 > size:
            raise ValueError(f"'{path}' is damaged: its header is cut off.")
        try:
            header = json.loads(file.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"'{path}' is damaged: its header is not JSON. Cause: {error}"
            ) from error
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(
                f"'{path}': '{name}' has the dtype {entry['dtype']}, which is not one "
                f"of {sorted(_DTYPES)}."
            )
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        start, end = entry["data_offsets"]
        wanted = int(np.prod(entry["shape"], dtype="int64")) * dtype.itemsize
        if end - start != wanted or 8 + length + end > size:
            raise ValueError(f"'{path}' is damaged: '{name}' is cut off.")
        yield name, (path, dtype, entry["shape"], 8 + length + start)


def write_weights(path, shapes, dtype, read):
    """Writes a safetensors file, one tensor after the other.

    Args:
        path: str or path.
        shapes: dict of name to shape.
        dtype: str. `"float32"` or `"bfloat16"`.
        read: Callable of a name that returns its array.
    """
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    short = next(key for key, value in _DTYPES.items() if np.dtype(value) == dtype)
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = start + int(np.prod(shape, dtype="int64")) * dtype.itemsize
        header[name] = {"dtype": short, "shape": shape, "data_offsets": [start, end]}
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in shapes:
            file.write(np.asarray(read(name)).astype(dtype).tobytes())


def read_json(path):
    """A JSON file as a dict."""
    try:
        value = text_files.read_json(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"'{path}' is missing: the folder must be a T5 model as Hugging Face keeps "
            f"it, with '{CONFIG}', '{VOCABULARY}' and safetensors files."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' is no JSON object. Received: {str(value)[:80]}")
    return value


def write_json(path, value):
    """Writes a dict as a JSON file."""
    pathlib.Path(path).write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def is_reduced(folder):
    """Whether a folder has the encoder alone, as `tools/convert_t5.py` writes it."""
    files = (CONFIG, WEIGHTS, VOCABULARY)
    if (folder / INDEX).exists() or not all((folder / f).is_file() for f in files):
        return False
    try:
        config = text_files.read_json(folder / CONFIG)
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("architectures") == [REDUCED]


def find_folder(folder):
    """The folder that a path or `hf://user/repository` means."""
    name = str(folder)
    if not name.startswith("hf://"):
        path = as_path(name)
        if not path.is_dir():
            raise ValueError(
                f"`folder` must be a folder or 'hf://user/repository'. "
                f"Received: folder={name!r}"
            )
        finish_replacement(path)
        return path
    repository = name.removeprefix("hf://")
    patterns = [CONFIG, VOCABULARY, "model*.safetensors*"]
    try:
        from huggingface_hub import snapshot_download

        return pathlib.Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # of the network, the hub or the file system
        raise ValueError(
            f"'{name}' can't be downloaded. Fetch {patterns} of "
            f"https://huggingface.co/{repository}/tree/main into a folder and pass the "
            f"folder instead. Cause: {type(error).__name__}: {error}"
        ) from error
