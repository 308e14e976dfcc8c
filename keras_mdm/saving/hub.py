"""Presets that come from elsewhere: from a hub, or in the form of another code.

What had to be converted is kept in the folder `keras_mdm` of `XDG_CACHE_HOME`
(`~/.cache`), so that it is done once.
"""

import hashlib

from keras_mdm.downloads import cause_of
from keras_mdm.paths import cache_folder


def converted_preset(folder, reader):
    """The folder of the preset that one in a form of others stands for, converted once.

    `reader` is the module that reads the form; see `presets.register_reader`.
    """
    found = hashlib.sha256()
    for path in ((folder / name).resolve() for name in reader.FILES):
        state = path.stat()
        found.update(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
    target = cache_folder("presets") / f"converted-{found.hexdigest()[:16]}"
    if not target.is_dir():
        reader.to_preset(folder, target)
    return target


def published_preset(name, published, load):
    """The folder of a built-in preset with its published weights, downloaded once.

    Args:
        name: str. Name of the preset.
        published: dict. `weights` of the preset: the `repository` and the `url` of the
            file, and its `size`.
        load: Callable of a downloaded file that returns the model with its weights.

    Raises:
        ValueError: if it can't be downloaded; it says what to fetch from where.
    """
    target = cache_folder("presets") / name
    if target.is_dir():
        return target
    repository = published["repository"]
    file = published["url"].rpartition("/")[2]
    try:
        from huggingface_hub import hf_hub_download

        weights = hf_hub_download(repository, file)
    except Exception as error:  # of the network, the hub or the file system
        raise ValueError(
            f"the weights of preset '{name}' can't be downloaded. Fetch "
            f"'{file}' ({published['size']}) from {published['url']} or "
            f"https://huggingface.co/{repository}/resolve/main/{file} and "
            f"pass `weights='{file}'`; `load_weights=False` gives the "
            f"architecture with random weights. {cause_of(error)}"
        ) from error
    load(weights).save_to_preset(target)
    return target
