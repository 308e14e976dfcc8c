"""Entries of a batch as arrays that steps of every backend take.

`batches` makes them so before it checks what they hold.
"""

import keras
import numpy as np


def to_array(name, value):
    """A numpy array of whatever library's tensor, or of a nested list of numbers.

    Raises:
        ValueError: if it is none, such as a list of pictures of several sizes.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()  # A tensor of torch.
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"'{name}' must be an array. Received: {type(value).__name__}, of which "
            f"numpy makes none: {error}"
        ) from None


def array_or_none(value):
    """A numpy array, or `None` if it would hold something else than numbers."""
    try:
        array = to_array("", value)
    except ValueError:
        return None
    kind = dtype_name(array)
    return array if kind == "bool" or "int" in kind or "float" in kind else None


def dtype_name(array):
    """Name of a dtype, also where Keras has none for it."""
    try:
        return keras.backend.standardize_dtype(array.dtype)
    except ValueError:
        return str(array.dtype)


def finite_numbers(name, values):
    """Returns finite numbers of shape `(batch,)` as float32."""
    kind = dtype_name(values)
    if values.ndim != 1 or not kind.startswith(("float", "bfloat", "int", "uint")):
        raise ValueError(
            f"'{name}' must be numbers of shape (batch,). "
            f"Received: shape={values.shape}, dtype={kind}"
        )
    with np.errstate(over="ignore"):
        numbers = values.astype("float32")
    finite = np.isfinite(numbers)
    if not finite.all():
        entry = int(np.argmin(finite))
        raise ValueError(
            f"'{name}' must be finite numbers. "
            f"Received: {values[entry]} in entry {entry}"
        )
    return numbers


def as_steps_take_it(key, array):
    """Wide numbers as narrow ones, and those of another order of bytes as ours, so that
    no backend meets a dtype it lacks.
    """
    if key in ("labels", "token_ids") and array.dtype.kind in "iu":
        return array.astype("int32", copy=False)
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        return array.astype("float32")
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array
