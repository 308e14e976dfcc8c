"""Files of weights that Keras wrote, looked through before Keras reads them.

HDF5 may say that values lie in other files, that one stands for others, or that a few
bytes are terabytes. Keras' own files have arrays of numbers alone, stored as they are.
"""

import math
import pathlib

import h5py

from keras_mdm.paths import as_path, member
from keras_mdm.text_files import printable, read_json


def check_weights_files(path):
    """As `check_weights_file`, also for the index of a model in several files."""
    path = as_path(path)
    if path.suffix == ".json":
        names = read_json(path).get("weight_map")
        for name in _flat(names.values() if isinstance(names, dict) else [None]):
            if not isinstance(name, str) or pathlib.PurePath(name).name != name:
                raise ValueError(
                    f"'{printable(path)}' must name files beside it. "
                    f"Received: {str(name)[:80]!r}"
                )
            check_weights_file(member(path.parent, name))
    elif path.suffix == ".h5":
        check_weights_file(path)


def _flat(values):
    for value in values:
        yield from value if isinstance(value, list) else [value]


def check_weights_file(path):
    """How many numbers, and how many arrays, an HDF5 file of weights has.

    Raises a `ValueError` unless it has arrays of numbers alone, all of them in it.
    """
    path = as_path(path)
    if not path.is_file():
        raise ValueError(f"'{printable(path)}' must be a file, and is none.")
    shapes = []
    try:
        with h5py.File(path, "r") as file:
            _walk(file, shapes, set())
        size = path.stat().st_size
        if sum(number * width for number, width in shapes) > size:
            raise ValueError(f"its arrays need more than its {size} bytes")
    # Whatever a damaged file makes HDF5 raise.
    except Exception as error:
        raise ValueError(
            f"'{printable(path)}' is damaged, or no file of weights: {error}"
        ) from error
    return sum(number for number, _ in shapes), len(shapes)


def _walk(group, shapes, seen):
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{name}' is a link to elsewhere, which is not followed")
        entry = group[name]
        if not isinstance(entry, h5py.Dataset):
            place = h5py.h5o.get_info(entry.id).addr
            if place in seen:
                raise ValueError(f"the group '{name}' is in it twice")
            seen.add(place)
            _walk(entry, shapes, seen)
            continue
        layout = entry.id.get_create_plist()
        stored = layout.get_nfilters() == 0 and not entry.is_virtual
        if entry.external or not stored or entry.dtype.kind not in "biufV":
            raise ValueError(
                f"the array '{name}' is not stored in it as plain numbers, which Keras "
                "does"
            )
        shapes.append((math.prod(entry.shape), entry.dtype.itemsize))
