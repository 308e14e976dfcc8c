"""A T5 model of Hugging Face, reduced to what sampling needs."""

import json
import shutil

from keras_mdm.checksums import file_checksum, with_checksum
from keras_mdm.conditioning.t5_files import (
    CHECKSUMS,
    CONFIG,
    INDEX,
    VOCABULARY,
    WEIGHTS,
    encoder_weights,
    find_folder,
)
from keras_mdm.conditioning.t5_model import read_config
from keras_mdm.files import check_free, reserve, whole_folder, write_text
from keras_mdm.paths import member
from keras_mdm.text_files import read_json

# What the configuration of a folder without the decoder calls the model.
_REDUCED = "T5EncoderModel"


def keep_encoder(folder, output, dtype="bfloat16", overwrite=False, progress=None):
    """Writes the encoder of a T5 model as a folder of the same form.

    Args:
        folder: str or path. Folder with `config.json`, `spiece.model` and safetensors
            files, or `hf://user/repository`.
        output: str or path. Folder to write, for `T5Encoder.from_hugging_face`.
        dtype: str. `"float32"` or `"bfloat16"` (default).
        overwrite: bool. Whether the files of a folder that this function wrote are
            replaced.
        progress: Optional callable `(done, total)`, called after each tensor.

    Raises:
        ValueError: if files are missing or damaged, or the model is no T5.
        OSError: if writing fails; nothing is left then.
    """
    check_free(output, _is_reduced, overwrite)
    folder = find_folder(folder)
    config = {**read_config(folder), "architectures": [_REDUCED], "dtype": dtype}
    files = encoder_weights(folder)
    from safetensors.numpy import save_file

    with whole_folder(output, _is_reduced, overwrite) as target:
        tensors = {}
        for name, file in files.items():
            tensors[name] = file.get_tensor(name).astype(dtype)
            if progress is not None:
                progress(len(tensors), len(files))
        reserve(target, sum(array.nbytes + 1024 for array in tensors.values()))
        save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(member(folder, VOCABULARY), target / VOCABULARY)
        written = (WEIGHTS, VOCABULARY)
        config[CHECKSUMS] = {name: file_checksum(target / name) for name in written}
        write_text(target / CONFIG, json.dumps(with_checksum(config), indent=2) + "\n")


def _is_reduced(folder):
    """Whether a folder has the encoder alone, as `keep_encoder` writes it."""
    if (folder / INDEX).exists() or not (folder / WEIGHTS).is_file():
        return False
    try:
        return read_json(folder / CONFIG).get("architectures") == [_REDUCED]
    except (OSError, ValueError):
        return False
