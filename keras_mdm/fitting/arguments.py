"""What `fit` and `evaluate` accept besides a good batch, and errors for the rest.

Arguments that Keras would ignore or meet with an error about something else are refused
by their names, before anything is computed.
"""

import collections.abc
import warnings

import keras
import numpy as np

from keras_mdm.checks import check_number, check_whole
from keras_mdm.fitting import streams
from keras_mdm.fitting.batches import check_no_targets, pictures_of


def check_counts(**counts):
    """Raises a `ValueError` unless each is `None` or a whole number from 1."""
    for name, value in counts.items():
        if value is not None:
            check_whole(**{name: value})


def check_no_class_weight(class_weight):
    """Raises a `ValueError` if there are weights of classes, which need targets."""
    if class_weight is not None:
        raise ValueError(
            "`class_weight` weighs targets, and MDM has none: give `sample_weight`, or "
            "let the data set yield (batch, None, sample_weight). "
            f"Received: class_weight={class_weight!r}"
        )


def prepare_batch(x, y, sample_weight, spec):
    """One batch for a single step, checked: a dict of arrays, and weights or `None`."""
    x, sample_weight = unpack("x", x, y, sample_weight)
    x, _, weight = spec.prepare_element((x, None, sample_weight), warn=True)
    spec.check_size(len(pictures_of(x)))
    return x, weight


def unpack(argument, value, y=None, sample_weight=None):
    """Data and sample weights of what is given as `x` or `validation_data`.

    They may be given apart, or as a tuple `(data, y, sample_weight)` or a beginning of
    it.
    """
    if isinstance(value, tuple):
        if not 1 <= len(value) <= 3 or not (y is None and sample_weight is None):
            raise ValueError(
                f"`{argument}` may be a tuple (data, y, sample_weight), where y is "
                "None and nothing is given apart; batches are given as a list. "
                f"Received: a tuple of {len(value)}"
            )
        value, y, sample_weight = (*value, None, None)[:3]
    check_no_targets(y)
    return value, sample_weight


def split(x, sample_weight, fraction, spec):
    """Divides arrays into those to train on and the last ones, to validate on.

    Returns:
        A triple: dict of arrays, their weights, and a tuple for `validation_data`.
    """
    check_number(0, below=1, validation_split=fraction)
    if not isinstance(x, collections.abc.Mapping):
        raise ValueError(
            "`validation_split` is for a dict of arrays: of a data set, give a part as "
            f"`validation_data`. Received: validation_split={fraction}, x of type "
            f"{type(x).__name__}"
        )
    batch, _, weights = _prepared_arrays(x, sample_weight, spec, "training data")
    size = len(pictures_of(batch))
    kept = int(size * (1.0 - fraction))
    if not kept:
        raise ValueError(
            f"`validation_split` leaves nothing to train on. Received: "
            f"validation_split={fraction} for {size} entries"
        )
    first, last = (
        {key: array[rows] for key, array in batch.items()}
        for rows in (slice(kept), slice(kept, None))
    )
    if weights is None:
        return first, None, (last,)
    return first, weights[:kept], (last, None, weights[kept:])


def prepare(
    x,
    spec,
    name,
    sample_weight=None,
    batch_size=None,
    steps=None,
    passes=1,
    shuffle=False,
):
    """Makes data for Keras of the data that a user gives, all of it checked.

    Args:
        x: dict of arrays, or a data set of batches.
        spec: `BatchSpec`.
        name: str. What they are: `"training data"`, of which only whole batches are
            taken, `"validation data"` or `"evaluation data"`.
        sample_weight: Weights of arrays, or `None`.
        batch_size: int or `None`. Of arrays.
        steps: int or `None`. Batches of an epoch.
        passes: int. How often the data are read from the beginning.
        shuffle: bool. Whether arrays, or batches of a PyDataset, are shuffled.

    Returns:
        `streams.PreparedData`.

    Raises:
        ValueError: if the data are of no kind that `fit` takes, or the first batch, or
            any entry of arrays, does not fit the model.
    """
    trains = name == "training data"
    prefix = "validation_" if name == "validation data" else ""
    steps_name = "steps_per_epoch" if trains else f"{prefix}steps"
    if isinstance(x, collections.abc.Mapping):
        batch, _, weights = _prepared_arrays(x, sample_weight, spec, name)
        size = len(pictures_of(batch))
        if batch_size is None:
            batch_size = -(-size // steps) if steps else 32
        batch_size = min(batch_size, size)
        left = size % batch_size
        if left and not trains:
            try:
                spec.check_size(left)
            except ValueError as error:
                number = size // batch_size
                raise ValueError(
                    f"batch {number} of the {name} (the first is 0): {error}"
                ) from None
        if left and trains and not shuffle:
            warnings.warn(
                f"the last {left} of {size} entries of the {name} take no part, fewer "
                f"than a batch of {batch_size}: with `shuffle=True` they would be "
                "others in each epoch.",
                stacklevel=3,
            )
        arrays = streams.ArrayBatches(
            batch, weights, batch_size, shuffle, drop_remainder=trains
        )
        return streams.PreparedData(arrays, spec, name)
    if (
        isinstance(x, (str, bytes, type))
        or hasattr(x, "shape")
        or not (hasattr(x, "__iter__") or isinstance(x, keras.utils.PyDataset))
    ):
        _refuse_kind("validation_data" if prefix else "x", x, spec)
    for argument, value in (
        ("sample_weight", sample_weight),
        (f"{prefix}batch_size", batch_size),
    ):
        if value is not None:
            raise ValueError(
                f"`{argument}` is for a dict of arrays: a data set has batches of its "
                "own, and yields (batch, None, sample_weight) where samples have "
                f"weights. Received: {argument} of type {type(value).__name__}, {name} "
                f"of type {type(x).__name__}"
            )
    if steps is None and streams.is_endless(x):
        raise ValueError(
            f"the {name} have no end, so `{steps_name}` must say how many batches an "
            f"epoch has. Received: {steps_name}=None, {name} of type {type(x).__name__}"
        )
    if steps is None and passes > 1 and streams.is_read_once(x):
        raise ValueError(
            f"the {name} can be read once, and {passes} passes are asked for: give "
            f"`{steps_name}`, or data that can be read again, such as a list or a data "
            f"set. Received: {type(x).__name__}"
        )
    return streams.PreparedData(x, spec, name, shuffle)


def _refuse_kind(argument, x, spec):
    key = "videos" if spec.is_video else "images"
    what = type(x).__name__
    if hasattr(x, "shape"):
        what += f" of shape {tuple(np.shape(x))}"
    raise ValueError(
        f"`{argument}` must be a dict with the key '{key}', {{'{key}': array, ...}}, "
        "or a data set of such batches: PyDataset, tf.data, grain, a torch "
        f"DataLoader, a generator or a list. Received: {what}"
    )


def _prepared_arrays(x, sample_weight, spec, name):
    try:
        return spec.prepare_element((x, None, sample_weight), warn=True)
    except ValueError as error:
        raise ValueError(f"the {name}: {error}") from None
