"""Opens a source of pictures or videos by name. Recipes, tools and users start here."""

from keras_mdm.data.paths import local_path
from keras_mdm.data.source import refuse_clip_choice
from keras_mdm.data.video_files import check_frame_rate, check_num_frames

_CLIPS = "clips:"
_FOLDER = "folder:"
_SHARDS = "webdataset:"


def open_source(name, split="train", data_dir=None, num_frames=None, frame_rate=None):
    """Opens a source of pictures or videos by name.

    Args:
        name: String, one of
            - `"shapes"` (the same as `"shapes/single"`), `"shapes/scenes"`,
              `"shapes/clips"`: generated pictures with captions, 64x64;
            - `"digits"`: scikit-learn's handwritten digits, 32x32, one channel;
            - `"folder:PATH"`: pictures on disk, with captions in `.txt` files or in a
              `metadata.csv`, `.tsv` or `.jsonl`, or with sub-folders as classes;
            - `"clips:PATH"`: videos on disk (mp4, webm, gif, mov, mkv, avi), with
              captions or classes as for pictures. Needs `pip install av`;
            - `"webdataset:PATH"`: tar shards of pictures and captions, as img2dataset
              writes them: a folder, a file, or a pattern such as `"cc12m/*.tar"`;
            - a TFDS set that has pictures or videos, such as `"cifar10"`.
        split: String. `"train"`, and what else the source has: `"test"` for
            digits; `"validation"`, `"test"` and `"all"` for folders, clips and shards;
            also `"validation"`, `"test"`, `"test_held_out"` for shapes.
        data_dir: Folder where TFDS keeps prepared sets. Defaults to that of TFDS
            (`~/tensorflow_datasets`). A set that is not there is downloaded, or
            generated, and prepared.
        num_frames: Int. Of each video, the first so many frames; shorter videos are
            skipped. Needed where videos differ in length. Defaults to all frames.
        frame_rate: Float. Of `"clips:PATH"`: frames a second, picked by their time
            stamps. Defaults to the frames of each file as they follow each other.

    Returns:
        A `Source`: `len(source)`, `source[index]` (a dict with `image` or `video`,
        and `label`, `caption`, `attributes` where it has them), and the
        attributes `name`, `channels`, `num_classes`, `class_names`,
        `has_captions`, `is_video`, `num_frames`, `skipped`.

    Raises:
        ValueError: If there is no such source or split, or it has pictures and
            `num_frames` or `frame_rate` is given.
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
    if data_dir is not None and "://" not in str(data_dir):
        data_dir = local_path(data_dir, "`data_dir`")
    if num_frames is not None:
        check_num_frames(num_frames)
    if frame_rate is not None:
        check_frame_rate(frame_rate)
    if name.startswith(_CLIPS):
        from keras_mdm.data.clips import Clips

        return Clips(name.removeprefix(_CLIPS), split, num_frames, frame_rate)
    if name == "digits" or name.startswith((_FOLDER, _SHARDS)):
        refuse_clip_choice(name, num_frames, frame_rate)
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

    name = "shapes/single" if name == "shapes" else name
    return TfdsSource(name, split, data_dir, num_frames, frame_rate)
