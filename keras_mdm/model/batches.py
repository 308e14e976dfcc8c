"""Training batches before any compiled step sees them: captions encoded, all checked.

An exception inside a compiled step loses the weights on JAX, and some mistakes (a label
out of range, pictures in [0, 255] as floats) would not even raise. So `MDM.fit`,
`evaluate` and `train_on_batch` look at each batch here first. Strings, which no step
takes, become numbers on the way. `streams` does so for every kind of data set.
"""

import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a batch must look like.

    Attributes:
        resolution: int. Height and width of the pictures.
        channels: int.
        features: Tuple of names that the conditioner reads; names ending in `_mask`
            are optional.
        num_classes: int or `None`.
        optional: Tuple of names of micro-conditioning values.
        text: The `TextConditioner` that reads captions, or `None`.
    """

    resolution: int
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
        if not isinstance(batch, dict) or "images" not in batch:
            found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            raise ValueError(
                f"a batch must be a dict with the key 'images'. Received: {found}"
            )
        known = {"images", *self.features, *self.optional}
        missing = self._missing(batch)
        if missing:
            captions = "'captions' (strings) or " if self.text is not None else ""
            raise ValueError(
                f"the batch lacks {captions}{missing}, which the model's condition "
                f"needs. Received keys: {sorted(batch)}"
            )
        self._check_images(batch["images"])
        size = len(batch["images"])
        for key in sorted(known & set(batch)):
            if len(batch[key]) != size:
                raise ValueError(
                    f"'{key}' has {len(batch[key])} entries for {size} images."
                )
        if self.num_classes is not None and "labels" in batch:
            check_labels(batch["labels"], self.num_classes)
        if self.text is not None:
            self.text.check_features(batch)

    def _check_images(self, images):
        expected = (self.resolution, self.resolution, self.channels)
        if len(images.shape) != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"'images' must have the shape (batch, {self.resolution}, "
                f"{self.resolution}, {self.channels}): height and width are "
                "`mdm.resolution`, and channels come last. "
                f"Received: shape={tuple(images.shape)}"
            )
        if not len(images):
            raise ValueError("the data set is empty: 'images' has no entry.")
        kind = keras.backend.standardize_dtype(images.dtype)
        if kind == "uint8":
            return
        if not kind.startswith(("float", "bfloat")):
            raise ValueError(
                "'images' must be uint8 in [0, 255] or float in [-1, 1]. "
                f"Received: dtype={kind}"
            )
        images = np.asarray(images, dtype="float32")
        low, high = float(images.min()), float(images.max())
        # The comparison is also false for NaN.
        if not (low >= -1.0001 and high <= 1.0001):
            raise ValueError(
                "'images' of a float dtype must be in [-1, 1]; use uint8 for [0, 255]. "
                f"Received: values from {low:.4g} to {high:.4g}"
            )


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
