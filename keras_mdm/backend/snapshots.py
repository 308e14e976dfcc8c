"""Whether variables were given other values since a moment. Called by `ema`."""

import keras
import numpy as np

from keras_mdm.backend.devices import name
from keras_mdm.backend.processes import to_numpy


def snapshot(variables):
    """What `changed_since` compares with: no copy of the values.

    Returns:
        On JAX the values themselves, which never change; elsewhere the sum of each
        variable, as a list.
    """
    if name() == "jax":
        return [variable.value for variable in variables]
    if not variables:
        return []
    sums = [
        keras.ops.sum(keras.ops.cast(variable.value, "float32"))
        for variable in variables
    ]
    return keras.ops.convert_to_numpy(keras.ops.stack(sums)).tolist()


def changed_since(seen, variables):
    """List of bool: which variables have other values than when `seen` was taken.

    Args:
        seen: What `snapshot` returned for the same variables.
        variables: List of variables.
    """
    if name() == "jax":
        return [
            not _same(old, variable.value)
            for old, variable in zip(seen, variables, strict=True)
        ]
    return [
        not (old == new or (np.isnan(old) and np.isnan(new)))
        for old, new in zip(seen, snapshot(variables), strict=True)
    ]


def _same(old, new):
    # A step of training or evaluation may have taken the memory of the old value.
    return old is new or (
        not old.is_deleted() and np.array_equal(to_numpy(old), to_numpy(new))
    )
