"""The state of training on disk: everything that going on after a stop needs.

One HDF5 file, replaced whole. Written and read by `ProgressiveSchedule.fit`.
"""

import json
import os

import h5py
import keras

from keras_mdm.files import as_path
from keras_mdm.model.finite import check_finite

STATE_FILE = "training_state.h5"


class SaveState(keras.callbacks.Callback):
    """Writes the state of training after each epoch of a stage.

    Args:
        folder: Path.
        stage: int. Index of the stage.
        num_epochs: int. Epochs of the stage.
    """

    def __init__(self, folder, stage, num_epochs):
        super().__init__()
        self.folder = folder
        self.stage = stage
        self.num_epochs = num_epochs

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1 == self.num_epochs
        progress = {
            "stage": self.stage + done,
            "epoch": 0 if done else epoch + 1,
        }
        save_state(self.model, self.folder, progress)


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


def save_state(mdm, folder, progress):
    """Writes weights, averages, random state and optimizer in one file, or nothing.

    Args:
        mdm: A compiled `MDM`.
        folder: Path of an existing or new folder.
        progress: dict of JSON values to keep beside them.

    Raises:
        ValueError: if a weight is NaN or infinite; an older state stays.
    """
    folder = as_path(folder)
    check_finite([*mdm.variables, *mdm.optimizer.variables], folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{STATE_FILE}.part"
    with h5py.File(temporary, "w") as file:
        file.attrs["progress"] = json.dumps(progress)
        for name, variable in state_variables(mdm).items():
            file[name] = keras.ops.convert_to_numpy(variable.value)
        for i, variable in enumerate(mdm.optimizer.variables):
            file[f"optimizer/{i}"] = keras.ops.convert_to_numpy(variable.value)
    os.replace(temporary, folder / STATE_FILE)


def read_progress(folder):
    """The `progress` that was given to `save_state`."""
    with _open_state(folder) as file:
        return json.loads(file.attrs["progress"])


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


def _open_state(folder):
    path = as_path(folder) / STATE_FILE
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"the state of training in '{path}' can't be read: it is damaged or "
            f"missing. Cause: {error}"
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
