"""The grain dataset behind `make_dataset`: one iteration is one pass over the data.

`fit` iterates a dataset anew each epoch. A plain grain dataset then gives the same
order and the same flips each time; this one goes on to the next pass.
"""

import grain
import numpy as np

from keras_mdm.data.source import UnusablePicture


class PictureDataset(grain.IterDataset):
    """Batches of prepared pictures; `make_dataset` documents the arguments.

    `epoch` is the number of the pass that the next iteration gives. It advances
    when an iteration reaches its end, so a look at the first batches, as Keras
    takes at the start of `fit`, uses up no pass. Set it to resume at a given pass.
    """

    def __init__(
        self,
        source,
        indices,
        prepare,
        batch_size,
        shuffle,
        seed,
        repeat,
        num_workers,
        shard,
    ):
        super().__init__()
        self.epoch = 0
        self._num_pictures = len(indices)
        self._batch_size = batch_size
        self._repeat = repeat
        self._num_workers = num_workers
        self._keep_usable = _KeepUsable(source, len(indices), batch_size)
        # Shards with one seed would flip and crop in step.
        shard_seed = np.random.SeedSequence((seed, shard[0])).generate_state(1)[0]
        pictures = grain.MapDataset.range(indices.start, indices.stop, indices.step)
        pictures = pictures.seed(int(shard_seed))
        if shuffle:
            pictures = pictures.shuffle()
        # Endless; grain shuffles and seeds each repetition differently.
        self._pictures = pictures.repeat().random_map(prepare)

    def __iter__(self):
        return _PassIterator(self)

    def batches_of_pass(self, number):
        """Returns the grain dataset of the batches of pass `number`."""
        pictures = self._pictures
        if not self._repeat:
            start = number * self._num_pictures
            pictures = pictures[start : start + self._num_pictures]
        elements = pictures.to_iter_dataset(
            grain.ReadOptions(
                num_threads=4, prefetch_buffer_size=max(64, 2 * self._batch_size)
            )
        )
        if self._num_workers:
            elements = elements.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._num_workers)
            )
        elements = elements.filter(self._keep_usable)
        return elements.batch(self._batch_size, drop_remainder=True)


class _PassIterator(grain.DatasetIterator):
    """Iterates one pass and tells the dataset when it is over."""

    def __init__(self, dataset):
        super().__init__()
        self._dataset = dataset
        self._start(dataset.epoch)

    def _start(self, number):
        self._number = number
        self._batches = iter(self._dataset.batches_of_pass(number))

    def __next__(self):
        try:
            return next(self._batches)
        except StopIteration:
            self._dataset.epoch = self._number + 1
            raise

    def get_state(self):
        return {"epoch": self._number, "batches": self._batches.get_state()}

    def set_state(self, state):
        self._start(state["epoch"])
        self._batches.set_state(state["batches"])

    def close(self):
        self._batches.close()
        super().close()


class _KeepUsable:
    """Lets pictures through, counts the others, and gives up if too few remain."""

    def __init__(self, source, num_pictures, batch_size):
        self._source = source
        self._num_pictures = num_pictures
        self._batch_size = batch_size
        self._unusable = set()

    def __call__(self, element):
        if not isinstance(element, UnusablePicture):
            return True
        self._source.skip(element.what, element.why)
        self._unusable.add(element.what)
        usable = self._num_pictures - len(self._unusable)
        if usable < self._batch_size:
            raise ValueError(
                f"At most {usable} pictures of {self._source.name!r} are usable, fewer "
                f"than one batch of {self._batch_size}. {self._source.report()}"
            )
        return False
