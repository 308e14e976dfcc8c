"""The states of training on disk: everything that going on after a stop needs.

A state has a file of each process, with what that one holds, and a checksum. Written by
`SaveState`, read by `ProgressiveSchedule.fit`.
"""

import collections
import dataclasses
import secrets
import warnings

import numpy as np

from keras_mdm import backend
from keras_mdm.files import clear_leftovers
from keras_mdm.fitting.places import START
from keras_mdm.paths import as_path
from keras_mdm.saving.finite import check_finite
from keras_mdm.training import state_file
from keras_mdm.training.state_folder import (
    KEPT,
    Files,
    listed,
    remove_later,
    remove_older,
)
from keras_mdm.training.state_parts import Joined, parts_to_write

_VERSION = 1  # Of what is in a file.


@dataclasses.dataclass
class State:
    """A state on disk that is whole.

    Args:
        files: `Files`.
        values: dict of JSON values: `progress`, `run`, `settings`, `places`,
            `callbacks`.
    """

    files: Files
    values: dict

    @property
    def path(self):
        """Path of its file, of several the first."""
        return self.files.path(0)

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
            return {**START, **(places[backend.process_number()] or {})}
        return {**START, **(places[0] or {}), "state": None}

    def restore(self, mdm):
        """Gives everything that `take_state` took to a model compiled alike.

        Args:
            mdm: `MDM`, on any number of devices and processes.

        Returns:
            List of arrays: values of `mdm.metrics_variables`, which `fit` sets to zero.

        Raises:
            ValueError: if the model is another one. It is unchanged then.
        """
        joined, metrics = Joined(_named(mdm)), []
        for path in self.files.paths:
            with state_file.opened(path) as (values, arrays):
                for name, array in arrays:
                    if name.startswith("metrics/"):
                        metrics.append(array)
                        continue
                    with state_file.as_damage(f"'{path}' is damaged"):
                        joined.add(name, array, values.get("parts", {}).get(name))
        if missing := joined.missing():
            raise ValueError(
                f"the state of training in '{self.path}' does not fit this model: "
                f"'{missing[0]}' is missing or of another shape. Resume with the same "
                "configuration, or train in a new folder."
            )
        joined.assign()
        return metrics


def newest(folder):
    """The newest state that is whole; a warning names those that are damaged, lack
    files, or are of another run than most.

    Args:
        folder: Path.

    Returns:
        `State`, the same one in all processes, or `None` if there is no state at all.

    Raises:
        ValueError: if all states are damaged, or it is of a newer version, or it can't
            be told which are of this run.
    """
    folder, damaged, whole = as_path(folder), [], []
    seen = backend.from_all([(f.key, f.count, f.numbers) for f in listed(folder)])[0]
    found = [Files(folder, tuple(key), *others) for key, *others in seen]
    for files in reversed(found):
        state, error = _read(files)
        # What one process can't read none of them uses.
        errors = [error for error in backend.from_all(error) if error]
        if errors:
            damaged.append((files.key, errors[0]))
            continue
        if state.values["version"] > _VERSION:
            raise ValueError(
                f"the state of training '{state.path}' is of a newer version of "
                f"keras_mdm: {state.values['version']}, and this one reads {_VERSION}. "
                "Resume with that."
            )
        whole.append(state)
        if len(whole) == KEPT:
            break
    if whole:
        return _of_this_run(whole, damaged)
    told = ", ".join(error for _, error in damaged)
    if [files.key for files in found] == [_key({})] and not found[0].complete:
        # Of no process a step has run.
        warnings.warn(
            f"not even the first state of training was completed: {told}. Training "
            "begins anew.",
            stacklevel=2,
        )
    elif damaged:
        raise ValueError(
            f"every state of training in '{folder}' is damaged: {told}. Train in a new "
            "folder."
        )
    return None


def _read(files):
    """A pair of the `State` in files and `None`, or of `None` and what is wrong."""
    if not files.complete:
        missing = next(n for n in range(files.count) if n not in files.numbers)
        return None, f"'{files.path(missing)}' (it is missing: not all files are there)"
    first = None
    for path in files.paths:
        try:
            with state_file.opened(path) as (values, _):
                version = values.get("version")
            if type(version) is not int:
                raise ValueError(f"no number of a version: {version!r}")
            if version == _VERSION:
                state_file.check_values(values)
                if _key(values["progress"]) != files.key:
                    raise ValueError("it is another state, under a wrong name")
            first = first or values
            if values.get("token") != first.get("token"):
                raise ValueError("it was not written with the other files of its state")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, f"'{path}' ({error})"
    # What an older version may not have written is as if it had none of it.
    return State(files, {"settings": {}, "callbacks": {}, **first}), None


def _of_this_run(whole, damaged):
    """The first of states that is of the run of most of them; warns of what is not.

    A file of another run that was put here is whole, and has other numbers.
    """
    runs = collections.Counter(str(state.values.get("run")) for state in whole)
    (run, count), *others = runs.most_common()
    if others and others[0][1] == count:
        paths = ", ".join(f"'{state.path}'" for state in whole)
        raise ValueError(
            f"these states of training are of different runs: {paths}. Remove those "
            "that are not of the run that is to go on."
        )
    for state in whole:
        if str(state.values.get("run")) == run:
            found = state
            break
        damaged = [*damaged, (state.files.key, f"'{state.path}' (of another run)")]
    passed = [error for key, error in damaged if key >= found.files.key]
    if passed:
        warnings.warn(
            f"damaged states of training are passed over: {', '.join(passed)}. "
            f"Going on from '{found.path}'.",
            stacklevel=3,
        )
    return found


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
    """Copies what this process holds of a state to the memory of the host.

    Args:
        mdm: A compiled `MDM`.
        folder: Path of an existing or new folder, that all processes share.
        progress: dict of int: `stage`, `epoch`, and `step` in it.
        keep_every: int or `None`. The states after every so many epochs are kept too.
        **values: JSON values: a name of the `run`, `settings` that a resumed run must
            share, the `place` in the data of this process (see
            `keras_mdm.fitting.places`), and the states of `callbacks`.

    Returns:
        Callable without arguments that writes the state, in any thread and whatever
        the model does meanwhile: a file of each process, whole or not at all. Of older
        states the newest are kept; newer ones, which are damaged or of another
        training, are removed. It raises a `ValueError` if a weight is NaN or
        infinite, and an `OSError` if writing fails; older states stay then.
    """
    number, count = backend.process_number(), backend.number_of_processes()
    files, failure = Files(as_path(folder), _key(progress), count), None
    if number == 0:
        try:
            clear_leftovers(files.folder)
            if not any(files.key):  # A training begins: those of another must not last.
                remove_later(files)
        except OSError as error:
            failure = error
    # No process writes before this.
    given = [values.pop("place", None), values.get("run"), secrets.token_hex(8)]
    places, runs, tokens = zip(*backend.from_all(given), strict=True)
    values |= {"version": _VERSION, "progress": progress, "places": places}
    arrays, parts = parts_to_write(_named(mdm))
    values |= {"run": runs[0], "token": tokens[0], "parts": parts}
    # Not of the optimizer: sums of gradients may be NaN until their update is skipped.
    weights = [name for name in arrays if name.startswith("model/")]
    metrics = [np.array(backend.to_numpy(v)) for v in mdm.metrics_variables]
    if number == 0:
        arrays |= {f"metrics/{i}": value for i, value in enumerate(metrics)}

    def write():
        if failure is not None:
            raise failure
        check_finite(((name, arrays[name]) for name in weights), files.folder)
        state_file.write(files.path(number), values, arrays)
        if number == 0:
            # Not before: with longer epochs it may be all that there is.
            remove_later(files)
        remove_older(files.folder, keep_every)

    return write


def _key(progress):
    return tuple(progress.get(name, 0) for name in ("stage", "epoch", "step"))
