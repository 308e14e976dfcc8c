"""Values that are written in parts, each by the process that holds it, and put together
again for whatever devices read them. Used by `state`.
"""

import numpy as np

from keras_mdm import backend


def parts_to_write(variables):
    """What this process writes of variables.

    Args:
        variables: dict of variables by name.

    Returns:
        Two dicts: arrays by name, and for those that are a part, by the same name, the
        list of the variable's name, where the part begins along each axis, and the
        variable's shape.
    """
    arrays, parts = {}, {}
    held = backend.parts_to_write(list(variables.values()))
    for (name, variable), pairs in zip(variables.items(), held, strict=True):
        shape = tuple(variable.shape)
        for bounds, array in pairs:
            key = name
            if array.shape != shape:
                start = [axis_start for axis_start, _ in bounds]
                key = f"{name} from {start}"
                parts[key] = [name, start, shape]
            arrays[key] = array
    return arrays, parts


class Joined:
    """Puts together the parts of variables that this process holds.

    Args:
        variables: dict of variables by name.
    """

    def __init__(self, variables):
        self._variables = variables
        self._bounds = {n: backend.bounds_here(v) for n, v in variables.items()}
        self._found = {name: {} for name in variables}
        self._counts = dict.fromkeys(variables, 0)

    def add(self, name, array, part=None):
        """Takes an array, and what `parts_to_write` returned for it if it is a part."""
        name, start, shape = part or (name, (0,) * array.ndim, array.shape)
        variable = self._variables.get(name)
        if variable is None or tuple(variable.shape) != tuple(shape):
            return
        there = [(a, a + size) for a, size in zip(start, array.shape, strict=True)]
        for here in self._bounds[name]:
            both = [
                (max(a, c), min(b, d))
                for (a, b), (c, d) in zip(here, there, strict=True)
            ]
            if array.size and any(a >= b for a, b in both):
                continue
            if here not in self._found[name]:
                sides = [b - a for a, b in here]
                self._found[name][here] = np.empty(sides, array.dtype)
            taken = array[_within(both, there)]
            self._found[name][here][_within(both, here)] = taken
            self._counts[name] += taken.size

    def missing(self):
        """Names of variables that are not there, or not all of them, in this shape."""
        return [
            name
            for name, bounds in self._bounds.items()
            if self._counts[name] != sum(_size(b) for b in bounds)
        ]

    def assign(self):
        """Gives the variables their values."""
        for name, variable in self._variables.items():
            backend.assign_parts(variable, self._found[name])


def _within(part, outer):
    """Index of a part in an array, both given by their bounds."""
    pairs = zip(part, outer, strict=True)
    return tuple(slice(a - first, b - first) for (a, b), (first, _) in pairs)


def _size(bounds):
    return int(np.prod([b - a for a, b in bounds], dtype=int))
