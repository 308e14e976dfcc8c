"""Writes the checkpoint files that `torch.load` reads, without torch.

Tensors are written one after the other, so that only one is in memory.
"""

import pickle
import zipfile

import numpy as np

# torch maps storages into memory at multiples of this.
_ALIGNMENT = 64
_ROOT = "vis_model"


def write_checkpoint(path, tensors):
    """Writes float32 tensors as a checkpoint of the official code.

    `torch.load(path, weights_only=True)` gives `{"state_dict": {name: tensor}}`.

    Args:
        path: str or path. File to write.
        tensors: Iterable of pairs (official name, array). An array is let go before
            the next one is asked for.
    """
    described = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, array) in enumerate(tensors):
            array = np.asarray(array, dtype="<f4")
            _write_aligned(archive, f"{_ROOT}/data/{key}", array)
            described.append(_item(name, _tensor(key, array.shape)))
        state_dict = b"}(" + b"".join(described) + b"u"
        content = b"}(" + _item("state_dict", state_dict) + b"u"
        archive.writestr(f"{_ROOT}/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr(f"{_ROOT}/byteorder", "little")
        archive.writestr(f"{_ROOT}/version", "3\n")


def _write_aligned(archive, name, array):
    info = zipfile.ZipInfo(name)
    # The header of an entry is 30 bytes and its name, and then padding, which is a
    # field of its own with four bytes of head.
    start = archive.fp.tell() + 30 + len(name) + 4
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(info, array.tobytes())


# The opcodes of a pickle, written by hand: Python's own pickler would import torch to
# write the name of a function of torch.


def _value(value):
    """A number, text or tuple of numbers, without the frame of a whole pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _name(module, name):
    return f"c{module}\n{name}\n".encode()


def _item(name, value):
    return _value(name) + value


def _tensor(key, shape):
    """The call of torch that makes a contiguous tensor of a storage."""
    size = int(np.prod(shape, dtype="int64"))
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    storage = b"".join(
        (
            b"(",
            _value("storage"),
            _name("torch", "FloatStorage"),
            _value(str(key)),
            _value("cpu"),
            _value(size),
            b"tQ",
        )
    )
    arguments = (
        storage,
        _value(0),
        _value(tuple(int(length) for length in shape)),
        _value(strides),
        _value(False),
        _name("collections", "OrderedDict") + b")R",
    )
    return (
        _name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(arguments) + b"tR"
    )
