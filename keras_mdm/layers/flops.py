"""Counts what layers multiply while a function of them is traced.

A layer says what it costs where it computes it, so nothing describes a network twice.
`Dense`, `Conv3x3`, `FrameConv` and `attend` do; `networks.cost` reads the sum.
"""

import contextlib
import contextvars

_counted = contextvars.ContextVar("counted", default=None)


def record(products):
    """Notes that a layer multiplies and adds `products` times."""
    counted = _counted.get()
    if counted is not None:
        counted.append(2 * products)  # A multiplication and an addition are two FLOPs.


@contextlib.contextmanager
def counting():
    """Yields the list of FLOPs of each layer that is called within."""
    counted = []
    token = _counted.set(counted)
    try:
        yield counted
    finally:
        _counted.reset(token)
