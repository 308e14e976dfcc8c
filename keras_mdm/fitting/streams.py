"""Data sets of every kind on their way into `fit`: each batch prepared by its spec.

Whatever the user gives, Keras gets a `PreparedData`: it reads the batches one by one,
in every epoch, encodes their captions and checks them on the host, by `BatchSpec`. A
mistake in one is told with its number, before a step sees it.
"""

import collections.abc
import contextlib
import dataclasses
import itertools
import math

import keras
import numpy as np
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from keras_mdm import backend
from keras_mdm.fitting import interrupts
from keras_mdm.fitting.batches import pictures_of
from keras_mdm.fitting.places import Places

# More batches than any data set has; grain's have `sys.maxsize` entries if they repeat.
_ENDLESS = 2**40


@dataclasses.dataclass
class ArrayBatches:
    """Batches of arrays in memory, one pass an iteration.

    Args:
        batch: Prepared dict of arrays with the same number of entries.
        weights: Array of sample weights, or `None`.
        batch_size: int.
        shuffle: bool. Whether each pass has an order of its own. It follows
            `keras.utils.set_random_seed`, or `epoch`, where that is set.
        drop_remainder: bool. Whether the last, smaller batch is left out: for its shape
            the whole step would be compiled again.
    """

    batch: dict
    weights: np.ndarray | None
    batch_size: int
    shuffle: bool = False
    drop_remainder: bool = False

    def __post_init__(self):
        # Of the order of the next pass: a seed, and the number of the pass.
        self.epoch = [int(np.random.randint(2**31)), 0] if self.shuffle else None

    def __len__(self):
        batches = len(pictures_of(self.batch)) / self.batch_size
        return math.floor(batches) if self.drop_remainder else math.ceil(batches)

    def __iter__(self):
        order = np.arange(len(pictures_of(self.batch)))
        if self.shuffle:
            seed, epoch = self.epoch
            np.random.default_rng((seed, epoch)).shuffle(order)
        for number in range(len(self)):
            if self.shuffle and number == len(self) - 1:
                self.epoch = [seed, epoch + 1]  # Nobody asks for more than there are.
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            batch = {key: array[rows] for key, array in self.batch.items()}
            yield batch, None, None if self.weights is None else self.weights[rows]


class _NumberedBatches(keras.utils.PyDataset):
    """Batches of a PyDataset with their numbers, which Keras may shuffle."""

    def __init__(self, data):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data = data

    @property
    def num_batches(self):
        return self._data.num_batches

    def __getitem__(self, index):
        # Keras replaces a list by a tuple, and leaves what is inside as it is.
        return ({"number": index, "element": self._data[index]},)

    def on_epoch_begin(self):
        self._data.on_epoch_begin()

    def on_epoch_end(self):
        self._data.on_epoch_end()


class PreparedData(DataAdapter):
    """Batches of any data set, encoded and checked as they are read.

    Args:
        data: Iterable of batches: a PyDataset, a tf.data or grain data set, a torch
            DataLoader, a generator, a list, `ArrayBatches`.
        spec: `BatchSpec`.
        name: str. What the data are called in errors, such as `"training data"`.
        shuffle: bool. Whether the batches of a PyDataset are shuffled.

    Attributes:
        first: A row of zeros as each array of the first batch has them, by name, and
            the number of its rows.
        clock: `StepClock` that times the reading of each batch, or `None`.
        places: `Places` of the batches that were read.

    Raises:
        ValueError: if there is no batch, or the first one does not fit the model.
    """

    def __init__(self, data, spec, name, shuffle=False):
        self._data, self._spec, self._name = data, spec, name
        self._error = None
        self.clock = None
        self.places = Places(data, is_read_once(data))
        # Keras' own adapter where it does more than to iterate.
        self._adapter = None
        if isinstance(data, keras.utils.PyDataset):
            numbered = _NumberedBatches(data)
            self._adapter = data_adapters.get_data_adapter(numbered, shuffle=shuffle)
        elif data_adapters.is_tf_dataset(data):
            self._adapter = data_adapters.get_data_adapter(data)
        self._look_at_the_first()

    def _look_at_the_first(self):
        """Prepares the first batch, which is not used up by it."""
        if isinstance(self._data, keras.utils.PyDataset):
            first = None if self.num_batches == 0 else (0, self._data[0])
        else:
            elements = enumerate(self._data)
            first = next(elements, None)
            if is_read_once(self._data) and first is not None:
                self._data = itertools.chain([first[1]], self._data)
        if first is None:
            raise self._no_batch()
        batch = self._prepare(*first, warn=True)[0]
        row = {key: np.zeros_like(value[:1]) for key, value in batch.items()}
        self.first = row, len(pictures_of(batch))

    def _no_batch(self):
        return ValueError(
            f"the {self._name} has no batch: it is empty, smaller than a batch, or was "
            f"read to its end before. Received: {type(self._data).__name__}"
        )

    def _prepare(self, number, element, warn=False):
        try:
            batch, _, weights = self._spec.prepare_element(element, warn)
            self._spec.check_size(len(pictures_of(batch)))
            # The data may write the next batch into the same memory, which a step that
            # runs on still reads.
            return {key: np.array(array) for key, array in batch.items()}, None, weights
        except ValueError as error:
            raise ValueError(
                f"batch {number} of the {self._name} (the first is 0): {error}"
            ) from None

    def _numbered(self):
        """Pairs of number and element of a pass, from its place on."""
        number = self.places.next_number
        elements = self.places.noted(self._elements, self.num_batches)
        if isinstance(self._data, keras.utils.PyDataset):
            return ((item["number"], item["element"]) for (item,) in elements)
        return enumerate(elements, number)

    def _elements(self):
        if self._adapter is not None:
            return iter(self._adapter.get_numpy_iterator())
        return iter(self._data)

    def __iter__(self):
        """One pass: triples of a batch of numpy arrays, `None`, and sample weights."""
        return self._pass() if self.clock is None else self.clock.timed(self._pass())

    def _pass(self):
        empty, first = True, self.places.next_number
        in_memory = isinstance(self._data, ArrayBatches)  # Checked as a whole.
        try:
            numbered = self._numbered()
            while True:
                with interrupts.at_once():
                    number, element = next(numbered, (None, None))
                if number is None:
                    break
                empty = False
                yield element if in_memory else self._prepare(number, element)
        finally:
            # The workers of a PyDataset would wait for ever to be asked for more, if
            # a batch or a callback has ended the training.
            with contextlib.suppress(Exception):
                self._adapter.enqueuer.stop()
        if empty and first:
            # A stop came between the last batch of a pass and its end.
            yield from self._pass()
        elif empty:
            raise self._no_batch()

    def get_numpy_iterator(self):
        return iter(self)

    def get_jax_iterator(self):
        return iter(self) if backend.on_cpu() else self._until_an_error()

    def _until_an_error(self):
        """One pass that ends early; `on_epoch_end` then says why.

        On an accelerator Keras reads a batch ahead, and an error at once would cost the
        step of the batch before.
        """
        try:
            yield from self
        except ValueError as error:
            self._error = error

    def get_tf_dataset(self):
        return backend.host_data(self)

    def get_torch_dataloader(self):
        return data_adapter_utils.get_torch_dataloader(self)

    @property
    def num_batches(self):
        if self._adapter is not None:
            return self._adapter.num_batches
        with contextlib.suppress(TypeError, NotImplementedError):
            length = len(self._data)
            return None if length >= _ENDLESS else length
        return None

    @property
    def batch_size(self):
        return None

    def on_epoch_begin(self):
        if self._adapter is not None:
            self._adapter.on_epoch_begin()

    def on_epoch_end(self):
        if self._adapter is not None:
            self._adapter.on_epoch_end()
        error, self._error = self._error, None
        if error is not None:
            raise error from None


def is_read_once(data):
    """Whether data are an iterator, such as a generator: gone once it is read."""
    return isinstance(data, collections.abc.Iterator)


def is_endless(data):
    """Whether a data set is known to have no end; of a generator nobody knows."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    if data_adapters.is_tf_dataset(data):
        return int(data.cardinality()) == -1
    if isinstance(data, (itertools.cycle, itertools.count)):
        return True
    packages = {c.__module__.split(".")[0] for c in type(data).__mro__}
    return "grain" in packages and _grain_is_endless(data)


def _grain_is_endless(data):
    own = getattr(data, "endless", None)  # Of `data.make_dataset`.
    if own is not None:
        return own
    if type(data).__name__ == "RepeatIterDataset":
        return data._num_epochs is None
    if type(data).__name__ == "LimitIterDataset":
        return False
    if hasattr(data, "_sampler"):  # A DataLoader.
        return getattr(data._sampler, "_num_epochs", 1) is None
    with contextlib.suppress(TypeError):
        return len(data) >= _ENDLESS
    parents = getattr(data, "parents", ())
    return bool(parents) and all(map(_grain_is_endless, parents))
