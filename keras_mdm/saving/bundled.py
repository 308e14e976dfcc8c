"""Weights that come with the package for a built-in preset, in half precision.

`presets/NAME.npz` stands beside `presets/NAME.json` and holds the network's averaged
weights in float16, by the paths of the variables. `from_preset` loads them;
`write_bundled_weights` is for those who train a preset anew.
"""

import importlib.resources

import numpy as np

from keras_mdm.checksums import read_arrays
from keras_mdm.files import whole_file
from keras_mdm.saving.finite import check_finite


def bundled_weights(name):
    """The file of a built-in preset's weights, or `None` if it has none."""
    file = importlib.resources.files("keras_mdm") / "presets" / f"{name}.npz"
    return file if file.is_file() else None


def write_bundled_weights(mdm, path):
    """Writes the averaged weights of an `MDM` in float16 as an `.npz` file.

    A weight that is NaN, infinite or too large for float16 is a `ValueError`.
    """
    paths = [variable.path for variable in mdm.network.weights]
    values = dict(zip(paths, mdm.averaged_weights(), strict=True))
    check_finite(values.items(), path)
    with np.errstate(over="ignore"):
        values = {name: value.astype("float16") for name, value in values.items()}
    wrong = [name for name, value in values.items() if not np.isfinite(value).all()]
    if wrong:
        raise ValueError(f"weights are too large for float16: {wrong[:5]}")
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **values)


def read_bundled_weights(network, file):
    """Loads what `write_bundled_weights` wrote, if it belongs to this network."""
    wanted = {variable.path: tuple(variable.shape) for variable in network.weights}
    values = read_arrays(file, 2 * network.count_params() + 4096 * len(wanted))
    if wanted != {name: value.shape for name, value in values.items()}:
        raise ValueError(
            f"the weights in '{file}' belong to another network; they differ in "
            f"{sorted(wanted.keys() ^ values.keys())[:5] or 'their shapes'}"
        )
    for variable in network.weights:
        variable.assign(values[variable.path].astype("float32"))
