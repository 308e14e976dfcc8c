"""Snapshots of power-function averages, and averages that are put together from them.

One `.npz` file each: `sigma_rel` of the averages, `updates` of each level, the numbers
in its name as `place`, and the values of average n in float16 as
`n/path of the variable`. Called by
`keras_mdm.callbacks.AverageSnapshots`; `load_average` is bound to `MDM`.
"""

import contextlib
import math
import re
import zipfile

import numpy as np

from keras_mdm import backend
from keras_mdm.checks import between
from keras_mdm.files import whole_file
from keras_mdm.paths import as_path, member
from keras_mdm.power_averages import gamma_of, solve_weights
from keras_mdm.saving.finite import check_finite

_PATTERN = re.compile(r"stage(\d+)_step(\d+)\.npz")


def write_snapshot(mdm, path):
    """Writes the power-function averages of an `MDM` in float16 as an `.npz` file.

    A weight that is NaN, infinite or too large is a `ValueError`; nothing is written
    then.
    """
    averages = mdm.power_averages
    lengths = np.array([average.sigma_rel for average in averages])
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        updates = backend.to_numpy(averages[0].num_updates)
        _write_array(file, "sigma_rel", lengths)
        _write_array(file, "updates", updates)
        _write_array(file, "place", _place(path))
        for number, average in enumerate(averages):
            for source, kept in zip(average.sources, average.averages, strict=True):
                with np.errstate(over="ignore"):
                    value = backend.to_numpy(kept).astype("float16")
                check_finite([(source.path, value)], path)
                _write_array(file, f"{number}/{source.path}", value)


def _write_array(file, name, value):
    # Without the time of writing, so that equal averages are equal files.
    with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, value, allow_pickle=False)


def _place(path):
    """The numbers in the name of a snapshot: of the stage, from 1, and of the step."""
    match = _PATTERN.fullmatch(path.name)
    return np.array([int(number) for number in match.groups()])


def listed(folder):
    """Pairs of (stage from 0, step) and path of the snapshots in a folder, sorted."""
    found = []
    for path in as_path(folder).glob("*.npz"):
        if match := _PATTERN.fullmatch(path.name):
            found.append(((int(match[1]) - 1, int(match[2])), path))
    return sorted(found)


def path_of(folder, stage, step):
    """Path of a snapshot; see `listed`."""
    return as_path(folder) / f"stage{stage + 1}_step{step}.npz"


def load_average(self, folder, sigma_rel):
    """Sets the weights, and their average, to an average of any length.

    It is put together from the snapshots of two others, at the end of the training that
    they are of, of each level on its own.

    Args:
        folder: Path of the snapshots that `keras_mdm.callbacks.AverageSnapshots` wrote.
        sigma_rel: float. Length of the average: the standard deviation of what it
            covers, as a fraction of the training; 0.05 to 0.1 is usual.

    Returns:
        float: how far the average is from the one wanted, in its profile over time and
        as a fraction; the largest of all levels. Lengths that were kept have 0.

    Raises:
        ValueError: if there are no snapshots, or they are damaged or of another
            network; the weights are as before then.
    """
    gamma = gamma_of(sigma_rel)
    paths = [path for _, path in listed(folder)]
    if not paths:
        raise ValueError(
            f"there are no snapshots of averages in '{folder}': they are written in "
            "training, by `keras_mdm.callbacks.AverageSnapshots`."
        )
    variables = self.network.weights
    levels = self.network.level_numbers()
    with contextlib.ExitStack() as stack:
        snapshots = [stack.enter_context(_opened(path)) for path in paths]
        for snapshot in snapshots:
            snapshot.check_network([v.path for v in variables], max(levels) + 1)
        plans = [_plan(snapshots, n, gamma) for n in range(max(levels) + 1)]
        values = []
        for variable, level in zip(variables, levels, strict=True):
            total = np.zeros(variable.shape)
            for snapshot, number, weight in plans[level][0]:
                name = f"{number}/{variable.path}"
                total += weight * snapshot.read(name, variable.shape)
            values.append(total.astype("float32"))
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    self.reset_ema()
    return max(error for _, error in plans)


class _Snapshot:
    """A snapshot that is open, and read array by array."""

    def __init__(self, path, file):
        self._path, self._file = path, file
        lengths, self.updates = map(self._numbers, ("sigma_rel", "updates"))
        with _as_damage(path):
            self.gammas = list(map(gamma_of, lengths))
            # Older ones do not say it.
            if "place" in file and self._numbers("place") != _place(path).tolist():
                raise ValueError("it is another one, under a wrong name")

    def check_network(self, paths, levels):
        """Raises a `ValueError` unless it has these variables and as many levels."""
        wanted = {f"{n}/{path}" for n in range(len(self.gammas)) for path in paths}
        found = {name for name in self._file.files if "/" in name}
        if found != wanted or len(self.updates) != levels:
            raise ValueError(
                f"the snapshot '{self._path}' is of another network: it has "
                f"{len(found)} arrays of {len(self.updates)} levels, and this network "
                f"has {len(wanted)} of {levels}; only one of both has "
                f"{sorted(found ^ wanted)[:3]}."
            )

    def read(self, name, shape):
        """The values of a variable, whose checksum must be right."""
        with _as_damage(self._path):
            value = self._file[name]
            if value.dtype != np.float16:
                raise ValueError(f"'{name}' has the dtype {value.dtype}")
        if value.shape != tuple(shape):
            raise ValueError(
                f"the snapshot '{self._path}' is of another network: '{name}' has the "
                f"shape {value.shape}, and this network's {tuple(shape)}."
            )
        return value

    def _numbers(self, name):
        """List of the numbers in an array."""
        with _as_damage(self._path):
            value = self._file[name]
            numbers = value.tolist() if value.ndim == 1 else [None]
            if not all(between(number, 0, 2**53) for number in numbers):
                raise ValueError(f"'{name}' has {str(numbers)[:80]}")
        return numbers


@contextlib.contextmanager
def _as_damage(path):
    """Whatever a damaged file makes NumPy and zipfile raise as a `ValueError`."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"the snapshot '{path}' is damaged ({error}): remove it to go on without."
        ) from error


@contextlib.contextmanager
def _opened(path):
    with _as_damage(path):
        file = np.load(member(path.parent, path.name), allow_pickle=False)
        # Stored as they are: no more than the file can come out of it.
        if any(entry.compress_type for entry in file.zip.infolist()):
            raise ValueError("its arrays are compressed")
    with file:
        yield _Snapshot(path, file)


def _plan(snapshots, level, gamma):
    """What to sum up for a level, and how far it is from what is wanted.

    Returns:
        A pair: list of (snapshot, number of the average, weight), and a float.
    """
    parts, last = [], math.inf
    for snapshot in reversed(snapshots):
        updates = int(snapshot.updates[level])
        if updates > last:
            break  # The average began anew since.
        if 0 < updates < last:
            kept = enumerate(snapshot.gammas)
            parts += [(snapshot, number, updates, power) for number, power in kept]
        last = updates
    if not parts:  # A level that was not trained.
        return [(snapshots[-1], 0, 1.0)], 0.0
    updates, gammas = (np.array([part[i] for part in parts]) for i in (2, 3))
    weights, error = solve_weights(updates, gammas, updates[0], gamma)
    chosen = zip(parts, weights, strict=True)
    return [(s, n, w) for (s, n, *_), w in chosen if abs(w) > 1e-7], error
