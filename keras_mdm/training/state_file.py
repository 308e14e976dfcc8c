"""One file with named arrays and JSON values, and a checksum of all of it.

A line of JSON, then each array as NumPy writes it, then the SHA-256 of what is before.
Used by `state`.
"""

import contextlib
import hashlib
import json
import os

import numpy as np

from keras_mdm.files import whole_file
from keras_mdm.paths import as_path, member
from keras_mdm.text_files import reason

_DIGEST = hashlib.sha256().digest_size


class _Summed:
    """A file that is written and summed up at once."""

    def __init__(self, file):
        self._file, self.sum = file, hashlib.sha256()

    def write(self, data):
        self.sum.update(data)
        return self._file.write(data)


def write(path, values, arrays):
    """Writes a file, whole or not at all, in each process that calls it.

    Args:
        path: Path.
        values: dict of JSON values.
        arrays: Dict of numpy arrays by name.
    """
    with whole_file(path, by_all=True) as temporary, open(temporary, "wb") as file:
        summed = _Summed(file)
        _write_line(summed, values | {"arrays": len(arrays)})
        for name, array in arrays.items():
            _write_line(summed, [name, array.dtype.name, array.shape])
            # NumPy's format knows no bfloat16.
            plain = array.reshape(-1).view(f"u{array.dtype.itemsize}")
            np.lib.format.write_array(summed, plain, allow_pickle=False)
        file.write(summed.sum.digest())


def _write_line(file, value):
    file.write(json.dumps(value, default=str).encode() + b"\n")


@contextlib.contextmanager
def opened(path):
    """Yields the JSON values of a file, and an iterator of its names and arrays.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is not as it was written.
    """
    path = as_path(path)
    with open(member(path.parent, path.name), "rb") as file:
        with as_damage("it is no state"):
            _check_sum(file)
            values = json.loads(file.readline())
            if type(values["arrays"]) is not int:
                raise ValueError(f"no number of arrays: {values['arrays']!r}")
        yield values, _arrays(file, values["arrays"], path)


def check_values(values):
    """Raises a `ValueError` unless these are values of a state; see `State`."""
    progress, places = values.get("progress"), values.get("places")
    counts = progress.values() if isinstance(progress, dict) else [None]
    states = values.get("callbacks", {})
    sound = (
        all(type(count) is int for count in counts)
        and (isinstance(places, list) and places and all(map(_is_place, places)))
        and isinstance(values.get("settings", {}), dict)
        and isinstance(states, dict)
        and all(isinstance(state, list) for state in states.values())
    )
    if not sound:
        raise ValueError("its values are not those of a state")


def _is_place(place):
    """Whether a value is a place in the data, or none; see `fitting.places`."""
    if place is None:
        return True
    return (
        isinstance(place, dict)
        and (type(place.get("taken")) is int and place["taken"] >= 0)
        and isinstance(place.get("epoch"), int | None)
        and isinstance(place.get("state"), dict | None)
    )


def _arrays(file, count, path):
    for _ in range(count):
        with as_damage(f"'{path}' is damaged"):
            name, dtype, shape = json.loads(file.readline())
            if not isinstance(name, str) or not isinstance(dtype, str):
                raise ValueError(
                    f"no name of an array and of its dtype: {name}, {dtype}"
                )
            plain = np.lib.format.read_array(file, allow_pickle=False)
            array = plain.view(np.dtype(dtype)).reshape(shape)
        yield name, array


@contextlib.contextmanager
def as_damage(what):
    """Whatever a damaged file makes json and numpy raise as a `ValueError`."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}: {type(error).__name__}: {reason(error)}") from error


def _check_sum(file):
    size, found = os.fstat(file.fileno()).st_size - _DIGEST, hashlib.sha256()
    left = max(size, 0)
    while left and (part := file.read(min(left, 2**20))):
        found.update(part)
        left -= len(part)
    if size <= 0 or file.read(_DIGEST) != found.digest():
        raise ValueError("its checksum is not that of what it holds")
    file.seek(0)
