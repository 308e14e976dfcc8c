"""Training batches before any compiled step sees them: captions encoded, all checked.

An exception inside a compiled step loses the weights on JAX, and some mistakes (a label
out of range, pictures in [0, 255] as floats) would not even raise. So `MDM.fit`,
`evaluate` and `train_on_batch` look at each batch here first. Strings, which no step
takes, become numbers on the way. `streams` does so for every kind of data set.
"""

import dataclasses

import keras
import numpy as np

from keras_mdm.levels import level_shape, read_level


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a batch must look like.

    Attributes:
        resolution: int or str. Height and width of the pictures, or frames and pixels
            of the clips; see `keras_mdm.levels`.
        channels: int.
        features: Tuple of names that the conditioner reads; names ending in `_mask`
            are optional.
        num_classes: int or `None`.
        optional: Tuple of names of micro-conditioning values.
        text: The `TextConditioner` that reads captions, or `None`.
    """

    resolution: int | str
    channels: int
    features: tuple
    num_classes: int | None
    optional: tuple
    text: object = None

    def prepare(self, batch, warn=False):
        """Returns a batch for the step: its captions encoded, and checked.

        Args:
            batch: dict of arrays; `captions` may be an array or a list of str.
            warn: bool. Whether captions that were cut are told of.

        Returns:
            dict of arrays. Captions that the model does not read are left out.

        Raises:
            ValueError: if the batch does not fit the model.
        """
        if isinstance(batch, dict) and "captions" in batch:
            captions = batch["captions"]
            batch = {key: value for key, value in batch.items() if key != "captions"}
            if self.text is not None and self._missing(batch):
                batch.update(self.text.encode_texts(captions, warn=warn))
        self.check(batch)
        return batch

    def _missing(self, batch):
        return missing_features(self.features, batch)

    def check(self, batch):
        """Raises a `ValueError` that names what is wrong with a batch of arrays."""
        key, other = ("videos", "images") if self.is_video else ("images", "videos")
        if not isinstance(batch, dict) or key not in batch or other in batch:
            found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            kind = "clips" if self.is_video else "pictures"
            raise ValueError(
                f"a batch must be a dict with the key '{key}', and not '{other}': "
                f"`mdm.resolution` is {self.resolution!r}, so the model is trained on "
                f"{kind}. Received: {found}"
            )
        known = {key, *self.features, *self.optional}
        missing = self._missing(batch)
        if missing:
            captions = "'captions' (strings) or " if self.text is not None else ""
            raise ValueError(
                f"the batch lacks {captions}{missing}, which the model's condition "
                f"needs. Received keys: {sorted(batch)}"
            )
        self._check_pictures(key, batch[key])
        size = len(batch[key])
        for name in sorted(known & set(batch)):
            if len(batch[name]) != size:
                raise ValueError(
                    f"'{name}' has {len(batch[name])} entries for {size} {key}."
                )
        if self.num_classes is not None and "labels" in batch:
            check_labels(batch["labels"], self.num_classes)
        if self.text is not None:
            self.text.check_features(batch)

    @property
    def is_video(self):
        """Whether batches have clips rather than pictures."""
        return read_level(self.resolution)[0] > 1

    def _check_pictures(self, key, images):
        expected = level_shape(self.resolution, self.channels)
        if tuple(images.shape[1:]) != expected:
            frames = "frames, " if self.is_video else ""
            wanted = ", ".join(map(str, expected))
            raise ValueError(
                f"'{key}' must have the shape (batch, {wanted}): "
                f"(batch, {frames}height, width, channels), where `mdm.resolution` is "
                f"{self.resolution!r}. Received: shape={tuple(images.shape)}"
            )
        if not len(images):
            raise ValueError(f"the data set is empty: '{key}' has no entry.")
        kind = keras.backend.standardize_dtype(images.dtype)
        if kind == "uint8":
            return
        if not kind.startswith(("float", "bfloat")):
            raise ValueError(
                f"'{key}' must be uint8 in [0, 255] or float in [-1, 1]. "
                f"Received: dtype={kind}"
            )
        images = np.asarray(images, dtype="float32")
        low, high = float(images.min()), float(images.max())
        # The comparison is also false for NaN.
        if not (low >= -1.0001 and high <= 1.0001):
            raise ValueError(
                f"'{key}' of a float dtype must be in [-1, 1]; use uint8 for [0, 255]. "
                f"Received: values from {low:.4g} to {high:.4g}"
            )


def pictures_of(batch):
    """The pictures or the clips of a batch dict."""
    return batch["videos"] if "videos" in batch else batch["images"]


def missing_features(names, features):
    """Those of the names that `features` lacks; masks are optional."""
    return [
        name for name in names if name not in features and not name.endswith("_mask")
    ]


def check_labels(labels, num_classes):
    """Raises a `ValueError` unless labels are whole numbers below `num_classes`."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "'labels' must be whole numbers of shape (batch,). "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"'labels' must be from 0 to {num_classes - 1}. "
            f"Received: values from {labels.min()} to {labels.max()}"
        )
