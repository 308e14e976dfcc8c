"""The state of training on disk: everything that going on after a stop needs.

One HDF5 file, replaced whole. Written and read by `ProgressiveSchedule.fit`.
"""

import contextlib
import json

import h5py
import keras

from keras_mdm import backend
from keras_mdm.files import as_path, whole_file
from keras_mdm.saving.finite import check_finite
from keras_mdm.training.stage_callback import steps_done

STATE_FILE = "training_state.h5"
_SHOWN = 8  # Differences of settings that an error lists.


class SaveState(keras.callbacks.Callback):
    """Writes the state of training after each epoch of a stage, and when asked to.

    Args:
        folder: Path.
        settings: dict of JSON values; see `ProgressiveSchedule.settings`.
        index: int. Index of the stage.
        stage: `Stage`.
    """

    def __init__(self, folder, settings, index, stage):
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.index = index
        self.rounds = stage.rounds()

    def begin_fit(self, mdm, done):
        """Must be called before each `fit`, with the steps of its epoch that are done.

        Args:
            mdm: `MDM`.
            done: int.
        """
        self.set_model(mdm)
        self.epoch, self.done = None, done

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begin = epoch, steps_done(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self._save(epoch + 1, 0)
        self.epoch, self.done = None, 0

    def save_now(self):
        """Writes the state in the middle of an epoch, if a step of it was done.

        A pass over data of unknown length is begun anew from there.
        """
        count = steps_done(self.model)
        if self.epoch is not None and count > self.begin:
            step = self.done + count - self.begin
            whole = step == self.rounds[self.epoch]
            self._save(self.epoch + whole, 0 if whole else step)
        print(
            f"\nStopped after step {count} of stage {self.index + 1}. `resume=True` "
            f"goes on from the state in '{self.folder}'.",
            flush=True,
        )

    def _save(self, epoch, step):
        ended = epoch == len(self.rounds)
        progress = {
            "stage": self.index + ended,
            "epoch": 0 if ended else epoch,
            "step": 0 if self.rounds[0] is None else step,
        }
        save_state(self.model, self.folder, progress, self.settings)


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


def save_state(mdm, folder, progress, settings=None):
    """Writes weights, averages, random state and optimizer in one file, or nothing.

    Args:
        mdm: A compiled `MDM`.
        folder: Path of an existing or new folder.
        progress: dict of JSON values to keep beside them.
        settings: Optional dict of JSON values that a resumed run must share.

    Raises:
        ValueError: if a weight is NaN or infinite; an older state stays.
    """
    check_finite([*mdm.variables, *mdm.optimizer.variables], folder)
    whole = whole_file(as_path(folder) / STATE_FILE)
    with whole as temporary, h5py.File(temporary, "w") as file:
        file.attrs["progress"] = json.dumps(progress)
        # No attribute, which holds 64 KiB at most: vocabularies are longer.
        file["settings"] = json.dumps(settings or {}, default=str)
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
        if num_stages is not None and progress["stage"] > num_stages:
            raise KeyError(f"it has {progress['stage']} stages")
    return progress


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


def restore_weights(mdm, folder):
    """Restores weights, averages and random state, not the optimizer."""
    with _open_state(folder) as file:
        _assign(state_variables(mdm), file, folder)


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
