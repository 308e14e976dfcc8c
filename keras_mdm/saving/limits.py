"""Configurations of presets, bounded by what the preset's file of weights has."""

import contextlib

from keras_mdm.layers.initializers import at_most
from keras_mdm.paths import as_path
from keras_mdm.saving.weights_file import check_weights_file
from keras_mdm.text_files import printable, values_in

# How many layers there are; each has an array of weights at least.
_COUNTS = (
    "channels",
    "num_residual_blocks",
    "num_attention_layers",
    "num_temporal_attention_layers",
    "num_token_blocks",
    "num_layers",
)
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
)


def check_nest(config, folder):
    """Raises a `ValueError` unless a serialized `MDM` has networks with options."""
    options = config.get("config")
    left = [options.get("network") if isinstance(options, dict) else None]
    while left:
        part = left.pop()
        if not isinstance(part, dict) or not isinstance(part.get("config"), dict):
            raise ValueError(
                f"preset '{printable(folder)}' is damaged: config.json must have a "
                f"network and its options. Received: {printable(str(part)[:80])}"
            )
        children = (part["config"].get(key) for key in ("inner", "conditioner"))
        left += [child for child in children if child is not None]


@contextlib.contextmanager
def no_larger_than(path, config, blank):
    """Within it, the `MDM` of `config` is built with no more weights than a file has.

    They are zero if `blank`, since they are read next. Raises a `ValueError` if the
    file is damaged, or the configuration is none of its model.
    """
    numbers, arrays = check_weights_file(path)
    folder = printable(as_path(path).parent)
    for options in values_in(config):
        if not isinstance(options, dict):
            continue
        for key in _COUNTS:
            counts = options.get(key)
            if key == "channels":
                counts = len(counts) if isinstance(counts, list) else 0
            for count in counts if isinstance(counts, list) else [counts]:
                if isinstance(count, int | float) and not count <= arrays:
                    raise ValueError(
                        f"preset '{folder}': its weights do not belong to config.json, "
                        f"which has more layers than they. Received: {key}={count}"
                    )
    try:
        # As much again for the average, and as it is copied.
        with at_most(3 * numbers + 10**6, 3 * arrays + 1000, blank):
            yield
    except _DAMAGE as error:
        raise ValueError(
            f"preset '{folder}' is damaged: config.json describes no model. Cause: "
            f"{type(error).__name__}: {str(error)[:300]}"
        ) from error
