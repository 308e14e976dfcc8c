"""Training batches before any compiled step sees them: captions encoded, all checked.

Some mistakes (a label out of range, a NaN, pictures in [0, 255] as floats) raise
nothing in a compiled step and ruin the weights. So `MDM.fit`, `evaluate` and
`train_on_batch` look at each batch here first. Strings, which no step takes, become
numbers on the way. `streams` does so for every kind of data set.
"""

import collections.abc
import dataclasses

import numpy as np

from keras_mdm import backend
from keras_mdm.conditioning import TextConditioner
from keras_mdm.diffusion import losses
from keras_mdm.fitting.batch_arrays import (
    array_or_none,
    as_steps_take_it,
    dtype_name,
    finite_numbers,
    to_array,
)
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
        mixed_fractions: Fractions of a mixed batch, or `None`; see
            `keras_mdm.diffusion.losses.mixed_fractions`.
        parts: int. Into how many equal parts a step divides a batch.
    """

    resolution: int | str
    channels: int
    features: tuple
    num_classes: int | None
    optional: tuple
    text: object = None
    mixed_fractions: tuple | None = None
    parts: int = 1

    @classmethod
    def of(cls, network):
        """The batches of a `Denoiser`, the active one."""
        conditioner = network.conditioner
        return cls(
            resolution=network.level,
            channels=network.image_channels,
            features=tuple(getattr(conditioner, "feature_names", ())),
            num_classes=getattr(conditioner, "num_classes", None),
            text=conditioner if isinstance(conditioner, TextConditioner) else None,
            parts=backend.parts_of_a_batch(),
            optional=tuple(sorted(network.micro_names)),
        )

    def divided(self, mixed_fractions):
        """These batches, of which a training step divides each among resolutions."""
        return dataclasses.replace(self, mixed_fractions=mixed_fractions)

    def prepare_element(self, element, warn=False):
        """Returns what a data set yields as the triple that a step takes.

        Args:
            element: A batch dict, or a tuple or list `(batch, y, sample_weight)` or a
                beginning of it, where `y` is `None`.
            warn: bool. Whether captions that were cut are told of.

        Returns:
            A triple: the batch of `prepare`, `None`, and float32 weights of shape
            `(batch,)` or `None`.

        Raises:
            ValueError: if the batch does not fit the model.
        """
        batch, y, weight = _unpack(element)
        check_no_targets(y)
        batch = self.prepare(batch, warn)
        if weight is not None:
            size = len(pictures_of(batch))
            weight = finite_numbers("sample_weight", to_array("sample_weight", weight))
            check_length("sample_weight", weight, size)
        return batch, None, weight

    def check_size(self, size):
        """Raises a `ValueError` if a step can not divide a batch of this size."""
        if size % self.parts:
            raise ValueError(
                f"a batch must be a multiple of the {self.parts} parts into which "
                "`keras.distribution` divides it: choose another batch size, or leave "
                f"out the last, smaller batch. Received: {size} entries"
            )
        if self.mixed_fractions is not None:
            # A step divides the batch of all processes.
            size *= backend.number_of_processes()
            losses.mixed_batch_sizes(self.mixed_fractions, size)

    def prepare(self, batch, warn=False):
        """Returns a batch for the step: its captions encoded, all of it checked.

        Args:
            batch: dict of arrays, tensors of any library, or lists; `captions` may be
                an array or a list of str.
            warn: bool. Whether captions that were cut are told of.

        Returns:
            dict of numpy arrays. Captions that the model does not read are left out,
            and so is whatever else has no name or no numbers, such as names of files.

        Raises:
            ValueError: if the batch does not fit the model.
        """
        if not isinstance(batch, collections.abc.Mapping):
            self.check(batch)
        batch = {
            key: value
            for key, value in batch.items()
            if value is not None and isinstance(key, str)
        }
        captions = batch.pop("captions", None)
        lacks = missing_features(self.features, batch)
        if captions is not None and self.text is not None and lacks:
            batch.update(self.text.encode_texts(captions, warn=warn))
        read = {self._key, *self.features, *self.optional}
        arrays = {
            key: to_array(key, value) if key in read else array_or_none(value)
            for key, value in batch.items()
        }
        arrays = {key: array for key, array in arrays.items() if array is not None}
        self.check(arrays)
        return {key: as_steps_take_it(key, array) for key, array in arrays.items()}

    @property
    def _key(self):
        return "videos" if self.is_video else "images"

    def check(self, batch):
        """Raises a `ValueError` that names what is wrong with a batch of arrays."""
        key = self._key
        other = "images" if self.is_video else "videos"
        if not isinstance(batch, dict) or key not in batch or other in batch:
            found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            kind = "clips" if self.is_video else "pictures"
            raise ValueError(
                f"a batch must be a dict with the key '{key}', and not '{other}': "
                f"`mdm.resolution` is {self.resolution!r}, so the model is trained on "
                f"{kind}. Received: {found}"
            )
        missing = missing_features(self.features, batch)
        if missing:
            captions = "'captions' (strings) or " if self.text is not None else ""
            raise ValueError(
                f"the batch lacks {captions}{missing}, which the model's condition "
                f"needs. Received keys: {sorted(batch)}"
            )
        self._check_pictures(key, batch[key])
        for name in sorted(batch):
            check_length(name, batch[name], len(batch[key]), key)
        if self.num_classes is not None and "labels" in batch:
            check_labels(batch["labels"], self.num_classes)
        for name in sorted(set(self.optional) & set(batch)):
            finite_numbers(name, batch[name])
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
        kind = dtype_name(images)
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
            inside = (images >= -1.0001) & (images <= 1.0001)
            entry = int(np.argmin(inside.reshape(len(images), -1).all(axis=1)))
            raise ValueError(
                f"'{key}' of a float dtype must be in [-1, 1]; use uint8 for [0, 255]. "
                f"Received: values from {low:.4g} to {high:.4g}, first in entry {entry}"
            )


def pictures_of(batch):
    """The pictures or the clips of a batch dict."""
    return batch["videos"] if "videos" in batch else batch["images"]


def missing_features(names, features):
    """Those of the names that `features` lacks; masks are optional."""
    return [
        name for name in names if name not in features and not name.endswith("_mask")
    ]


def check_no_targets(y):
    """Raises a `ValueError` if there are targets, which `MDM` makes itself."""
    if y is not None:
        raise ValueError(
            "`y` must be None: MDM makes its own targets from the pictures in `x`, and "
            "labels belong into the batch, {'images': ..., 'labels': ...}. "
            f"Received: y of type {type(y).__name__}"
        )


def check_labels(labels, num_classes):
    """Raises a `ValueError` unless labels are whole numbers below `num_classes`."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "'labels' must be whole numbers of shape (batch,). "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        entry = int(np.argmax(wrong))
        raise ValueError(
            f"'labels' must be from 0 to {num_classes - 1}. "
            f"Received: values from {labels.min()} to {labels.max()}, such as "
            f"{labels[entry]} in entry {entry}"
        )


def check_length(name, array, size, key="images"):
    """Raises a `ValueError` unless an array has as many entries as there are pictures,
    or whatever `key` calls them.
    """
    if np.ndim(array) == 0:
        raise ValueError(f"'{name}' is a single value for {size} {key}.")
    if len(array) != size:
        raise ValueError(f"'{name}' has {len(array)} entries for {size} {key}.")


def _unpack(element):
    if not isinstance(element, (tuple, list)):
        return element, None, None
    if not 1 <= len(element) <= 3:
        raise ValueError(
            "a data set must yield batch dicts, or tuples (batch, y, sample_weight) "
            f"where y is None. Received: {type(element).__name__} of {len(element)}"
        )
    return (*element, None, None)[:3]
