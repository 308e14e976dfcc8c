"""Files of weights that Keras wrote, looked through before Keras reads them.

HDF5 may say that values lie in other files, that one stands for others, or that a few
bytes are terabytes. Keras' own files have arrays of numbers alone, stored as they are.
"""

import io
import json
import math
import pathlib
import zipfile

import h5py

from keras_mdm.checksums import (
    check_appended,
    check_values,
    file_checksum,
    tell_unchecked,
    with_checksum,
)
from keras_mdm.files import write_text
from keras_mdm.paths import as_path, member
from keras_mdm.text_files import printable, read_json, reason

_IN_ARCHIVE = "model.weights.h5"  # Of a `.keras` file.
_FILES = "files"  # Checksums by name, in an index, where Keras does not look.


def check_weights_files(path):
    """As `check_weights_file`, of all files of a model, and their checksums.

    A warning tells of a file that has none.
    """
    path = as_path(path)
    if path.suffix == ".keras":
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"'{printable(path)}' is damaged: {reason(error)}"
            ) from error
        with archive:
            _check_archive(archive)
    elif path.suffix == ".json":
        index = read_json(path)
        check_values(index, path)
        known = index.get(_FILES)
        for file in _files_of(path, index):
            check_weights_file(file)
            if isinstance(known, dict) and known.get(file.name) != file_checksum(file):
                raise ValueError(
                    f"'{printable(file)}' is damaged: by the checksum in {path.name} "
                    "it is not what was saved. Get it again."
                )
    elif path.suffix == ".h5":
        check_weights_file(path)
        if not check_appended(path):
            tell_unchecked(path)


def add_checksums(path):
    """Writes the checksums of the files that an index names into the index."""
    index = read_json(path)
    files = _files_of(path, index)
    index[_FILES] = {file.name: file_checksum(file) for file in files}
    write_text(path, json.dumps(with_checksum(index), indent=4))


def _files_of(path, index):
    names, found = index.get("weight_map"), {}
    for name in _flat(names.values() if isinstance(names, dict) else [None]):
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise ValueError(
                f"'{printable(path)}' must name files beside it. "
                f"Received: {str(name)[:80]!r}"
            )
        found[name] = member(path.parent, name)
    return found.values()


def _flat(values):
    for value in values:
        yield from value if isinstance(value, list) else [value]


def check_store(store):
    """As `check_weights_file`, of a file within an archive, which Keras has opened."""
    archive, file = getattr(store, "archive", None), getattr(store, "path_or_io", None)
    if archive:
        # Keras reads the parts of a damaged file that it needs, without its checksum.
        _check_archive(archive)
    if archive or isinstance(file, io.BytesIO):
        _walk(store.h5_file, [], set())


def _check_archive(archive):
    try:
        if archive.getinfo(_IN_ARCHIVE).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"'{_IN_ARCHIVE}' is compressed, which Keras does not do")
        with archive.open(_IN_ARCHIVE) as file:
            while file.read(1 << 20):
                pass
    # Whatever a damaged one makes zipfile raise.
    except Exception as error:
        raise ValueError(
            f"'{printable(archive.filename)}' is damaged: {reason(error)}"
        ) from error


def check_weights_file(path):
    """How many numbers, and how many arrays, an HDF5 file of weights has.

    Raises a `ValueError` unless it has arrays of numbers alone, all of them in it.
    """
    path = as_path(path)
    if not path.is_file():
        raise ValueError(f"'{printable(path)}' must be a file, and is none.")
    shapes = []
    try:
        with h5py.File(path, "r") as file:
            _walk(file, shapes, set())
        size = path.stat().st_size
        if sum(number * width for number, width in shapes) > size:
            raise ValueError(f"its arrays need more than its {size} bytes")
    # Whatever a damaged file makes HDF5 raise.
    except Exception as error:
        raise ValueError(
            f"'{printable(path)}' is damaged, or no file of weights: {reason(error)}"
        ) from error
    return sum(number for number, _ in shapes), len(shapes)


def _walk(group, shapes, seen):
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{name}' is a link to elsewhere, which is not followed")
        entry = group[name]
        if not isinstance(entry, h5py.Dataset):
            place = h5py.h5o.get_info(entry.id).addr
            if place in seen:
                raise ValueError(f"the group '{name}' is in it twice")
            seen.add(place)
            _walk(entry, shapes, seen)
            continue
        layout = entry.id.get_create_plist()
        stored = layout.get_nfilters() == 0 and not entry.is_virtual
        # What NumPy has no type for, as bfloat16, are bytes without fields.
        plain = entry.dtype.kind in "biufV" and entry.dtype.names is None
        if entry.external or not stored or not plain:
            raise ValueError(
                f"the array '{name}' is not stored in it as plain numbers, which Keras "
                "does"
            )
        shapes.append((math.prod(entry.shape), entry.dtype.itemsize))
