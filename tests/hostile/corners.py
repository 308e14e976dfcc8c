"""Forged files at the corners of formats: extensions, and numbers that name sizes."""

import io
import json
import struct
import tarfile
import zipfile
import zlib

import h5py
import numpy as np

from hostile.converted import T5, read_t5, read_yaml, t5, tensors
from hostile.forge import archive, case, chunk, png, write
from hostile.keras_weights import hdf5, load_weights
from hostile.others import HEADER, box, movie, read_statistics, saved, statistics, track
from hostile.pictures import clip, picture, read_clips, read_folder, tiff
from hostile.presets import forged, load, preset, put
from hostile.sets import (
    GOOD,
    header,
    labels,
    read_hf,
    read_shards,
    sample,
    shard,
)


# NumPy's third version of a header, whose length has four bytes.
def npy3(header, data=b"", size=None):
    head = header.encode() + b"\n"
    size = len(head) if size is None else size
    return b"\x93NUMPY\x03\0" + struct.pack("<I", size) + head + data


def typed(kind, shape="(4,)"):
    return npy3(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}")


def _twice(folder, outside):
    with zipfile.ZipFile(folder / "reference.npz", "w") as file:
        for name, value in (("mu", [0]), ("mu", [0] * 5), ("sigma", [[1]])):
            file.writestr(f"{name}.npy", saved(np.array(value)))


for _name, _made in {
    "npy3-huge-header": statistics(mu=npy3(" ", size=2**32 - 1)),
    "npy3-long-header": statistics(mu=npy3(" " * 2**24)),
    "npy3-deep": statistics(mu=npy3("(" * 9000)),
    "dtype-wide": statistics(mu=typed("[('a', '<f8', (1000000000,))]")),
    "shape-overflow": statistics(mu=typed("'<f8'", "(4294967296, 4294967296)")),
    "same-name": _twice,
}.items():
    case("fid", _name, _made, read_statistics)


# T5 folders.
EMPTY = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
MANY = "{" + ",".join(f'"t{i}":{EMPTY}' for i in range(300_000)) + "}"
for _name, _made in {
    "many-tensors": t5(config=T5, model=tensors(MANY.encode(), b"")),
    "projection-list": t5(config=T5 | {"feed_forward_proj": ["relu"]}),
    "checksums-list": t5(config=T5 | {"checksums": [1]}),
    "checksums-none": t5(config=T5 | {"checksum": "0"}),
    "checksums-outside": t5(config=T5 | {"checksums": {"../outside/secret.txt": ""}}),
}.items():
    case("t5", _name, _made, read_t5)


# HDF5: types that are no numbers, or have something else within.
def made(kind, shape=(4,)):
    return lambda file, name, *_: file.create_dataset(name, shape, kind)


def _named_type(file, name, shape, outside):
    file[name] = np.dtype("f4")


def _null(file, name, shape, outside):
    file.create_dataset(name, data=h5py.Empty("f4"))


KINDS = {
    "compound": made(np.dtype([("a", "<f4"), ("b", "<f4")])),
    "compound-vlen": made(np.dtype([("a", h5py.vlen_dtype("f4"))])),
    "compound-text": made(np.dtype([("a", h5py.string_dtype())])),
    "compound-reference": made(np.dtype([("a", h5py.ref_dtype)])),
    "vlen": made(h5py.vlen_dtype("f4")),
    "array-type": made(np.dtype(("f4", (2**20,)))),
    "complex": made("c8"),
    "named-type": _named_type,
    "null": _null,
}
for _name, _how in KINDS.items():
    case("hdf5", f"type-{_name}", hdf5(_how), load)
    case("hdf5", f"type-{_name}-by-hand", hdf5(_how), load_weights)


# `.keras`, an archive with such a file.
def keras_archive(weights=None, compression=zipfile.ZIP_STORED):
    def make(folder, outside):
        found = weights() if weights else preset()["model.weights.h5"]
        members = {"config.json": b"{}", "model.weights.h5": found}
        archive(folder / "m.keras", members, compression)

    return make


def load_keras(folder):
    from helpers import tiny_mdm, tiny_nest

    tiny_mdm(network=tiny_nest(1, resolution=4)).load_weights(str(folder / "m.keras"))


def h5(**options):
    def make():
        file = io.BytesIO()
        with h5py.File(file, "w") as found:
            found.create_dataset("vars/0", **options)
        return file.getvalue()

    return make


def changed(old, new):
    """Makes an archive whose directory and headers say something else."""

    def make(folder, outside):
        keras_archive()(folder, outside)
        path = folder / "m.keras"
        data = path.read_bytes()
        assert data.count(old()) >= 2
        path.write_bytes(data.replace(old(), new))

    return make


PACKED = {"shape": (2**28,), "dtype": "f4", "chunks": (2**20,), "compression": "gzip"}
SIZE = lambda: struct.pack("<I", len(preset()["model.weights.h5"]))  # noqa: E731
for _name, _made in {
    "bomb": keras_archive(lambda: bytes(2**28), zipfile.ZIP_DEFLATED),
    "lying": changed(SIZE, struct.pack("<I", 2**32 - 2)),
    "zip64": changed(SIZE, b"\xff" * 4),
    "names": changed(lambda: b"model.weights.h5", b"../../outside/h5"),
    "text": keras_archive(lambda: b"no HDF5"),
    "empty": lambda folder, outside: write(folder / "m.keras", b""),
    "inner-gzip": keras_archive(h5(**PACKED)),
    "inner-vlen": keras_archive(h5(shape=(4,), dtype=h5py.vlen_dtype("f4"))),
}.items():
    case("keras", _name, _made, load_keras)


# Tar shards.
def rewritten(kind, changes):
    """A member whose header has other bytes at some places."""
    head = bytearray(header("s.png", 512, kind))
    for place, data in changes.items():
        head[place : place + len(data)] = data
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(512)


HOLES = {386: b"%011o\0" % 0, 398: b"%011o\0" % 9, 483: b"%011o\0" % 8**10}
LONG = b"x" * 600 + bytes(424)
LINK = {"type": tarfile.LNKTYPE, "linkname": "g.png"}
OUT = {"pax_headers": {"path": "../../outside/secret.png"}}
TEXT = ("s.txt", b"a", {})
for _name, _made in {
    "old-sparse": shard(TEXT, tail=rewritten(b"S", HOLES)),
    "base256": shard(
        tail=rewritten(b"0", {124: b"\x80" + (2**80).to_bytes(11, "big")})
    ),
    "hard-to-good": shard(("s.png", b"", LINK), TEXT),
    "long-link": shard(tail=header("@", 600, tarfile.GNUTYPE_LONGLINK, LONG)),
    "long-names": shard(tail=header("@", 600, tarfile.GNUTYPE_LONGNAME, LONG) * 5000),
    "pax-path": shard(("s.png", GOOD, OUT), TEXT),
    "dots": shard((".png", GOOD, {}), ("..png", GOOD, {}), ("a.b/c.d.png", b"odd", {})),
    "folder-data": shard(("s.png", GOOD, {"type": tarfile.DIRTYPE}), TEXT),
    "surrogates": shard(*sample(b"odd", None, b'{"caption": "\\ud83d"}', "a\n\x1b[1m")),
}.items():
    case("shard", _name, _made, read_shards)


# Descriptions of sets: features, and how many classes.
def features(label):
    """A parquet file whose own description has an odd label."""

    def make(folder, outside):
        import pyarrow.parquet

        labels(0, 1)(folder, outside)
        path = folder / "train-00000.parquet"
        found = {"image": {"_type": "Image"}, "label": label}
        text = json.dumps({"info": {"features": found}})
        text = text.replace("{outside}", str(outside))
        table = pyarrow.parquet.read_table(path)
        table = table.replace_schema_metadata({"huggingface": text})
        pyarrow.parquet.write_table(table, path)

    return make


def card(label):
    def make(folder, outside):
        labels(0, 1)(folder, outside)
        found = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": label}]
        text = json.dumps({"dataset_info": {"features": found}})
        write(
            folder / "README.md",
            f"---\n{text}\n---\n".replace("{outside}", str(outside)),
        )

    return make


def many_columns(folder, outside):
    import pyarrow.parquet

    table = pyarrow.table({f"c{i}": [0] for i in range(30_000)})
    pyarrow.parquet.write_table(table, folder / "train.parquet")


NAMES_FILE = {"names_file": "{outside}/secret.txt"}
for _name, _made in {
    "classes": features({"_type": "ClassLabel", "num_classes": 10**8}),
    "names-file": features({"_type": "ClassLabel"} | NAMES_FILE),
    "unknown": features({"_type": "Evil"}),
    "deep": features(json.loads("[" * 500 + "]" * 500)),
    "columns": many_columns,
    "card-classes": card({"class_label": {"num_classes": 10**8}}),
    "card-names-file": card({"class_label": NAMES_FILE}),
    "card-names": card({"class_label": {"names": {"0": "a", str(10**8 - 1): "b"}}}),
}.items():
    case("hf", f"features-{_name}", _made, read_hf)


# Names that a terminal would obey, in errors.
ESCAPE = "\x1b[31m\u202eX"


def named(folder, outside):
    import pyarrow.parquet

    table = pyarrow.table({ESCAPE: ["a"], ESCAPE + "b": ["b"]})
    pyarrow.parquet.write_table(table, folder / "train.parquet")


def named_weights(folder, outside):
    from safetensors.numpy import save_file

    t5(config=T5)(folder, outside)
    arrays = {"shared.weight": np.zeros((99, 99)), f"encoder.{ESCAPE}": np.zeros(4)}
    save_file(arrays, folder / "model.safetensors")


for _name, _change in {
    "key": put("config", "network", "config", ESCAPE, value=1),
    "part": put("config", "network", value=ESCAPE),
    "class": put("class_name", value=ESCAPE),
}.items():
    case("preset", f"escapes-{_name}", forged(_change), load)
VERSION = put("format_version", value=ESCAPE)
case("preset", "escapes-version", forged(VERSION, "metadata.json"), load)
case("hf", "escapes", named, read_hf)
case("t5", "escapes", named_weights, read_t5)
YAML = 'unet_config: {"\\e[31m": 1}\nsample_image_size: "\\e[31m"\n'
case("yaml", "escapes", lambda f, o: write(f / "config.yaml", YAML), read_yaml)


# Pictures and clips.
def ring(count):
    """A TIFF of pages of which the last leads to the first."""
    pages = (struct.pack("<HI", 0, 8 + 6 * (i % count)) for i in range(1, count + 1))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)


def gif(frames):
    from PIL import Image

    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    start, data = file.getvalue().index(b","), file.getvalue()
    return data[:start] + data[start:-1] * frames


ZEROS = zlib.compress(bytes(2**24))
TILES = [(322, 4, 1, 1), (323, 4, 1, 1), (324, 4, 2**28, 8)]
for _name, _data in {
    "ring.tif": ring(1000),
    "tiles.tif": tiff(2**20, 64, TILES),
    "profile-bomb.png": png(8, 8, bytes(64), extra=chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "text-bomb.png": png(8, 8, b"", extra=chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
}.items():
    case("picture", _name, picture(_data, _name), read_folder)
LENGTHY = box(b"mvhd", bytes(12) + struct.pack(">II", 1, 2**32 - 1) + bytes(80))
for _name, _data in {
    "duration.mp4": movie(LENGTHY, track(box(b"stsz", struct.pack(">III", 0, 8, 1)))),
    "tracks.mp4": movie(HEADER, *[track()] * 20_000),
    "frames.gif": gif(120_000),
}.items():
    case("clip", _name, clip(_name, _data), read_clips)
