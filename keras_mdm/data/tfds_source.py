"""Any TFDS set with pictures or clips as a source, read from array_record files.

`open_source` opens sets through here, the generated `shapes` among them. Reading
never imports TensorFlow. Preparing a foreign set may need it; on other backends
that runs in a child process, so that TensorFlow never takes the accelerator.
(TFDS itself imports it for a few features, such as `Video`.)
"""

import contextlib
import difflib
import itertools
import json
import pathlib
import subprocess
import sys

import filelock
import numpy as np
import tensorflow_datasets as tfds

from keras_mdm.data import shapes_builder  # noqa: F401 (registers the set)
from keras_mdm.data.array_records import RecordSizes
from keras_mdm.data.descriptions import check_info
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.source import (
    Source,
    caption_items,
    read_captions,
    refuse_frames,
)
from keras_mdm.data.tfds_decoders import DecodePicture, decoders_of
from keras_mdm.paths import own_folder
from keras_mdm.text_files import printable, reason

_MOST_CLASSES = 10**6
_CAPTIONS = ("caption", "captions", "text", "description")


class TfdsSource(Source):
    """A split of a TFDS set.

    The picture is the feature `image` (or the only picture or clip there is), the
    label the feature `label` (or the only class label), the caption the text
    feature `caption`, `captions` (of several, a batch has one at random), `text` or
    `description`.

    Args:
        path: String. TFDS name, with configuration and version if wanted.
        split: String. TFDS split, such as `"train"` or `"train[:10%]"`.
        data_dir: Folder of prepared sets. Defaults to that of TFDS.
        num_frames: Int. Of each video, the first so many frames. Defaults to all.
        frame_rate: Must be `None`: TFDS sets do not tell that of their videos, so
            frames can't be picked by time.
        limits: `Limits`.

    Raises:
        ValueError: If there is no such set, it has no pictures, it is there in
            a format without random access, or it can't have such clips.
    """

    def __init__(
        self,
        path,
        split="train",
        data_dir=None,
        num_frames=None,
        frame_rate=None,
        limits=LIMITS,
    ):
        name = "shapes/single" if path == "shapes" else path
        builder = _open_builder(name, data_dir)
        features = builder.info.features
        self._pixels, is_video, channels = _find_pictures(features, name)
        if is_video:
            length = features[self._pixels].shape[0]
            num_frames = _clip_length(name, length, num_frames, frame_rate)
        else:
            refuse_frames(name, num_frames, frame_rate)
        self._label = _find_label(features)
        self._caption = _find_caption(features)
        builder = prepare(builder, name)
        try:
            self._records = builder.as_data_source(split=split)
        except ValueError as error:
            raise ValueError(
                f"{path!r} has the splits {sorted(builder.info.splits)}, and parts of "
                f"them such as 'train[:10%]'. Received: split={split!r}"
            ) from error
        self._sizes = RecordSizes(builder, split, limits.picture_bytes)
        decoder = DecodePicture(limits)
        self._records.decoders = decoders_of(features, self._pixels, decoder)
        self._max_length = limits.caption_length
        self._has_attributes = builder.name == "shapes"
        self._split = split
        label = features[self._label] if self._label else None
        if label and (label.num_classes or 0) > _MOST_CLASSES:
            raise ValueError(
                f"{name!r} tells of {label.num_classes} classes, more than the "
                f"{_MOST_CLASSES} that are made names of."
            )
        super().__init__(
            name,
            channels=1 if channels == 1 else 3,
            class_names=label.names if label and label.names else None,
            num_classes=label.num_classes if label else None,
            has_captions=self._caption is not None,
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
        self._sizes.check(index)
        record = self._records[index]
        pixels = record[self._pixels]
        if self.is_video:
            item = {"video": np.stack(list(itertools.islice(pixels, self.num_frames)))}
        else:
            item = {"image": np.asarray(pixels)}
        if self._label is not None:
            item["label"] = int(record[self._label])
        if self._caption is not None:
            texts = _texts(record[self._caption])
            item |= caption_items(read_captions(texts, self._max_length))
        if self._has_attributes:
            item["attributes"] = attributes = json.loads(record["attributes"])
            attributes["velocity"] = tuple(attributes["velocity"])
        return item


def prepare(builder, name):
    """Returns the builder of a set, downloaded and prepared if that was still to do.

    A second process that wants the same set waits for the first one. A `RuntimeError`
    says that the child process that prepares it has failed.
    """
    if _has_read_splits(builder):
        return builder
    root, lock = builder.data_dir_root, contextlib.nullcontext()
    if "://" not in str(root):  # A bucket has no locks.
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(own_folder(root, f".{builder.name}.lock"))
    with lock:
        builder = _open_builder(name, root)
        if not builder.is_prepared():
            _prepare(builder, name)
    return builder


def _has_read_splits(builder):
    """Whether the set was prepared already when this builder was made.

    A builder reads the metadata once, and another process may finish a set any time.
    """
    return builder.is_prepared() and bool(builder.info.splits)


def _prepare(builder, name):
    import keras  # Not at the top: processes that only read have no need of it.

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
    root = data_dir or tfds.core.constants.DATA_DIR
    if "://" not in str(root):
        check_info(pathlib.Path(root) / name.split("/")[0])
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # An AssertionError for an unknown version, and anything of damaged descriptions.
    except Exception as error:
        close = difflib.get_close_matches(
            name.split("/")[0], tfds.list_builders(with_community_datasets=False)
        )
        raise ValueError(
            "No such source. Possible are 'shapes' (or 'shapes/single', "
            "'shapes/scenes', 'shapes/clips'), 'digits', 'folder:PATH', 'clips:PATH', "
            "'webdataset:PATH', 'hf:NAME', what `register_source` made known, "
            "and the TFDS sets, such as 'cifar10' or 'oxford_flowers102'. "
            f"Received: {name!r}, in '{printable(root)}'. "
            + (f"Names like it: {', '.join(close)}. " if close else "")
            + f"TFDS says: {reason(error)}"
        ) from error
    if not builder.is_prepared():
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if not _has_read_splits(builder):
        builder = tfds.builder(name, data_dir=data_dir)
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise ValueError(
            f"{name!r} in {builder.data_dir} is prepared as {file_format}, which has "
            "no random access. Pass another `data_dir` to prepare it as "
            "array_record there, or delete that folder to prepare it anew."
        )
    return builder


def _find_pictures(features, name):
    """Returns the key of the pictures or clips, whether clips, and the channels."""
    image, sequence = tfds.features.Image, tfds.features.Sequence
    images = [key for key in features if isinstance(features[key], image)]
    if images:
        key = "image" if "image" in images else images[0]
        return key, False, features[key].shape[-1]
    for key, feature in features.items():
        # `features.Video` is a sequence of pictures too.
        if isinstance(feature, sequence) and isinstance(feature.feature, image):
            return key, True, feature.feature.shape[-1]
    listing = ", ".join(f"{key} ({type(features[key]).__name__})" for key in features)
    raise ValueError(
        f"{name!r} has no pictures and no clips. Its features are: {listing}."
    )


def _clip_length(name, length, num_frames, frame_rate):
    """Number of frames of every clip, or `None` if it varies; `length` is the set's."""
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
    kind = tfds.features.ClassLabel
    labels = [key for key in features if isinstance(features[key], kind)]
    if "label" in labels:
        return "label"
    return labels[0] if len(labels) == 1 else None


def _find_caption(features):
    for key in _CAPTIONS:
        feature = features[key] if key in features else None
        if isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.FeaturesDict):
            feature = feature["text"] if "text" in feature else None
        # Texts, and tensors of strings as coco_captions has them.
        if feature and np.dtype(feature.get_tensor_info().np_dtype).kind in "OSU":
            return key
    return None


def _texts(value):
    if isinstance(value, dict):
        value = value["text"]
    texts = [value] if isinstance(value, bytes | str) else value
    return [t if isinstance(t, str) else t.decode("utf-8", "replace") for t in texts]
