"""The grain dataset behind `make_dataset`: one iteration is one pass over the data.

`fit` iterates a dataset anew each epoch. A plain grain dataset then gives the same
order and the same flips each time; this one goes on to the next pass.
"""

import collections
import itertools
import weakref

import grain
import numpy as np
from absl import flags

from keras_mdm.data.workers import check_can_start_workers, end_with_parent

# Pictures of a stream that nobody comes to the end of. Grain's own endless ones are too
# long to be divided into batches of one.
_ENDLESS = 2**60


class PictureDataset(grain.IterDataset):
    """Batches of prepared pictures; `make_dataset` documents the arguments.

    `epoch` is the number of the pass with which the next iteration starts. It
    advances as iterations complete passes, so a look at the first batches, as Keras
    takes at the start of `fit`, uses up none. Set it to resume at a given pass.
    """

    def __init__(
        self,
        preparation,
        batch_size,
        shuffle,
        repeat,
        num_workers,
        shard,
        max_unusable,
    ):
        super().__init__()
        self.epoch = 0
        self._preparation = preparation
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._repeat = repeat
        self.num_workers = num_workers
        self._shard = shard
        self._unusable = {}
        self._seen = 0
        self._max_unusable = max_unusable

    def __iter__(self):
        return _PassIterator(self)

    @property
    def endless(self):
        """Whether an iteration goes on from pass to pass."""
        return self._repeat

    @property
    def steps_per_pass(self):
        """Number of batches in a pass, as far as unusable pictures are known."""
        return self._usable // (self._batch_size * self._shard[1])

    @property
    def _usable(self):
        """Number of pictures that are not known to be unusable."""
        return len(self._preparation.source) - len(self._unusable)

    def _chunks_of_indices(self, number, skip):
        """Chunks from pass `number` on where pictures are read at random."""
        length, (index, count) = len(self._preparation.source), self._shard
        stream = grain.MapDataset.range(length)
        if self._shuffle:
            stream = stream.seed(self._preparation.seed).shuffle()
        # Endless; grain shuffles each repetition differently. The position is what
        # crops and flips of a picture depend on.
        stream = stream.repeat(_ENDLESS // length)
        stream = stream.map_with_index(lambda i, index: (i, index))
        begin, end = number * length, None
        if not self._repeat:
            # One process keeps the pictures left over, to fill holes; of several, each
            # must have as many as the others.
            left_over = length % (self._batch_size * count) if count > 1 else 0
            end = begin + length - left_over
        # A batch of all processes is made of one chunk of each, in their order.
        chunks = stream[begin:end].batch(self._batch_size)[index::count][skip:]
        return chunks.map(self._preparation).to_iter_dataset(
            grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
        )

    @property
    def streams(self):
        """Whether the source can be read from its start alone."""
        return self._preparation.source.stream is not None

    def batches_from_pass(self, number, skip):
        """A grain dataset of a pass, and of those after it if the data repeat.

        The first `skip` chunks are left out, unread; only if the source does not
        stream.
        """
        if not self.streams:
            chunks = self._chunks_of_indices(number, skip)
        else:
            rows = _Rows(
                self._preparation,
                self._batch_size,
                self._shuffle,
                self._repeat,
                number,
                self._shard,
            )
            chunks = rows.map(self._preparation)
        if self.num_workers:
            check_can_start_workers()
            # Grain reads a flag of its own here, which fails in programs, such as
            # notebooks, that have not parsed absl's command line.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self.num_workers)
            chunks = chunks.mp_prefetch(options, worker_init_fn=end_with_parent)
        elif self.streams:
            chunks = grain.experimental.ThreadPrefetchIterDataset(
                chunks, prefetch_buffer_size=4
            )
        # In the main process, which alone can count what its workers met.
        batches = chunks.map(self._drop_unusable)
        batches = batches.filter(lambda batch: batch is not None)
        # Unusable pictures left holes; this closes them.
        return grain.experimental.RebatchIterDataset(
            batches, self._batch_size, drop_remainder=True
        )

    def _drop_unusable(self, chunk):
        batch, unusable = chunk
        source = self._preparation.source
        for error in unusable:
            source.skip(error.what, error.why)
            self._unusable[error.what] = error.why
        self._seen += len(unusable)
        if batch is not None:
            self._seen += len(next(iter(batch.values())))
        self._check_share()
        size = self._batch_size * self._shard[1]
        if self._usable < size:
            raise ValueError(
                f"At most {self._usable} {source.noun} of {source.name!r} are usable, "
                f"fewer than one batch of {size}. {source.report()}"
            )
        return batch

    def _check_share(self):
        """Raises a `ValueError` if too much of what was read can't be used."""
        source = self._preparation.source
        # Not by the first few of many.
        seen = max(self._seen, min(len(source), 1000))
        if len(self._unusable) > self._max_unusable * seen:
            reasons = collections.Counter(self._unusable.values()).most_common(10)
            listed = "; ".join(f"{why} ({count})" for why, count in reasons)
            raise ValueError(
                f"{len(self._unusable)} {source.noun} of {source.name!r} can't be "
                f"used, more than `max_unusable={self._max_unusable}` of {seen}. "
                f"Reasons: {listed}. {source.report()}"
            )


class _PassIterator(grain.DatasetIterator):
    """Iterates and tells the dataset which pass it has come to.

    It goes by the count of batches rather than wait for the end: who knows the
    count, as Keras does from the second epoch on, never asks for more.
    """

    def __init__(self, dataset):
        super().__init__()
        self._dataset = dataset
        self._opened = []
        # At exit too: grain's threads complain if the modules they need are gone.
        weakref.finalize(self, _close, self._opened)
        self._start(dataset.epoch)

    def _start(self, number, skip=0):
        self._number, self._skipped, self._delivered = number, skip, skip
        _close(self._opened)
        batches = self._dataset.batches_from_pass(number, skip)
        self._opened.append(iter(batches))

    def __next__(self):
        try:
            batch = next(self._opened[0])
        except StopIteration:
            self._dataset.epoch = self._number + 1
            raise
        self._delivered += 1
        passes = self._delivered // self._dataset.steps_per_pass
        self._dataset.epoch = self._number + passes
        return batch

    def get_state(self):
        return {
            "epoch": self._number,
            "delivered": self._delivered,
            "skipped": self._skipped,
            "workers": self._dataset.num_workers,
            "batches": self._opened[0].get_state(),
        }

    def set_state(self, state):
        if state["workers"] != self._dataset.num_workers:
            # Grain's state is of another number of workers.
            self._start(state["epoch"])
            self.skip(state["delivered"])
            return
        self._start(state["epoch"], state["skipped"])
        self._delivered = state["delivered"]
        self._opened[0].set_state(state["batches"])

    def skip(self, count):
        """Leaves out the next batches; of an iteration that has just begun alone.

        Where pictures can be read at random, none is read: as many are left out as
        `count` batches have if every picture is usable.
        """
        if not self._dataset.streams:
            self._start(self._number, count)
            return
        for _ in range(count):
            next(self)

    def close(self):
        # Grain calls this at the end of the program too, when `_close` is gone.
        while self._opened:
            self._opened.pop().close()
        super().close()


def _close(opened):
    while opened:
        opened.pop().close()


class _Rows(grain.IterDataset):
    """Chunks of the rows of a source that is read from its start on."""

    def __init__(self, preparation, batch_size, shuffle, repeat, first_pass, shard):
        super().__init__()
        self.source = preparation.source
        self.seed = preparation.seed if shuffle else None
        self.shard = shard
        self.batch_size = batch_size
        self.repeat = repeat
        self.first_pass = first_pass

    def set_slice(self, part, sequential_slice=False):
        """Called by grain in worker processes, each of which reads its own rows."""
        index, count = self.shard
        # Row i goes to shard i % count, and there to worker i // count % workers.
        self.shard = (index + part.start * count, count * part.step)

    def __iter__(self):
        return _RowIterator(self)


class _RowIterator(grain.DatasetIterator):
    def __init__(self, dataset):
        super().__init__()
        self._dataset = dataset
        self.set_state({"epoch": dataset.first_pass, "delivered": 0})

    def __next__(self):
        size = self._dataset.batch_size
        rows = list(itertools.islice(self._stream, size))
        if not rows and self._dataset.repeat:
            self.set_state({"epoch": self._epoch + 1, "delivered": 0})
            rows = list(itertools.islice(self._stream, size))
        if not rows:
            raise StopIteration
        index, count = self._dataset.shard
        numbers = np.arange(self._delivered, self._delivered + len(rows))
        self._delivered += len(rows)
        return self._epoch * len(self._dataset.source) + index + numbers * count, rows

    def get_state(self):
        return {"epoch": self._epoch, "delivered": self._delivered}

    def set_state(self, state):
        self._epoch, self._delivered = state["epoch"], state["delivered"]
        # Rows that were delivered are read over: the order is that of the first time.
        dataset = self._dataset
        rows = dataset.source.stream(dataset.seed, self._epoch, dataset.shard)
        self._stream = itertools.islice(rows, self._delivered, None)
