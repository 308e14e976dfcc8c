"""What the converters share: choice of the backend, progress."""

import importlib.util
import os
import sys
import time


def choose_backend():
    """Takes the first backend that is installed, if none is chosen.

    It only holds the weights; what is written is the same with each.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("jax", "tensorflow", "torch"):
        if importlib.util.find_spec(name):
            os.environ.setdefault("KERAS_BACKEND", name)


class Progress:
    """One line on the standard error that says how many tensors are done."""

    def __init__(self, doing):
        self._doing = doing
        self._shown = 0.0

    def __call__(self, done, total):
        now = time.monotonic()
        if done < total and now - self._shown < 0.2:
            return
        self._shown = now
        end = "\n" if done == total else ""
        print(
            f"\r{self._doing}: {done} of {total} tensors",
            end=end,
            file=sys.stderr,
            flush=True,
        )
