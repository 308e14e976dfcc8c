"""The states of training on disk: everything that going on after a stop needs.

A state is one file with a checksum. Written by `SaveState`, read by
`ProgressiveSchedule.fit`.
"""

import dataclasses
import pathlib
import re
import warnings

import numpy as np

from keras_mdm import backend
from keras_mdm.files import as_path
from keras_mdm.saving.finite import check_finite
from keras_mdm.training import state_file

KEPT = 3  # States that are kept, the newest ones.
_NAME = "stage{}_epoch{}_step{}.state"
_PATTERN = re.compile(r"stage(\d+)_epoch(\d+)_step(\d+)\.state")
_VERSION = 1  # Of what is in a file.


@dataclasses.dataclass
class State:
    """A state on disk that is whole.

    Args:
        path: Path of its file.
        values: dict of JSON values: `progress`, `settings`, `places`, `callbacks`.
    """

    path: pathlib.Path
    values: dict

    @property
    def progress(self):
        """The `progress` that was given to `take_state`."""
        return self.values["progress"]

    @property
    def place(self):
        """The `place` that this process gave to `take_state`.

        Of a run of another number of processes, the number of batches alone is known.
        """
        places = self.values["places"]
        if len(places) == backend.number_of_processes():
            return places[backend.process_number()]
        return places[0] and {**places[0], "state": None}

    def restore(self, mdm):
        """Gives everything that `take_state` took to a model compiled alike.

        Args:
            mdm: `MDM`.

        Returns:
            List of arrays: values of `mdm.metrics_variables`, which `fit` sets to zero.

        Raises:
            ValueError: if the model is another one. It is unchanged then.
        """
        with state_file.opened(self.path) as (_, arrays):
            found = dict(arrays)
        wanted = _named(mdm)
        for name, variable in wanted.items():
            if name not in found or found[name].shape != tuple(variable.shape):
                raise ValueError(
                    f"the state of training in '{self.path}' does not fit this model: "
                    f"'{name}' is missing or of another shape. Resume with the same "
                    "configuration, or train in a new folder."
                )
        for name, variable in wanted.items():
            variable.assign(found[name])
        return [value for name, value in found.items() if name.startswith("metrics/")]


def newest(folder):
    """The newest state that is whole; a warning names those that are damaged.

    Args:
        folder: Path.

    Returns:
        `State`, or `None` if there is no state at all.

    Raises:
        ValueError: if all states are damaged, or it is of a newer version.
    """
    damaged = []
    for key, path in reversed(_listed(folder)):
        try:
            with state_file.opened(path) as (values, _):
                found = State(path, values)
            if type(values["version"]) is not int:
                raise ValueError(f"no number of a version: {values['version']!r}")
            if values["version"] == _VERSION:
                _check(values, key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"'{path}' ({error})")
            continue
        if values["version"] > _VERSION:
            raise ValueError(
                f"the state of training '{path}' is of a newer version of keras_mdm: "
                f"{values['version']}, and this one reads {_VERSION}. Resume with that."
            )
        if damaged:
            warnings.warn(
                f"damaged states of training are passed over: {', '.join(damaged)}. "
                f"Going on from '{path}'.",
                stacklevel=2,
            )
        return found
    if damaged:
        raise ValueError(
            f"every state of training in '{folder}' is damaged: {', '.join(damaged)}. "
            "Train in a new folder."
        )
    return None


def _check(values, key):
    """Raises a `ValueError` unless these are the values of the state of a key."""
    progress, places = values["progress"], values["places"]
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
    if _key(progress) != key:
        raise ValueError("it is another state, under a wrong name")


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


def state_variables(mdm):
    """Variables of the model by a name that is the same in every run."""
    named, seeds = {}, 0
    for variable in mdm.variables:
        name = f"model/{variable.path}"
        if variable.name == "seed_generator_state":
            # Keras numbers random generators by how many the process has made.
            name = f"random/{seeds}"
            seeds += 1
        named[name] = variable
    return named


def _named(mdm):
    """Variables of the model and its optimizer, by name."""
    optimizer = {f"optimizer/{i}": v for i, v in enumerate(mdm.optimizer.variables)}
    return state_variables(mdm) | optimizer


def take_state(mdm, folder, progress, keep_every=None, **values):
    """Copies what a state has to the memory of the host.

    Args:
        mdm: A compiled `MDM`.
        folder: Path of an existing or new folder.
        progress: dict of int: `stage`, `epoch`, and `step` in it.
        keep_every: int or `None`. The states after every so many epochs are kept too.
        **values: JSON values: `settings` that a resumed run must share, the `place` in
            the data of this process (see `keras_mdm.fitting.places`), and the states of
            `callbacks`.

    Returns:
        Callable without arguments that writes the state, in any thread and whatever
        the model does meanwhile: one file, whole or not at all. Of older states the
        newest are kept; newer ones, which are damaged or of another training, are
        removed before. It raises a `ValueError` if a weight is NaN or infinite, and an
        `OSError` if writing fails; older states stay then. Of several processes the
        first writes.
    """
    values["places"] = backend.from_all(values.pop("place", None))
    values |= {"version": _VERSION, "progress": progress}
    variables = _named(mdm)
    weights = set(variables)
    variables |= {f"metrics/{i}": v for i, v in enumerate(mdm.metrics_variables)}
    first, arrays = backend.process_number() == 0, {}
    for name, variable in variables.items():
        value = backend.to_numpy(variable)
        if first:
            # A copy: on a CPU the next step may take the memory of what is seen here.
            arrays[name] = np.array(value)

    def write():
        if first:
            check_finite(((n, arrays[n]) for n in weights), folder)
            _write(as_path(folder), _key(progress), values, arrays, keep_every)

    return write


def _write(folder, key, values, arrays, keep_every):
    _remove(path for other, path in _listed(folder) if other > key)
    _remove(folder.glob(".stage*.state"))  # Of a writer that was killed.
    path = folder / _NAME.format(key[0] + 1, *key[1:])
    state_file.write(path, values, arrays)
    older = _listed(folder)[:-KEPT]
    _remove(path for other, path in older if not _stays(other, keep_every))


def _stays(key, keep_every):
    _, epoch, step = key
    return bool(keep_every and epoch and not step and epoch % keep_every == 0)


def _key(progress):
    return tuple(progress.get(name, 0) for name in ("stage", "epoch", "step"))


def _listed(folder):
    """Pairs of key and path of the states in a folder, sorted."""
    found = []
    for path in as_path(folder).glob("*.state"):
        if match := _PATTERN.fullmatch(path.name):
            stage, epoch, step = map(int, match.groups())
            found.append(((stage - 1, epoch, step), path))
    return sorted(found)


def _remove(paths):
    for path in list(paths):
        path.unlink(missing_ok=True)
