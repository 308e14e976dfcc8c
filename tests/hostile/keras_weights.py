"""Forged files of weights in the form that Keras writes."""

import os

import h5py
import numpy as np

from hostile.forge import case, write
from hostile.presets import load, preset


def hdf5(how):
    """Makes a preset of which an array in the HDF5 file is replaced by `how`."""

    def make(folder, outside):
        for name, data in preset().items():
            write(folder / name, data)
        with h5py.File(folder / "model.weights.h5", "r+") as file:
            names = []
            file.visititems(
                lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None
            )
            name = max(names, key=lambda n: file[n].size)
            shape = file[name].shape
            del file[name]
            how(file, name, shape, outside)

    return make


def _external(file, name, shape, outside):
    path = os.fsencode(outside / "secret.txt")
    file.create_dataset(
        name, shape, "float32", external=[(path, 0, h5py.h5f.UNLIMITED)]
    )


def _virtual(file, name, shape, outside):
    with h5py.File(outside / "other.h5", "w") as other:
        other["x"] = np.zeros(shape, "float32")
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource(str(outside / "other.h5"), "x", shape)
    file.create_virtual_dataset(name, layout)


def _external_link(file, name, shape, outside):
    with h5py.File(outside / "linked.h5", "w") as other:
        other["x"] = np.zeros(shape, "float32")
    file[name] = h5py.ExternalLink(str(outside / "linked.h5"), "x")


def _soft_link(file, name, shape, outside):
    file[name] = h5py.SoftLink("/elsewhere")


def _bomb(file, name, shape, outside):
    file.create_dataset(name, (2**28,), "float32", chunks=(2**22,), compression="gzip")


def _unwritten(file, name, shape, outside):
    file.create_dataset(name, (10**12,), "float32")


def _texts(file, name, shape, outside):
    file.create_dataset(name, shape, h5py.string_dtype())


def _cycle(file, name, shape, outside):
    group = file.create_group(name)
    group["again"] = file["/"]


def _deep(file, name, shape, outside):
    group = file
    for _ in range(3000):
        group = group.create_group("g")


def _references(file, name, shape, outside):
    file.create_dataset(name, shape, h5py.ref_dtype)


ARRAYS = (
    _external,
    _virtual,
    _external_link,
    _soft_link,
    _bomb,
    _unwritten,
    _texts,
    _cycle,
    _deep,
    _references,
)


def load_weights(folder):
    from helpers import tiny_mdm, tiny_nest

    import keras_mdm

    assert keras_mdm
    tiny_mdm(network=tiny_nest(1, resolution=4)).load_weights(
        str(folder / "model.weights.h5")
    )


for _how in ARRAYS:
    for _read in (load, load_weights):
        case("hdf5", f"{_how.__name__[1:]}-{_read.__name__}", hdf5(_how), _read)


def _index(name):
    def make(folder, outside):
        with h5py.File(outside / "shard.weights.h5", "w"):
            pass
        write(
            folder / "model.weights.json", {"metadata": {}, "weight_map": {"a": name}}
        )

    return make


def load_index(folder):
    from helpers import tiny_mdm, tiny_nest

    tiny_mdm(network=tiny_nest(1, resolution=4)).load_weights(
        str(folder / "model.weights.json")
    )


for _name in ("../../../outside/shard.weights.h5", "/etc/passwd", 1):
    case("hdf5", f"index-{str(_name)[:3]}", _index(_name), load_index)
