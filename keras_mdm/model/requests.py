"""What a call of `generate` asks for, checked and brought into arrays.

Every error about a label, a condition or a seed is raised here, before anything is
compiled. Called by `generate` alone.
"""

import secrets

import numpy as np

from keras_mdm.model.batches import check_labels


def check_count(name, value):
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(
            f"`{name}` must be a whole number from 1. Received: {name}={value}"
        )


def gather_condition(label_name, labels, name, features, conditioner, num_samples):
    """One dict of the condition's arrays, each entry repeated `num_samples` times."""
    gathered = {key: np.asarray(value) for key, value in (features or {}).items()}
    if labels is not None:
        gathered["labels"] = np.atleast_1d(np.asarray(labels))
    needed = tuple(getattr(conditioner, "feature_names", ()))
    if "labels" in gathered and "labels" not in needed:
        raise ValueError(
            f"`{label_name}` was given to a model that is not class-conditional. "
            f"Received: {label_name}={labels}"
        )
    missing = [k for k in needed if k not in gathered and not k.endswith("_mask")]
    if missing:
        where = label_name if missing == ["labels"] else name
        raise ValueError(
            f"the model's condition needs {missing}; give them as `{where}`. "
            f"Received: {sorted(gathered) or None}"
        )
    if "labels" in gathered:
        check_labels(gathered["labels"], conditioner.num_classes)
        gathered["labels"] = gathered["labels"].astype("int32")
    lengths = {len(value) for value in gathered.values()}
    if len(lengths) > 1:
        raise ValueError(
            "every feature of the condition must have the same number of entries. "
            f"Received: { {key: len(value) for key, value in gathered.items()} }"
        )
    return {key: np.repeat(v, num_samples, axis=0) for key, v in gathered.items()}


def gather_negative(labels, features, condition, conditioner, num_samples):
    """Features of the negative condition, one for each picture."""
    negative = gather_condition(
        "negative_labels",
        labels,
        "negative_features",
        features,
        conditioner,
        1,
    )
    total = len(next(iter(condition.values())))
    for key, value in negative.items():
        if len(value) == 1:
            negative[key] = np.repeat(value, total, axis=0)
        elif len(value) * num_samples == total:
            negative[key] = np.repeat(value, num_samples, axis=0)
        else:
            raise ValueError(
                "the negative condition must have one entry, or one for each entry of "
                f"the condition ({total // num_samples}). Received: {len(value)}"
            )
        if key in condition and negative[key].shape[1:] != condition[key].shape[1:]:
            raise ValueError(
                f"'{key}' of the negative condition must have the shape of the "
                f"condition's, {condition[key].shape[1:]}. "
                f"Received: {negative[key].shape[1:]}"
            )
    return {**condition, **negative}


def sample_seeds(seed, total):
    """int32 array of one seed for each picture."""
    if seed is None:
        seed = secrets.randbelow(2**31 - total)
    seeds = np.asarray(seed)
    if seeds.dtype.kind not in "iu":
        raise ValueError(f"`seed` must be whole numbers. Received: seed={seed}")
    if seeds.ndim == 0:
        seeds = seeds + np.arange(total)
    if seeds.shape != (total,):
        raise ValueError(
            f"`seed` must be one number, or one for each of the {total} pictures. "
            f"Received: {seeds.shape[0]} numbers"
        )
    if seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(f"`seed` must be from 0 to 2**31 - 1. Received: seed={seed}")
    return seeds.astype("int32")
