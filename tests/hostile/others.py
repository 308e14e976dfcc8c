"""Forged files of formats that are read rarely, and of what lies beside a set."""

import io
import json
import struct
import tarfile
import zipfile

import numpy as np

from hostile.forge import EVIL, archive, case, png, read_all, write
from hostile.pictures import clip, read_clips
from hostile.presets import put, replaced
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
