"""Data sets of every kind on their way into `fit`: each batch prepared by its spec.

Captions are encoded and batches checked on the host, by `BatchSpec.prepare`: in the
threads that read a grain or tf.data data set, before the batch of a generator or a
PyDataset is handed on, once for all arrays in memory.
"""

import keras
import numpy as np

from keras_mdm import backend
from keras_mdm.model.batches import pictures_of


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
        self.order = np.arange(len(pictures_of(self.arrays)))
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


class EncodedBatches(keras.utils.PyDataset):
    """Batches of a PyDataset with their captions encoded.

    Args:
        data: `keras.utils.PyDataset`.
        spec: `BatchSpec`.
    """

    def __init__(self, data, spec):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data = data
        self._spec = spec

    @property
    def num_batches(self):
        return self._data.num_batches

    def __getitem__(self, index):
        return _prepare_element(self._data[index], self._spec)

    def on_epoch_begin(self):
        self._data.on_epoch_begin()

    def on_epoch_end(self):
        self._data.on_epoch_end()


def _batch_of(element):
    """The batch dict of an element that may be `(x, y, sample_weight)`."""
    return element[0] if isinstance(element, (tuple, list)) else element


def _prepare_element(element, spec, warn=False):
    batch = spec.prepare(_batch_of(element), warn)
    return (batch, *element[1:]) if isinstance(element, (tuple, list)) else batch


def _to_numpy(element):
    batch = _batch_of(element)
    if not isinstance(batch, dict):
        return batch
    return {
        key: value if key == "captions" else keras.ops.convert_to_numpy(value)
        for key, value in batch.items()
    }


def prepared(data, spec):
    """Returns `data` for `fit`, prepared as far as can be done without reading it all.

    Arrays are prepared in full; grain data sets and generators batch by batch as they
    are read; of others (tf.data, PyDataset) the first batch is checked.

    Args:
        data: What the user passed as `x` to `fit` or `evaluate`.
        spec: `BatchSpec`.

    Returns:
        Data of a kind that Keras accepts.
    """
    if isinstance(data, dict):
        return spec.prepare(data, warn=True)
    if isinstance(data, keras.utils.PyDataset):
        first = _batch_of(data[0])
        spec.prepare(_to_numpy(first), warn=True)
        return EncodedBatches(data, spec) if _has_captions(first) else data
    if backend.belongs_to(data, "grain"):
        example = _prepare_first(data, spec)
        checked = data.map(lambda element: _prepare_element(element, spec))
        return backend.with_known_shapes(checked, example)
    if hasattr(data, "__next__"):
        return _prepared_generator(data, spec)
    if hasattr(data, "__iter__") and not hasattr(data, "shape"):
        first = _first(data)
        spec.prepare(_to_numpy(first), warn=True)
        if not _has_captions(_batch_of(first)):
            return data
        if not backend.belongs_to(data, "tensorflow"):
            raise ValueError(
                "captions are encoded in grain and tf.data data sets, PyDatasets, "
                "generators and dicts of arrays. Received: data of type "
                f"{type(data).__name__}"
            )
        return backend.map_captions(data, lambda b: spec.prepare(b), _batch_of(first))
    spec.check(data)
    return data


def _has_captions(batch):
    return isinstance(batch, dict) and "captions" in batch


def _first(data):
    for element in data:
        return element
    raise ValueError("the data set has no batch: it is empty or smaller than a batch.")


def _prepare_first(data, spec):
    return _prepare_element(_first(data), spec, warn=True)


def _prepared_generator(generator, spec):
    element = next(generator, None)
    if element is None:
        raise ValueError("the generator has no batch.")
    spec.prepare(_to_numpy(element), warn=True)

    def elements(element):
        while element is not None:
            batch = spec.prepare(_to_numpy(element))
            # Keras takes a bare dict from a data set but not from a generator.
            rest = element[1:] if isinstance(element, (tuple, list)) else ()
            yield (batch, *rest)
            element = next(generator, None)

    return elements(element)
