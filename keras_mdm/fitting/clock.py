"""How long training steps take, and how much of it they wait for data."""

import queue
import threading
import time

import keras


class StepClock:
    """Times training steps by when their losses are there, in one call of `fit`.

    An accelerator runs steps while the host goes on: it hands over the next ones and
    reads their batches. So a thread waits for the losses of each step. A step takes the
    time from the end of the one before it to its own end. It waits for data as long as
    the host reads a batch (with checking it and encoding its captions, without copying
    it to the device) and every step that was handed over before has ended; reading
    beside a step that still runs costs nothing and counts nothing.

    The first step of an epoch is left out: it has compilation and whatever was done
    between epochs in it. Where other threads keep the interpreter busy, ends are
    noticed some milliseconds late, and waits are shorter by as much.

    Args:
        row: dict of arrays of one row, as a batch has them.
        size: int. Pictures or clips of a batch.

    Attributes:
        row, size: As above.
        flops: Number or `None`. Of a step; who counts them first leaves them here.
    """

    def __init__(self, row, size):
        self.row = row
        self.size = size
        self.flops = None
        self._counted = (0, 0.0, 0.0)
        self._reads = []
        self._handed = queue.Queue()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def timed(self, batches):
        """Yields what an iterable does, and notes how long each element took."""
        iterator = iter(batches)
        while True:
            begin = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._reads.append((begin, time.perf_counter()))
            yield batch

    def begin_epoch(self):
        """The step that follows is the first of an epoch."""
        self._reads = []
        self._handed.put((0, [], None))

    def note(self, steps, losses):
        """Steps were handed over.

        Args:
            steps: int.
            losses: Tensor that is there when they have ended.
        """
        reads, self._reads = self._reads, []
        self._handed.put((steps, reads, losses))

    def totals(self):
        """Steps, their seconds, and seconds of waiting so far; waits for the device."""
        self._handed.join()
        return self._counted

    def close(self):
        """Ends the thread."""
        self._handed.put(None)
        self._thread.join()

    def _watch(self):
        last = None
        while (item := self._handed.get()) is not None:
            try:
                last = self._count(*item, last)
            finally:
                self._handed.task_done()

    def _count(self, steps, reads, losses, last):
        """Waits for steps and adds them up.

        Returns:
            The moment at which they ended, `None` before the first of an epoch.
        """
        if not steps:
            return None
        try:
            keras.ops.convert_to_numpy(losses)
        except Exception:
            return None  # The step failed, which `fit` tells.
        now = time.perf_counter()
        if last is not None:
            waited = sum(max(0.0, end - max(begin, last)) for begin, end in reads)
            before = self._counted
            self._counted = (
                before[0] + steps,
                before[1] + now - last,
                before[2] + waited,
            )
        return now
