"""Who uses a model's weights: one thread at a time, and none beside one that trains.

A training step takes the weights out of the model's variables, on some backends even
their memory. Used by `entry_points` and `mdm`.
"""

import contextlib
import functools
import threading


class Turns:
    """The turns of one model's threads; a thread may take one within its own."""

    def __init__(self):
        self._lock = threading.RLock()
        self._trains = False

    @contextlib.contextmanager
    def taken(self, name, trains=False):
        """Waits for other threads that draw, save or evaluate, then for none.

        Args:
            name: str. The method that needs the weights.
            trains: bool. Whether it may take very long, so that others are refused.

        Raises:
            RuntimeError: if another thread trains the model.
        """
        while not self._lock.acquire(timeout=0.05):
            if self._trains:
                raise RuntimeError(
                    f"`{name}` can't be called while another thread trains this model, "
                    "since its weights change hands at every step. Call it when `fit` "
                    "has returned, or from a callback of `fit`, such as "
                    "`keras_mdm.callbacks.SampleGrid`."
                )
        outer = self._trains
        self._trains = outer or trains
        try:
            yield
        finally:
            self._trains = outer
            self._lock.release()


def in_turn(method):
    """Decorates a method of `MDM` that reads or sets the weights."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        with self._turns.taken(method.__name__):
            self.sync_state()
            return method(self, *args, **kwargs)

    return wrapped
