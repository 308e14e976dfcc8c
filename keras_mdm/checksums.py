"""CRC-32 of files and of JSON values: damage is noticed when they are read.

Not a signature: who changes a file on purpose can change its checksum.
"""

import io
import json
import os
import warnings
import zipfile
import zlib

import numpy as np

from keras_mdm.text_files import printable, reason

CHECKSUM = "checksum"
_MARK = b"\nCRC-32 of the sums of what is before: "


def file_checksum(path):
    """The checksum of a file, as eight hexadecimal digits."""
    found = 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            found = zlib.crc32(part, found)
    return f"{found:08x}"


def append_checksum(path):
    """Writes the checksum of a file at its end, where HDF5 does not look.

    HDF5 cuts it off when it changes the file.
    """
    line = _MARK + _sum_of_sums(path, os.path.getsize(path))
    with open(path, "ab") as file:
        file.write(line)


def check_appended(path):
    """Whether a file has the checksum of `append_checksum`.

    Raises a `ValueError` if it is another than that of the file.
    """
    size = max(os.path.getsize(path) - len(_MARK) - 8, 0)
    with open(path, "rb") as file:
        file.seek(size)
        line = file.read()
    if not line.startswith(_MARK):
        return False
    if line != _MARK + _sum_of_sums(path, size):
        raise ValueError(
            f"'{printable(path)}' is damaged: the checksum at its end is not that of "
            "what it holds. Get it again."
        )
    return True


def _sum_of_sums(path, size):
    """The CRC-32 of the sums of each part of a file's beginning, in digits.

    Three times as fast as that of all bytes, which would take a sixth of the time in
    which Keras reads a model of 100 M parameters and its average.
    """
    found, width = 0, 2**13
    with open(path, "rb") as file:
        while part := file.read(min(size, 2**20)):
            size -= len(part)
            numbers = np.frombuffer(part + bytes(-len(part) % (8 * width)), "<u8")
            found = zlib.crc32(numbers.reshape(-1, width).sum(axis=1), found)
    return b"%08x" % found


def with_checksum(values):
    """A dict of JSON values with the checksum of what it holds."""
    return {**values, CHECKSUM: _sum(values)}


def check_values(values, path):
    """Takes the checksum out of what `with_checksum` made, and compares it.

    Raises a `ValueError` that names the file `path`, which it was read from.
    """
    written = values.pop(CHECKSUM, None)
    if written is None:
        tell_unchecked(path)
    elif written != _sum(values):
        raise ValueError(
            f"'{printable(path)}' is damaged: its checksum is not that of what it "
            "holds. Get it again; if you changed it yourself, remove its line "
            f"'{CHECKSUM}'."
        )


def tell_unchecked(path, better="what is written today has one"):
    """Warns that a file has no checksum; `better` says what has."""
    warnings.warn(
        f"'{printable(path)}' has no checksum, so damage would not be noticed; "
        f"{better}.",
        stacklevel=3,
    )


def read_arrays(path, most, names=None):
    """The arrays of an `.npz` file by name; its archive has a checksum of each.

    Args:
        path: Path.
        most: int. Bytes that they may take in memory.
        names: Collection of str: those that are read, as far as they are there.
            Defaults to all.

    Raises:
        OSError: if it can't be opened.
        ValueError: if it is damaged, larger, or has anything but arrays.
    """
    found = {}
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {
                    member.filename.removesuffix(".npy"): member
                    for member in archive.infolist()
                }
                if names is not None:
                    members = {name: members[name] for name in names if name in members}
                size = sum(member.file_size for member in members.values())
                if size > most:
                    raise ValueError(f"it holds {size} bytes, more than {most}")
                for name, member in members.items():
                    data = io.BytesIO(archive.read(member))
                    found[name] = np.lib.format.read_array(data, allow_pickle=False)
        # Whatever a damaged file makes zipfile and numpy raise.
        except Exception as error:
            raise ValueError(
                f"'{printable(path)}' is damaged: {reason(error)}"
            ) from error
    return found


def _sum(values):
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"
