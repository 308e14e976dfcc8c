"""Who uses a model's weights: any number of threads that read, or one that does more.

A training step takes the weights out of the model's variables, on some backends even
their memory. Used by `fit` and `mdm`.
"""

import collections
import contextlib
import functools
import threading

from keras_mdm import backend


class Turns:
    """The turns of one model's threads; a thread may take one within its own."""

    def __init__(self):
        self._ended = threading.Condition()
        self._readers = collections.Counter()
        self._owner, self._depth, self._trains = None, 0, False

    @contextlib.contextmanager
    def taken(self, name, trains=False, reads=False):
        """Waits for other threads whose turn excludes this one, then excludes them.

        Args:
            name: str. The method that needs the weights.
            trains: bool. Whether it may take very long, so that others are refused.
            reads: bool. Whether others may read at the same time.

        Raises:
            RuntimeError: if another thread trains the model.
        """
        me = threading.get_ident()
        with self._ended:
            while not self._is_free(me, reads):
                if self._trains and self._owner != me:
                    raise RuntimeError(
                        f"`{name}` can't be called while another thread trains this "
                        "model, since its weights change hands at every step. Call it "
                        "when `fit` has returned, or from a callback of `fit`, such as "
                        "`keras_mdm.callbacks.SampleGrid`."
                    )
                # Not for ever: signals are handled in between.
                self._ended.wait(0.05)
            if reads:
                self._readers[me] += 1
            else:
                self._owner, self._depth = me, self._depth + 1
            outer, self._trains = self._trains, self._trains or trains
        try:
            yield
        finally:
            with self._ended:
                self._trains = outer
                if reads:
                    self._readers[me] -= 1
                else:
                    self._depth -= 1
                    self._owner = me if self._depth else None
                self._ended.notify_all()

    @property
    def trains(self):
        """Whether the model is trained now, by whatever thread."""
        return self._trains

    def check_between_steps(self, name):
        """Raises a `RuntimeError` if the model is trained now, by whatever thread."""
        if self.trains:
            raise RuntimeError(
                f"`{name}` can't be called while `fit` runs, which would lose its "
                "step. From a callback set `model.stop_training = True`, and call it "
                "when `fit` has returned."
            )

    def _is_free(self, me, reads):
        if self._owner not in (None, me):
            return False
        others = any(count and who != me for who, count in self._readers.items())
        return reads or not others


def in_turn(method, reads=False):
    """Decorates a method of `MDM` that sets the weights, or only reads them."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        with self.turns.taken(method.__name__, reads=reads):
            backend.sync_weights(self)
            return method(self, *args, **kwargs)

    return wrapped


reading = functools.partial(in_turn, reads=True)
