"""First values of weights, made by numpy on the host.

Made by the backend, each shape would be compiled on JAX: seconds for a small network, a
minute for a large one. Random numbers follow `keras.utils.set_random_seed` and are the
same on every backend. Used by all layers with weights and by the moving average.
"""

import contextlib
import contextvars
import math
import random

import keras
import numpy as np
from keras import ops

_LEFT = contextvars.ContextVar("numbers and arrays that may still be made")


@contextlib.contextmanager
def at_most(numbers, arrays, blank):
    """Within it, weights of so many numbers in so many arrays can be made, not more.

    For models of strangers, whose file may ask for any size.

    Args:
        numbers, arrays: int.
        blank: bool. Whether they are all zero, since they are read from a file next;
            later random numbers are the same.
    """
    token = _LEFT.set([numbers, arrays, blank])
    try:
        yield
    finally:
        _LEFT.reset(token)


def _take(shape):
    """Counts a weight, and returns whether it is blank."""
    left = _LEFT.get(None)
    if left is not None:
        left[0] -= math.prod(shape)
        left[1] -= 1
        if min(left[:2]) < 0:
            raise ValueError(
                "the network is larger than its file of weights, which belongs to "
                "another. Nothing was loaded."
            )
    return left is not None and left[2]


class _OnHost(keras.initializers.Initializer):
    """Base: one number says all there is to say."""

    def __init__(self, number):
        self.number = number

    def __call__(self, shape, dtype=None):
        if _take(shape):
            if not isinstance(self, HostConstant):
                random.getrandbits(64)
            values = np.zeros(shape, "float32")
        else:
            values = self._values(tuple(shape))
        return ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self):
        return {"number": self.number}


class HostConstant(_OnHost):
    """The same number everywhere."""

    def _values(self, shape):
        return np.full(shape, self.number, "float32")


class HostUniform(_OnHost):
    """Uniform random numbers between minus and plus `number`."""

    def _values(self, shape):
        values = _generator().random(shape, dtype="float32")
        return (2.0 * values - 1.0) * np.float32(self.number)


class HostNormal(_OnHost):
    """Normal random numbers of mean zero and standard deviation `number`."""

    def _values(self, shape):
        values = _generator().standard_normal(shape, dtype="float32")
        return values * np.float32(self.number)


def _generator():
    return np.random.default_rng(random.getrandbits(64))
