"""A T5 model of Hugging Face, reduced to what drawing needs."""

import shutil

from keras_mdm.conditioning import t5_files
from keras_mdm.conditioning.t5_model import encoder_names, read_config
from keras_mdm.files import check_free, whole_folder


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
    check_free(output, t5_files.is_reduced, overwrite)
    folder = t5_files.find_folder(folder)
    config = read_config(folder)
    files = t5_files.WeightFiles(folder)
    names = encoder_names(files.names)
    shapes = {name: list(files.read(name).shape) for name in names}
    with whole_folder(output, t5_files.is_reduced, overwrite) as target:
        kept = {**config, "architectures": [t5_files.REDUCED], "dtype": dtype}
        t5_files.write_json(target / t5_files.CONFIG, kept)
        shutil.copyfile(folder / t5_files.VOCABULARY, target / t5_files.VOCABULARY)

        def read(name):
            if progress is not None:
                progress(names.index(name) + 1, len(names))
            return files.read(name)

        t5_files.write_weights(target / t5_files.WEIGHTS, shapes, dtype, read)
