"""Forged folders for the library of Hugging Face: packed, repeated, linked."""

import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow
from pyarrow import parquet

from hostile.forge import archive, case, picture_source, png, write
from hostile.sets import read_hf


# What lies beside the pictures of a set of Hugging Face.
def beside(name, data):
    def make(folder, outside):
        picture_source(folder)
        found = data(folder / name, outside) if callable(data) else data
        if found is not None:
            write(folder / name, found)

    return make


def _zip(path, outside):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../../outside/slip.png", png(8, 8, bytes(64)))
        file.writestr("good.png", png(8, 8, bytes(64)))


def _zip_bomb(path, outside):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", png(8, 8, bytes(64)) + bytes(2**29))


def _parquet_bomb(path, outside):
    cell = pyarrow.array([bytes(2**29)], pyarrow.binary())
    table = pyarrow.table({"image": cell})
    parquet.write_table(table, path, compression="zstd", use_dictionary=False)


def _repeated(path, outside):
    """A megabyte in each of 1,500 rows, which is there once."""
    cells = pyarrow.array([bytes(2**20)])
    repeated = pyarrow.DictionaryArray.from_arrays(np.zeros(1500, "int8"), cells)
    table = pyarrow.table({"image": repeated})
    parquet.write_table(table, path, store_schema=False, compression="none")


def _nulls(path, outside):
    table = pyarrow.table({"a": pyarrow.nulls(2**28, pyarrow.int8())})
    parquet.write_table(table, path, row_group_size=2**28, store_schema=False)


def _small_print(path, outside):
    """A page that is larger than the file says where it is about its tables."""
    _parquet_bomb(path, outside)
    told = parquet.read_metadata(path).row_group(0).total_byte_size
    real, forged = varint(2 * told), varint(2000, len(varint(2 * told)))
    data = path.read_bytes()
    assert data.count(real) == 2
    path.write_bytes(data.replace(real, forged))


def varint(number, size=1):
    """A number of Thrift, in at least so many bytes."""
    found = []
    while number or len(found) < size:
        found, number = [*found, number & 127 | 128], number >> 7
    return bytes([*found[:-1], found[-1] & 127])


def _arrow(writer, path, outside):
    table = pyarrow.table({"image": pyarrow.array([bytes(2**29)] * 2)})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with writer(path, table.schema, options=options) as file:
        file.write_table(table)


def _zip_of_parquet(path, outside):
    table = path.with_name("metadata.parquet")
    _repeated(table, outside)
    archive(path, {"metadata.parquet": table.read_bytes(), "1.png": png(8, 8, b"")})
    table.unlink()


def _hdf5(path, outside):
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("image", (2**28,), "f4", compression="gzip", chunks=True)


def _tar(path, outside):
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("../../../outside/slip.png")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside / "secret.png")
        file.addfile(link)


ROW = '{"file_name": "good1.png", "text": "a"}\n'
for _name, _made in {
    "script": beside("given.py", "import evil_package.module\n"),
    "zip-slip": beside("train.zip", _zip),
    "zip-bomb": beside("train.zip", _zip_bomb),
    "tar-slip": beside("train.tar", _tar),
    "gzip-bomb": beside("train.csv.gz", gzip.compress(bytes(2**27))),
    "gzip-as-parquet": beside("train.parquet", gzip.compress(bytes(2**20))),
    "xz-as-table": beside("metadata.csv", lzma.compress(b"file_name,text\n" * 9999)),
    "link": beside(
        "linked.png", lambda path, outside: path.symlink_to(outside / "secret.png")
    ),
    "rows": beside("metadata.jsonl", ROW + "[" * 100_000),
    "rows-outside": beside(
        "metadata.jsonl",
        lambda path, outside: json.dumps(
            {"file_name": f"{outside}/secret.png", "text": "a"}
        ),
    ),
    "infos": beside("dataset_infos.json", "[" * 100_000),
    "zip-of-parquet": beside("train.zip", _zip_of_parquet),
    "parquet-bomb": beside("train.parquet", _parquet_bomb),
    "parquet-small-print": beside("train.parquet", _small_print),
    "parquet-repeated": beside("train.parquet", _repeated),
    "parquet-nulls": beside("metadata.parquet", _nulls),
    "parquet": beside("train.parquet", b"PAR1" + bytes(100) + b"PAR1"),
    "parquet-length": beside(
        "train.parquet", b"PAR1" + bytes(8) + struct.pack("<I", 2**31 - 1) + b"PAR1"
    ),
    "arrow": beside("train.arrow", b"\xff\xff\xff\xff" + struct.pack("<I", 2**31 - 1)),
    "jsonl": beside("train.jsonl", '{"image": {"bytes": "' + "x" * 1000),
}.items():
    case("hf", f"beside-{_name}", _made, read_hf)


# Folders without pictures, in formats that tell no size, or not before they are read.
def alone(name, data):
    def make(folder, outside):
        if callable(data):
            data(folder / name, outside)
        else:
            write(folder / name, data)

    return make


def named_in_card(name, data):
    def make(folder, outside):
        alone(name, data)(folder, outside)
        for number in (1, 2):
            table = pyarrow.table({"image": ["a"]})
            parquet.write_table(table, folder / f"{number}.parquet")
        names = json.dumps([name, "*.parquet"])
        text = f"configs:\n- config_name: default\n  data_files: {names}\n"
        write(folder / "README.md", f"---\n{text}---\n")

    return make


CELL = '{"image": {"bytes": "' + "x" * 2**20 + '"}}\n'
for _name, _made in {
    "arrow-file": alone("train.arrow", lambda p, o: _arrow(pyarrow.ipc.new_file, p, o)),
    "arrow-stream": alone(
        "train.arrow", lambda p, o: _arrow(pyarrow.ipc.new_stream, p, o)
    ),
    "feather": alone("train.feather", lambda p, o: _arrow(pyarrow.ipc.new_file, p, o)),
    "hdf5": alone("train.h5", _hdf5),
    "jsonl": alone("train.jsonl", CELL),
    "csv": alone("train.csv", "image\n" + "x" * 2**20),
    "text": alone("train.txt", "x" * 2**20),
    "xml": alone("train.xml", "<a>" * 100_000),
    "gzip-in-card": named_in_card("a.png", gzip.compress(bytes(2**27))),
    "parquet-in-card": named_in_card("a.png", _repeated),
    "zstd-frames": alone("train.csv.zst", b"\x50*M\x18\0\0\0\0" + b"x" * 99),
}.items():
    case("hf", f"alone-{_name}", _made, read_hf)
