"""Opens a source of pictures or videos by name. Recipes, tools and users start here."""

import inspect
import pkgutil

from keras_mdm.data.limits import LIMITS, Limits
from keras_mdm.data.source import refuse_frames
from keras_mdm.data.transforms import check_positive
from keras_mdm.data.video_files import check_frame_rate
from keras_mdm.paths import local_path

# What opens `"KIND:PATH"` or `"KIND"`: a callable, or where one is found when needed.
_OPENERS = {
    "clips": "keras_mdm.data.folders:Clips",
    "digits": "keras_mdm.data.digits:Digits",
    "folder": "keras_mdm.data.folders:Folder",
    "hf": "keras_mdm.data.hugging_face:HuggingFace",
    "tfds": "keras_mdm.data.tfds_source:TfdsSource",
    "webdataset": "keras_mdm.data.webdataset:WebDataset",
}
_PACKAGES = {
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets importlib_resources filelock",
}


def register_source(kind, opener=None):
    """Makes `open_source("kind:PATH")` open a source of one's own.

    Args:
        kind: String without a colon. One that is there already is replaced.
        opener: Callable `(path, split="train")` that returns a `Source`, such as a
            sub-class of it. `path` is what stands behind the colon, or empty. It may
            also take `data_dir`, `num_frames`, `frame_rate` and `limits`, see
            `open_source`. If left out, this is a decorator.

    Returns:
        The opener.

    Raises:
        ValueError: If `kind` is empty or has a colon.

    Example:

    ```python
    @keras_mdm.data.register_source("zip")
    class Zip(keras_mdm.data.Source):
        def __init__(self, path, split="train"):
            ...

    source = keras_mdm.data.open_source("zip:pictures.zip")
    ```
    """
    if not isinstance(kind, str) or not kind or ":" in kind:
        raise ValueError(
            "`kind` must be a non-empty string without a colon, such as 'zip'. "
            f"Received: kind={kind!r}"
        )
    if opener is None:
        return lambda opener: register_source(kind, opener)
    _OPENERS[kind] = opener
    return opener


def open_source(
    name,
    split="train",
    data_dir=None,
    num_frames=None,
    frame_rate=None,
    limits=LIMITS,
):
    """Opens a source of pictures or videos by name.

    Args:
        name: String, one of
            - `"shapes"` (the same as `"shapes/single"`), `"shapes/scenes"`,
              `"shapes/clips"`: generated pictures with captions, 64x64;
            - `"digits"`: scikit-learn's handwritten digits, 32x32, one channel;
            - `"folder:PATH"`: pictures on disk, with captions in `.txt` files or in a
              `metadata.csv`, `.tsv` or `.jsonl`, or with sub-folders as classes. Links
              out of the folder are skipped; `"folder:PATH?links=1"` follows them;
            - `"clips:PATH"`: videos on disk (mp4, webm, gif, mov, mkv, avi), with
              captions, classes and links as for pictures. Needs `pip install av`;
            - `"webdataset:PATH"`: tar shards of pictures and captions, as img2dataset
              writes them: a folder, a file, or a pattern such as `"cc12m/*.tar"`;
            - `"hf:NAME"` or `"hf:PATH"`: a Hugging Face data set, from its hub or a
              folder, see `keras_mdm.data.hugging_face`. Needs `pip install datasets`;
            - a TFDS set that has pictures or videos, such as `"cifar10"`, or
              `"tfds:cifar10"`;
            - what `register_source` made known.
        split: String. `"train"`, and what else the source has: `"test"` for
            digits; `"validation"`, `"test"` and `"all"` for folders, clips and shards;
            also `"validation"`, `"test"`, `"test_held_out"` for shapes.
        data_dir: Folder where TFDS keeps prepared sets. Defaults to that of TFDS
            (`~/tensorflow_datasets`). A set that is not there is downloaded, or
            generated, and prepared. Other sources do without.
        num_frames: Int. Of each video, the first so many frames; shorter videos are
            skipped. Needed where videos differ in length. Defaults to all frames.
        frame_rate: Float. Of `"clips:PATH"`: frames a second, picked by their time
            stamps. Defaults to the frames of each file as they follow each other.
        limits: `Limits` of what is read of files: pixels, frames, lengths of captions.
            Defaults to those that no honest file meets. The sources that are generated
            here do without.

    Returns:
        A `Source`.

    Raises:
        ValueError: If there is no such source or split, or it has pictures and
            `num_frames` or `frame_rate` is passed.
        FileNotFoundError: If the folder does not exist.
        ImportError: If a library that reads it is not installed.

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
    if not isinstance(split, str):
        raise ValueError(f"`split` must be a string. Received: split={split!r}")
    if data_dir is not None and "://" not in str(data_dir):
        data_dir = local_path(data_dir, "`data_dir`")
    if num_frames is not None:
        num_frames = check_positive("num_frames", num_frames)
    if frame_rate is not None:
        check_frame_rate(frame_rate)
    if not isinstance(limits, Limits):
        raise ValueError(
            "`limits` must be a `keras_mdm.data.Limits`, such as "
            f"Limits(picture_pixels=2**24). Received: limits={limits!r}"
        )
    kind, _, path = name.partition(":")
    if kind not in _OPENERS:
        kind, path = "tfds", name
    options = {
        "data_dir": data_dir,
        "num_frames": num_frames,
        "frame_rate": frame_rate,
        "limits": limits,
    }
    try:
        opener = _OPENERS[kind]
        if isinstance(opener, str):
            opener = pkgutil.resolve_name(opener)
        accepted = inspect.signature(opener).parameters
        if not {"num_frames", "frame_rate"} & set(accepted):
            refuse_frames(name, num_frames, frame_rate)
        options = {key: value for key, value in options.items() if key in accepted}
        return opener(path, split=split, **options)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name, error.name)
        raise ImportError(
            f"The source {name!r} needs {error.name}, which is not installed. "
            f"Run `pip install {package}`."
        ) from error
