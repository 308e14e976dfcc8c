"""Weights that are not finite are not written: they would replace good ones."""

import numpy as np

from keras_mdm import backend


def check_finite(variables, path):
    """Raises a `ValueError` if a weight that is to be written is NaN or infinite.

    Args:
        variables: Iterable of variables, or of pairs of name and array.
        path: str or path. What would be written, for the error.
    """
    wrong, count = [], 0
    for variable in variables:
        if isinstance(variable, tuple):
            name, value = variable
        else:
            name, value = variable.path, backend.to_numpy(variable)
        count += 1
        if value.dtype == "bfloat16":  # NumPy has no `isfinite` of it.
            value = value.astype("float32")
        if not np.isfinite(value).all():
            wrong.append(name)
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {count} weights are NaN or infinite, such as "
            f"'{wrong[0]}', so nothing was written to '{path}'. Training has diverged: "
            "go on from weights that were saved before, with a lower learning rate."
        )
