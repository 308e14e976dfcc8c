"""Weights & Biases or Trackio: where figures are sent besides files."""

import importlib


def find(name):
    """The module of a tracker, or `None` without a name."""
    try:
        return importlib.import_module(name) if name else None
    except ImportError as error:
        raise ImportError(f"run.tracker={name} needs `pip install {name}`.") from error


def start(tracker, name, config):
    """Begins a run there, with a dict of settings.

    Raises:
        ValueError: if the tracker can't begin.
    """
    try:
        tracker.init(project="keras-mdm", name=name, config=config)
    except Exception as error:  # Each has its own: no login, no network, no disk.
        raise ValueError(
            f"run.tracker={tracker.__name__} can't begin: {error}"
        ) from error


def finish(tracker):
    """Ends the run there; tells of an error, which costs nothing of the run folder."""
    from keras_mdm.training.attempts import Attempts

    told = "The end of the run there", "All else is written."
    with Attempts(*told, errors=Exception).going_on():
        tracker.finish()
