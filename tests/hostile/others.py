"""Forged files of formats that are read rarely, and of what lies beside a set."""

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

from hostile.forge import EVIL, archive, case, picture_source, png, read_all, write
from hostile.pictures import clip, read_clips
from hostile.presets import put, replaced
from hostile.sets import read_hf
from hostile.weights import npy


# Statistics that FID is measured from.
def statistics(compression=zipfile.ZIP_STORED, **members):
    def make(folder, outside):
        found = {"mu": saved(np.zeros(4)), "sigma": saved(np.eye(4))} | members
        found = {f"{k}.npy": v for k, v in found.items() if v is not None}
        found = {k: v() if callable(v) else v for k, v in found.items()}
        archive(folder / "reference.npz", found, compression)

    return make


def saved(value):
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def read_statistics(folder):
    from keras_mdm_recipes.fid import read_reference

    read_reference(folder / "reference.npz", 64)


for _name, _made in {
    "object": statistics(mu=saved(np.array([{}], object))),
    "bomb": statistics(zipfile.ZIP_DEFLATED, mu=lambda: saved(np.zeros(2**28, "f4"))),
    "header": statistics(mu=npy("<f8", (10**12,))),
    "code": statistics(mu=npy("<f8", "__import__('evil_package')")),
    "texts": statistics(mu=saved(np.array(["a"] * 4))),
    "complex": statistics(mu=saved(np.full(4, 1j))),
    "resolution": statistics(resolution=saved(np.array([64, 64]))),
    "resolution-nan": statistics(resolution=saved(np.nan)),
    "missing": statistics(mu=None),
    "deflated": lambda f, o: write(f / "reference.npz", _cut_deflated()),
}.items():
    case("fid", _name, _made, read_statistics)


def _cut_deflated():
    """An archive whose compressed data are changed, and whose directory is not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as found:
        found.writestr("mu.npy", saved(np.arange(999.0)))
        found.writestr("sigma.npy", saved(np.eye(4)))
    data = bytearray(file.getvalue())
    data[60:200] = b"\xff" * 140
    return bytes(data)


# Presets on text: their vocabulary.
def text_preset(change):
    def make(folder, outside):
        from text_helpers import text_mdm, word_encoder

        text_mdm(word_encoder()).save_to_preset(folder / "preset")
        path = folder / "preset"
        config = json.loads((path / "config.json").read_text())
        change(config)
        write(path / "config.json", config)
        metadata = json.loads((path / "metadata.json").read_text())
        metadata = {k: v for k, v in metadata.items() if k not in ("files", "checksum")}
        write(path / "metadata.json", metadata)

    return make


def load_text(folder):
    import keras_mdm

    mdm = keras_mdm.MDM.from_preset(folder / "preset")
    mdm.network.conditioner.encode_texts(["a red \x1b[31m circle"])


ENCODER = ("config", "network", "config", "conditioner", "config")
for _name, _value in {
    "numbers": [1, 2, 3],
    "deep": [[["a"]]],
    "none": [None],
    "text": "red",
    "twice": ["red", "red"],
    "huge": ["x" * 100] * 100_000,
    "objects": [{"class_name": EVIL}],
    "object": {"class_name": EVIL, "config": {}},
}.items():
    case(
        "vocabulary",
        _name,
        text_preset(put(*ENCODER, "vocabulary", value=_value)),
        load_text,
    )
for _name, _value in {
    "tokens": 10**12,
    "text": "9",
    "float": 4.5,
    "none": None,
}.items():
    case(
        "vocabulary",
        f"max-{_name}",
        text_preset(put(*ENCODER, "max_tokens", value=_value)),
        load_text,
    )


# SentencePiece models of T5.
def read_sentencepiece(folder):
    from keras_mdm.conditioning.t5 import read_vocabulary

    read_vocabulary(folder / "spiece.model")


for _name, _data in {
    "empty": b"",
    "text": b"not a model",
    "zeros": bytes(1000),
    "length": b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 100,
    "cut": b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02\x0a\xff",
    "pieces": b"\x0a\x07\x0a\x05<unk>" * 1000,
}.items():
    case(
        "sentencepiece",
        _name,
        lambda folder, outside, data=_data: write(folder / "spiece.model", data),
        read_sentencepiece,
    )


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


# Clips whose tables are larger than they are.
def box(kind, data):
    return struct.pack(">I", 8 + len(data)) + kind + data


def movie(*boxes):
    return box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", b"".join(boxes))


HEADER = box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(80))


def track(*tables):
    handler = box(b"hdlr", bytes(8) + b"vide" + bytes(13))
    media = box(b"mdhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(4))
    entry = box(b"mp4v", bytes(24) + struct.pack(">HH", 8, 8) + bytes(50))
    described = box(b"stsd", struct.pack(">II", 0, 1) + entry)
    table = box(b"stbl", described + b"".join(tables))
    info = box(b"minf", box(b"vmhd", bytes(12)) + table)
    return box(b"trak", box(b"tkhd", bytes(84)) + box(b"mdia", media + handler + info))


LARGE = struct.pack(">II", 0, 2**32 - 1)
for _name, _data in {
    "samples.mp4": movie(HEADER, track(box(b"stsz", bytes(4) + LARGE))),
    "same-size.mp4": movie(
        HEADER,
        track(
            box(b"stsz", struct.pack(">III", 0, 1, 2**31 - 1)),
            box(b"stts", struct.pack(">IIII", 0, 1, 2**31 - 1, 1)),
            box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 2**31 - 1, 1)),
            box(b"stco", struct.pack(">III", 0, 1, 0)),
        ),
    ),
    "times.mp4": movie(HEADER, track(box(b"stts", LARGE))),
    "nested.mp4": movie(HEADER) + b"\0\0\0\x08moov" * 100_000,
    "deep.mp4": box(b"ftyp", b"isom\0\0\0\0isom")
    + b"".join(struct.pack(">I", 8 * (20_000 - i)) + b"moov" for i in range(20_000)),
    "riff.avi": b"RIFF" + struct.pack("<I", 2**32 - 1) + b"AVI LIST" + b"\xff" * 64,
    "sizes.webm": b"\x1aE\xdf\xa3\x80\x18S\x80g\x01" + b"\xff" * 7 + b"\xec" * 999,
}.items():
    case("clip", _name, clip(_name, _data), read_clips)


# Tar shards.
def many(folder, outside):
    """More members than a limit, which is passed where the set is opened."""
    with tarfile.open(folder / "a.tar", "w") as file:
        for number in range(64):
            for ending, data in (("png", png(8, 8, bytes(64))), ("txt", b"a")):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


def read_few(folder):
    from keras_mdm.data import Limits

    return read_all(f"webdataset:{folder}", limits=Limits(shard_members=16))


case("shard", "members", many, read_few)
for _name in ("config.json", "metadata.json"):
    case(
        "preset",
        f"{_name}-outside",
        replaced(_name, lambda path, outside: path.symlink_to(outside / "secret.txt")),
        lambda folder: __import__("keras_mdm").MDM.from_preset(folder),
    )


def _linked_preset(folder, outside):
    from hostile.presets import preset

    for name, data in preset().items():
        write(outside / "whole" / name, data)
    write(folder / "config.json", {"recipe": "train-image", "settings": {}})
    (folder / "preset").symlink_to(outside / "whole")


case(
    "run",
    "link-preset",
    _linked_preset,
    lambda folder: __import__("keras_mdm").MDM.from_preset(folder),
)
