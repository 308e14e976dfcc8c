"""Shared by the generators of forged files: a case, its folder, and what lies outside.

A case is forged in a folder of its own. Beside all of them lies `outside`, with what no
case may read, change or run: a marker module, a text, a picture, a preset.
"""

import dataclasses
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

CASES = []
PORT = 9  # Of this machine; the watch listens there.
EVIL = "evil_package.module"  # Importing it writes the marker.


@dataclasses.dataclass
class Case:
    """A forged file, and the reader that it is given to.

    Args:
        kind: str. The format.
        name: str.
        make: Callable `(folder, outside)` that forges it.
        read: Callable of what `make` returned, or of the folder. It must raise an
            error, or return a list of reasons why items are skipped.
    """

    kind: str
    name: str
    make: Callable
    read: Callable

    @property
    def id(self):
        return f"{self.kind}-{self.name}"


def case(kind, name, make, read):
    CASES.append(Case(kind, name, make, read))


def make_outside(folder):
    """Fills the folder of what lies outside."""
    package = folder / "evil_package"
    package.mkdir(parents=True)
    code = "import pathlib\npathlib.Path(__file__).with_name('MARKER').touch()\n"
    (package / "__init__.py").write_text(code)
    (package / "module.py").write_text("")
    (folder / "secret.txt").write_text("secret")
    (folder / "secret.png").write_bytes(png(8, 8, bytes(8 * 8)))
    (folder / "precious").mkdir()
    (folder / "precious" / "file").write_text("precious")


class Call:
    """Pickles to a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, gray, depth=8, extra=b""):
    """A gray PNG; `gray` may be shorter than the picture."""
    stride = width * depth // 8
    rows = b"".join(
        b"\0" + gray[i : i + stride] for i in range(0, len(gray), max(stride, 1))
    )
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif isinstance(data, str):
        data = data.replace("{port}", str(PORT))
        path.write_text(data, "utf-8", "surrogatepass")
    else:
        path.write_text(json.dumps(data))
    return path


def sparse(path, size, start=b""):
    """A file of a size that takes no room on the disk."""
    write(path, start)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def pickled(function, *args):
    return pickle.dumps(Call(function, *args), protocol=2)


def picture_source(folder):
    """What skips odd pictures, beside two good ones of a class."""
    for name in ("good1.png", "good2.png"):
        write(folder / name, png(8, 8, bytes(range(64))))
    return folder


def read_all(name, split="all", **options):
    """Reasons why items of a source are skipped; others must be readable."""
    from keras_mdm.data import UnusablePicture, open_source

    source = open_source(name, split, **options)
    for index in range(len(source)):
        try:
            source[index]
        except UnusablePicture:
            pass
    return [why for _, why in source.skipped] + list(source.notes)
