"""Any TFDS set with pictures or clips as a source, read from array_record files.

`open_source` opens sets through here, the generated `shapes` among them. Reading
never imports TensorFlow. Preparing a foreign set may need it; on other backends
that runs in a child process, so that TensorFlow never takes the accelerator.
(TFDS itself imports it for a few features, such as `Video`.)
"""

import contextlib
import difflib
import itertools
import subprocess
import sys

import keras
import numpy as np

from keras_mdm.data.source import Source, UnusablePicture, refuse_clip_choice

_CAPTIONS = ("caption", "captions", "text", "description")


class TfdsSource(Source):
    """A split of a TFDS set.

    The picture is the feature `image` (or the only picture or clip there is), the
    label the feature `label` (or the only class label), the caption the text
    feature `caption`, `captions` (of several, a batch has one at random), `text` or
    `description`.

    Args:
        name: String. TFDS name, with configuration and version if wanted.
        split: String. TFDS split, such as `"train"` or `"train[:10%]"`.
        data_dir: Folder of prepared sets. Defaults to that of TFDS.
        num_frames: Int. Of each video, the first so many frames. Defaults to all.
        frame_rate: Must be `None`: TFDS sets do not tell that of their videos, so
            frames can't be picked by time.

    Raises:
        ValueError: If there is no such set, it has no pictures, it is there in
            a format without random access, or it can't have such clips.
    """

    def __init__(
        self, name, split="train", data_dir=None, num_frames=None, frame_rate=None
    ):
        builder = _open_builder(name, data_dir)
        features = builder.info.features
        self._picture_key, is_video, channels = _find_pictures(features, name)
        if is_video:
            length = features[self._picture_key].shape[0]
            num_frames = _clip_length(name, length, num_frames, frame_rate)
        else:
            refuse_clip_choice(name, num_frames, frame_rate)
        self._label_key = _find_label(features)
        self._caption_key = _find_caption(features)
        builder = prepare(builder, name)
        # Imports TFDS, which other sources should not cost.
        from keras_mdm.data.tfds_pictures import decoders_of

        self._records = builder.as_data_source(split=split)
        self._records.decoders = decoders_of(features, self._picture_key)
        self._has_attributes = builder.name == "shapes"
        self._split = split
        label = features[self._label_key] if self._label_key else None
        super().__init__(
            name,
            channels=1 if channels == 1 else 3,
            class_names=label.names if label and label.names else None,
            num_classes=label.num_classes if label else None,
            has_captions=self._caption_key is not None,
            is_video=is_video,
            num_frames=num_frames,
            no_captions=f"none of its features {sorted(features)} is a text named "
            f"{' or '.join(map(repr, _CAPTIONS))}",
        )

    def __len__(self):
        return len(self._records)

    def describe(self, index):
        return f"{self.name}/{self._split}[{index}]"

    def _read(self, index):
        try:
            record = self._records[index]
        # What Pillow raises on damaged files; other errors are ours to see.
        except (OSError, SyntaxError, EOFError) as error:
            raise UnusablePicture(self.describe(index), f"corrupt: {error}") from error
        pixels = record[self._picture_key]
        if self.is_video:
            item = {"video": np.stack(list(itertools.islice(pixels, self.num_frames)))}
        else:
            item = {"image": np.asarray(pixels)}
        if self._label_key is not None:
            item["label"] = int(record[self._label_key])
        if self._caption_key is not None:
            texts = _texts(record[self._caption_key])
            if not texts:
                raise UnusablePicture(self.describe(index), "has no caption")
            item["caption"] = texts[0]
            if len(texts) > 1:
                item["captions"] = texts
        if self._has_attributes:
            item["attributes"] = _shape_attributes(record)
        return item


def prepare(builder, name):
    """Downloads and prepares a set if that has not been done.

    A second process that wants the same set waits for the first one.

    Args:
        builder: `tfds.core.DatasetBuilder`.
        name: String. The name it was opened by.

    Returns:
        A `tfds.core.DatasetBuilder` that is prepared.

    Raises:
        RuntimeError: If the child process that prepares it fails.
    """
    if _has_read_splits(builder):
        return builder
    root = builder.data_dir_root
    with _lock(root, builder.name):
        builder = _open_builder(name, root)
        if not builder.is_prepared():
            _prepare(builder, name)
    return builder


def _has_read_splits(builder):
    """Whether the set was prepared already when this builder was made.

    A builder reads the metadata once, and another process may finish a set any time.
    """
    return builder.is_prepared() and bool(builder.info.splits)


def _lock(root, name):
    """Lets one process at a time prepare a set; not in a bucket, which has no locks."""
    if "://" in str(root):
        return contextlib.nullcontext()
    import filelock

    root.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(root / f".{name}.lock")


def _prepare(builder, name):
    if builder.name == "shapes" or keras.config.backend() == "tensorflow":
        builder.download_and_prepare()
        return
    code = (
        "import sys, tensorflow_datasets as tfds; "
        "tfds.builder(sys.argv[1], data_dir=sys.argv[2], "
        "file_format='array_record').download_and_prepare()"
    )
    root = str(builder.data_dir_root)
    if subprocess.run([sys.executable, "-c", code, name, root]).returncode:
        raise RuntimeError(
            f"Preparing {name!r} failed (its messages are above). Most TFDS sets "
            "need TensorFlow to be prepared, though not to be read: `pip install "
            "tensorflow-cpu`, or prepare the set elsewhere and copy its folder."
        )


def _open_builder(name, data_dir):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"The source {name!r} is read with TFDS, which is not installed. "
            "Run `pip install tensorflow-datasets importlib_resources filelock`."
        ) from error
    if name.split("/")[0] == "shapes":
        # Registers the set.
        from keras_mdm.data import shapes_builder  # noqa: F401
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # TFDS raises an AssertionError for an unknown version.
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        close = difflib.get_close_matches(
            name.split("/")[0], tfds.list_builders(with_community_datasets=False)
        )
        raise ValueError(
            "No such source. Possible are 'shapes' (or 'shapes/single', "
            "'shapes/scenes', 'shapes/clips'), 'digits', 'folder:PATH', 'clips:PATH' "
            "and the TFDS sets, such as 'cifar10' or 'oxford_flowers102'. "
            f"Received: {name!r}. "
            + (f"Names like it: {', '.join(close)}. " if close else "")
            + f"TFDS says: {str(error).strip().splitlines()[0]}"
        ) from error
    if not builder.is_prepared():
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if not _has_read_splits(builder):
        builder = tfds.builder(name, data_dir=data_dir)
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise ValueError(
            f"{name!r} in {builder.data_dir} is prepared as {file_format}, which has "
            "no random access. Give another `data_dir` to prepare it as "
            "array_record there, or delete that folder to prepare it anew."
        )
    return builder


def _find_pictures(features, name):
    """Returns the key of the pictures or clips, whether clips, and the channels."""
    import tensorflow_datasets as tfds

    image, sequence = tfds.features.Image, tfds.features.Sequence
    images = [key for key in features if isinstance(features[key], image)]
    if images:
        key = "image" if "image" in images else images[0]
        return key, False, features[key].shape[-1]
    for key in features:
        # `features.Video` is a sequence of pictures too.
        if isinstance(features[key], sequence):
            if isinstance(features[key].feature, image):
                return key, True, features[key].feature.shape[-1]
    listing = ", ".join(f"{key} ({type(features[key]).__name__})" for key in features)
    raise ValueError(
        f"{name!r} has no pictures and no clips. Its features are: {listing}."
    )


def _clip_length(name, length, num_frames, frame_rate):
    """Returns the number of frames of every clip, or `None` if it varies.

    Args:
        name: String. Name of the set.
        length: Int, frames of all its videos, or `None` if they differ.
        num_frames, frame_rate: What is asked for.
    """
    if frame_rate is not None:
        raise ValueError(
            f"{name!r} does not tell the frame rate of its videos, so frames can't be "
            "picked by time. Choose the first frames with `num_frames`, or read video "
            f"files with 'clips:PATH'. Received: frame_rate={frame_rate}"
        )
    if length is not None and num_frames is not None and num_frames > length:
        raise ValueError(
            f"The videos of {name!r} have {length} frames. "
            f"Received: num_frames={num_frames}"
        )
    return num_frames or length


def _find_label(features):
    import tensorflow_datasets as tfds

    kind = tfds.features.ClassLabel
    labels = [key for key in features if isinstance(features[key], kind)]
    if "label" in labels:
        return "label"
    return labels[0] if len(labels) == 1 else None


def _find_caption(features):
    import tensorflow_datasets as tfds

    for key in _CAPTIONS:
        if key not in features:
            continue
        feature = features[key]
        if isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.FeaturesDict):
            if "text" not in feature:
                continue
            feature = feature["text"]
        # Texts, and tensors of strings as coco_captions has them.
        if np.dtype(feature.get_tensor_info().np_dtype).kind in "OSU":
            return key
    return None


def _texts(value):
    if isinstance(value, dict):
        value = value["text"]
    if isinstance(value, (bytes, str)):
        value = [value]
    return tuple(
        text if isinstance(text, str) else text.decode("utf-8", "replace")
        for text in value
    )


def _shape_attributes(record):
    """Returns what `shapes.Scene` holds, as plain values."""

    def plain(value):
        return value.decode() if isinstance(value, bytes) else float(value)

    columns = record["items"]
    rows = zip(*columns.values(), strict=True)
    items = [
        {key: plain(value) for key, value in zip(columns, row, strict=True)}
        for row in rows
    ]
    attributes = {
        "background": record["background"].decode(),
        "count": len(items),
        "items": items,
    }
    if "direction" in record:
        attributes["direction"] = record["direction"].decode()
        attributes["velocity"] = tuple(float(v) for v in record["velocity"])
    return attributes
