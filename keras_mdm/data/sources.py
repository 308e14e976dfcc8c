"""Opens a source of pictures by name. Recipes, tools and users start here."""

_FOLDER = "folder:"
_SHARDS = "webdataset:"


def open_source(name, split="train", data_dir=None):
    """Opens a source of pictures by name.

    Args:
        name: String, one of
            - `"shapes"` (the same as `"shapes/single"`), `"shapes/scenes"`,
              `"shapes/clips"`: generated pictures with captions, 64x64;
            - `"digits"`: scikit-learn's handwritten digits, 32x32, one channel;
            - `"folder:PATH"`: pictures on disk, with captions in `.txt` files or in a
              `metadata.csv` or `.jsonl`, or with sub-folders as classes;
            - `"webdataset:PATH"`: tar shards of pictures and captions, as img2dataset
              writes them: a folder, a file, or a pattern such as `"cc12m/*.tar"`;
            - a TFDS set that has pictures, such as `"cifar10"`.
        split: String. `"train"`, and what else the source has: `"test"` for
            digits; `"validation"`, `"test"` and `"all"` for folders and shards; also
            `"validation"`, `"test"`, `"test_held_out"` for shapes.
        data_dir: Folder where TFDS keeps prepared sets. Defaults to that of TFDS
            (`~/tensorflow_datasets`). A set that is not there is downloaded, or
            generated, and prepared.

    Returns:
        A `Source`: `len(source)`, `source[index]` (a dict with `image` or `video`,
        and `label`, `caption`, `attributes` where it has them), and the
        attributes `name`, `channels`, `num_classes`, `class_names`,
        `has_captions`, `is_video`, `skipped`.

    Raises:
        ValueError: If there is no such source or split.
        FileNotFoundError: If the folder does not exist.

    Example:

    ```python
    source = keras_mdm.data.open_source("shapes")
    source[0]["caption"]  # "a yellow triangle at the top right on a white ..."
    ```
    """
    if not isinstance(name, str) or not name:
        raise ValueError(
            "`name` must be a non-empty string, such as 'shapes', 'digits', "
            f"'folder:PATH' or the name of a TFDS set. Received: name={name!r}"
        )
    if name == "digits":
        from keras_mdm.data.digits import Digits

        return Digits(split)
    if name.startswith(_FOLDER):
        from keras_mdm.data.folders import Folder

        return Folder(name.removeprefix(_FOLDER), split)
    if name.startswith(_SHARDS):
        from keras_mdm.data.webdataset import WebDataset

        return WebDataset(name.removeprefix(_SHARDS), split)
    from keras_mdm.data.tfds_source import TfdsSource

    return TfdsSource("shapes/single" if name == "shapes" else name, split, data_dir)
