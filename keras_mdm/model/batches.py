"""Checks of training batches before any compiled step sees them.

An exception inside a compiled step loses the weights on JAX, and some mistakes (a label
out of range, pictures in [0, 255] as floats) would not even raise. So `MDM.fit`,
`evaluate` and `train_on_batch` look at the data here first.
"""

import dataclasses

import keras
import numpy as np

from keras_mdm import backend


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a batch must look like.

    Attributes:
        resolution: int. Height and width of the pictures.
        channels: int.
        features: Tuple of names that the conditioner reads; names ending in `_mask`
            are optional.
        num_classes: int or `None`.
        token_size: int or `None`. Size of `text_embeddings`.
        optional: Tuple of names of micro-conditioning values.
    """

    resolution: int
    channels: int
    features: tuple
    num_classes: int | None
    token_size: int | None
    optional: tuple

    def check(self, batch):
        """Raises a `ValueError` that names what is wrong with a batch of arrays."""
        if not isinstance(batch, dict) or "images" not in batch:
            found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            raise ValueError(
                f"a batch must be a dict with the key 'images'. Received: {found}"
            )
        known = {"images", *self.features, *self.optional}
        missing = [
            key
            for key in self.features
            if key not in batch and not key.endswith("_mask")
        ]
        if missing:
            raise ValueError(
                f"the batch lacks {missing}, which the model's condition needs. "
                f"Received keys: {sorted(batch)}"
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
        if self.token_size is not None and "text_embeddings" in batch:
            width = batch["text_embeddings"].shape[-1]
            if width != self.token_size:
                raise ValueError(
                    f"'text_embeddings' must have the size {self.token_size} that the "
                    f"model's conditioner was made for. Received: {width}"
                )

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


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays in memory, without the last, smaller one.

    Keras would train on that one too: it has a shape of its own, for which the whole
    step would be compiled again.

    Args:
        arrays: dict of arrays with the same number of entries.
        batch_size: int.
        shuffle: bool. Whether the order changes from epoch to epoch. It follows
            `keras.utils.set_random_seed`.
    """

    def __init__(self, arrays, batch_size, shuffle=True):
        super().__init__()
        self.arrays = {key: np.asarray(value) for key, value in arrays.items()}
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.order = np.arange(len(self.arrays["images"]))
        self.on_epoch_end()

    def __len__(self):
        return len(self.order) // self.batch_size

    def __iter__(self):
        """One epoch; for TensorFlow, see `backend.with_known_shapes`."""
        for index in range(len(self)):
            yield self[index][0]
        self.on_epoch_end()

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return ({key: array[rows] for key, array in self.arrays.items()},)

    def on_epoch_end(self):
        if self.shuffle:
            np.random.shuffle(self.order)


def _first(element):
    """The batch dict of an element that may be `(x, y, sample_weight)`."""
    return element[0] if isinstance(element, (tuple, list)) else element


def _to_numpy(batch):
    if not isinstance(batch, dict):
        return batch
    return {key: keras.ops.convert_to_numpy(value) for key, value in batch.items()}


def checked(data, spec):
    """Returns `data` for `fit`, checked as far as can be done without reading it all.

    Arrays are checked in full; grain data sets and generators batch by batch as they
    are read; others (tf.data, PyDataset) by their first batch.

    Args:
        data: What the user passed as `x` to `fit` or `evaluate`.
        spec: `BatchSpec`.

    Returns:
        Data of a kind that Keras accepts.
    """
    if isinstance(data, dict):
        spec.check(data)
        return data
    if isinstance(data, keras.utils.PyDataset):
        spec.check(_to_numpy(_first(data[0])))
        return data
    if any(c.__module__.split(".")[0] == "grain" for c in type(data).__mro__):
        example = _check_first(iter(data), spec)

        def check(element):
            spec.check(_first(element))
            return element

        checked_data = data.map(check)
        return backend.with_known_shapes(checked_data, example)
    if hasattr(data, "__next__"):
        return _checked_generator(data, spec)
    if hasattr(data, "__iter__") and not hasattr(data, "shape"):
        _check_first(iter(data), spec)
        return data
    spec.check(data)
    return data


def _check_first(iterator, spec):
    for element in iterator:
        spec.check(_to_numpy(_first(element)))
        return element
    raise ValueError("the data set has no batch: it is empty or smaller than a batch.")


def _checked_generator(generator, spec):
    first = next(generator, None)
    if first is None:
        raise ValueError("the generator has no batch.")
    spec.check(_to_numpy(_first(first)))

    def elements():
        element = first
        while element is not None:
            # Keras takes a bare dict from a data set but not from a generator.
            yield element if isinstance(element, tuple) else (element,)
            element = next(generator, None)
            if element is not None:
                spec.check(_to_numpy(_first(element)))

    return elements()
