"""The state of training on disk: everything that going on after a stop needs.

One HDF5 file, replaced whole. Written by `SaveState`, read by
`ProgressiveSchedule.fit`.
"""

import contextlib
import json

import h5py

from keras_mdm import backend
from keras_mdm.files import as_path, whole_file
from keras_mdm.saving.finite import check_finite

STATE_FILE = "training_state.h5"
_SHOWN = 8  # Differences of settings that an error lists.


def has_state(folder):
    """Whether `folder` holds a state of training."""
    return (as_path(folder) / STATE_FILE).is_file()


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


def save_state(mdm, folder, progress, settings=None, place=None):
    """Writes weights, averages, random state and optimizer in one file, or nothing.

    Args:
        mdm: A compiled `MDM`.
        folder: Path of an existing or new folder.
        progress: dict of JSON values to keep beside them.
        settings: Optional dict of JSON values that a resumed run must share.
        place: Optional dict of JSON values. The place in the data of this process; see
            `keras_mdm.fitting.places`.

    Raises:
        ValueError: if a weight is NaN or infinite; an older state stays.
    """
    check_finite([*mdm.variables, *mdm.optimizer.variables], folder)
    whole = whole_file(as_path(folder) / STATE_FILE)
    with whole as temporary, h5py.File(temporary, "w") as file:
        file.attrs["progress"] = json.dumps(progress)
        # No attribute, which holds 64 KiB at most: vocabularies are longer.
        file["settings"] = json.dumps(settings or {}, default=str)
        file["places"] = json.dumps(backend.from_all(place))
        for name, variable in state_variables(mdm).items():
            file[name] = backend.to_numpy(variable)
        for i, variable in enumerate(mdm.optimizer.variables):
            file[f"optimizer/{i}"] = backend.to_numpy(variable)
    backend.wait_for_all()


def read_progress(folder, num_stages=None):
    """The `progress` that was given to `save_state`.

    Raises:
        ValueError: if it is none, or of a run of fewer than `num_stages`.
    """
    with _open_state(folder) as file:
        progress = {"step": 0, **json.loads(file.attrs["progress"])}
        numbers = [progress[key] for key in ("stage", "epoch", "step")]
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise KeyError(f"progress={progress}")
        if num_stages is not None and progress["stage"] >= num_stages:
            raise KeyError(f"it has {progress['stage'] + 1} stages")
    return progress


def read_place(folder):
    """The `place` that this process gave to `save_state`.

    Of a run of another number of processes, the number of batches alone is known.

    Returns:
        dict, or `None`.
    """
    with _open_state(folder) as file:
        places = json.loads(file["places"].asstr()[()])
        if places[0] is None or len(places) == backend.number_of_processes():
            return places[backend.process_number()]
        return {**places[0], "state": None}


def check_settings(folder, settings):
    """Raises an error if the state was saved by a run of other settings.

    Args:
        folder: Path.
        settings: dict of JSON values, as given to `save_state`.

    Raises:
        ValueError: with each value that differs.
    """
    with _open_state(folder) as file:
        saved = json.loads(file["settings"].asstr()[()])
    found = list(differences(saved, json.loads(json.dumps(settings, default=str))))
    if found:
        more = len(found) - _SHOWN
        lines = found[:_SHOWN] + ([f"{more} more"] if more > 0 else [])
        raise ValueError(
            f"`resume`: the training in '{folder}' had other settings: "
            + "; ".join(lines)
            + ". Go on with the same ones, or train in a new folder."
        )


def differences(saved, now, name=""):
    """Yields a text for each value that differs in two JSON values.

    Args:
        saved, now: JSON values.
        name: str. What they are called.
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in sorted({*saved, *now}):
            inside = f"{name}.{key}" if name else key
            parts = (part.get(key, "missing") for part in (saved, now))
            yield from differences(*parts, inside)
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for index, pair in enumerate(zip(saved, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif saved != now:
        yield f"{name} was {_short(saved)} and is {_short(now)}"


def _short(value):
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return f"{len(value)} of them"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def restore_state(mdm, folder):
    """Restores everything that `save_state` wrote into a model compiled alike."""
    with _open_state(folder) as file:
        optimizer = {
            f"optimizer/{i}": variable
            for i, variable in enumerate(mdm.optimizer.variables)
        }
        _assign({**state_variables(mdm), **optimizer}, file, folder)


@contextlib.contextmanager
def _open_state(folder):
    """The file of the state; whatever it lacks or can't be read is told in one way."""
    path = as_path(folder) / STATE_FILE
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(
            f"the state of training in '{path}' can't be read: it is damaged, missing "
            f"or of another version. Cause: {error}"
        ) from error


def _assign(variables, file, folder):
    for name, variable in variables.items():
        if name not in file or file[name].shape != tuple(variable.shape):
            raise ValueError(
                f"the state of training in '{folder}' does not fit this model: "
                f"'{name}' is missing or of another shape. Resume with the same "
                "configuration, or train in a new folder."
            )
    for name, variable in variables.items():
        variable.assign(file[name][()])
