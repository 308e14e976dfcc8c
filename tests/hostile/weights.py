"""Forged checkpoints, states and embeddings."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np

from hostile.forge import EVIL, archive, case, pickled, sparse, write
from hostile.presets import HOW


# Checkpoints of PyTorch.
def read_pth(folder):
    from keras_mdm.convert.checkpoint import read_checkpoint

    read_checkpoint(folder / "vis_model.pth")


def pth(data, compression=zipfile.ZIP_STORED, **members):
    def make(folder, outside):
        found = data(outside) if callable(data) else data
        names = {"a/data.pkl": found, "a/version": b"3\n", "a/byteorder": b"little"}
        archive(
            folder / "vis_model.pth",
            names | {f"a/{k.replace('_', '/')}": v for k, v in members.items()},
            compression,
        )

    return make


def _global(module, name, arguments=b"(S'x'\ntR."):
    return b"\x80\x02c" + module + b"\n" + name + b"\n" + arguments


PICKLES = {
    "system": pickled(os.system, "touch MARKER"),
    "eval": pickled(eval, "1"),
    "exec": pickled(exec, "import evil_package"),
    "import": pickled(__import__, EVIL),
    "getattr": pickled(getattr, os, "system") if False else _global(b"os", b"getcwd"),
    "evil": _global(EVIL.encode(), b"Evil"),
    "numpy-load": _global(b"numpy", b"load"),
    "numpy-scalar": _global(b"numpy.core.multiarray", b"scalar"),
    "placeholder-build": b"\x80\x02cml_mdm.config\nA\n)\x81}S'x'\nK\x01sb.",
    "memo": b"\x80\x02}r\xff\xff\xff\x0f.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1",
    "empty": b"",
    "dict": pickle.dumps({"a": 1}, 2),
    "texts": pickle.dumps({"state_dict": {"a": "x" * 100}}, 2),
    "persistent": b"\x80\x02}S'a'\nU\x01xQs.",
    "ext": b"\x80\x02\x82\x01.",
}
for _name, _data in PICKLES.items():
    case("pth", _name, pth(_data), read_pth)
case("pth", "deflated", pth(pickle.dumps({}), zipfile.ZIP_DEFLATED), read_pth)


def tensor(size, stride, numbers, compression=zipfile.ZIP_STORED):
    """A checkpoint of a tensor whose storage has `numbers` floats."""
    data = (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n"
        b"FloatStorage\nU\x010U\x03cpuJ"
        + struct.pack("<i", size)
        + b"tQK\x00J"
        + struct.pack("<i", size)
        + b"\x85J"
        + struct.pack("<i", stride)
        + b"\x85\x89ccollections\nOrderedDict\n)RtRs."
    )
    return pth(data, compression, data_0=b"\0" * 4 * numbers)


for _name, _made in {
    "beyond": tensor(2**30, 1, 4),
    "stride-zero": tensor(2**30, 0, 2**20),
    "negative": tensor(-4, 1, 4),
    "bomb": tensor(2**26, 1, 2**26, zipfile.ZIP_DEFLATED),
}.items():
    case("pth", _name, _made, read_pth)
case(
    "pth",
    "legacy",
    lambda folder, outside: write(
        folder / "vis_model.pth",
        pickle.dumps(0x1950A86A20F9469CFC6C) + pickled(eval, "1"),
    ),
    read_pth,
)
case(
    "pth",
    "tar",
    lambda folder, outside: sparse(folder / "vis_model.pth", 10**9),
    read_pth,
)


# States of training.
def state(line, *rest, count=1):
    def make(folder, outside):
        head = line if isinstance(line, bytes) else json.dumps(line).encode()
        body = head + b"\n" + b"".join(rest)
        write(
            folder / "stage1_epoch0_step1.state", body + hashlib.sha256(body).digest()
        )

    return make


def read_state(folder):
    from helpers import trainer

    from keras_mdm.training.state import newest

    found = newest(folder)
    found.restore(trainer())


def npy(dtype, shape, data=b""):
    file = io.BytesIO()
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    header = header.encode().ljust(118 - 0) + b"\n"
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return file.getvalue()


VALUES = {
    "version": 1,
    "progress": {"stage": 0, "epoch": 0, "step": 1},
    "places": [None],
    "arrays": 1,
}
PLAIN = b'["a", "float32", [4]]\n'
for _name, _made in {
    "deep": state(b"[" * 100_000),
    "digits": state(b'{"arrays": ' + b"9" * 5000 + b"}"),
    "no-version": state({"arrays": 1}),
    "list": state([1]),
    "version-text": state(VALUES | {"version": "9"}),
    "progress-text": state(VALUES | {"progress": "x"}),
    "huge-count": state(VALUES | {"arrays": 10**12}),
    "object": state(VALUES, b'["a", "object", [4]]\n', npy("<u8", (4,), b"\0" * 32)),
    "pickled": state(VALUES, PLAIN, npy("|O", (1,), pickled(os.system, "true"))),
    "huge-shape": state(VALUES, PLAIN, npy("<u4", (10**12,))),
    "negative": state(VALUES, PLAIN, npy("<u4", (-4,))),
    "dtype-text": state(VALUES, b'["a", "evil", [4]]\n', npy("<u4", (4,), b"\0" * 16)),
    "dtype-list": state(VALUES, b'["a", [1], [4]]\n', npy("<u4", (4,), b"\0" * 16)),
    "name-list": state(VALUES, b'[["a"], "float32", [4]]\n', npy("<u4", (4,))),
    "code": state(VALUES, PLAIN, npy("<u4", "__import__('evil_package')")),
    "other": state(VALUES, PLAIN, npy("<u4", (4,), b"\0" * 16)),
}.items():
    case("state", _name, _made, read_state)
for _name in ("fifo", "folder", "link", "null", "empty"):
    case(
        "state",
        _name,
        lambda folder, outside, how=HOW[_name]: how(
            folder / "stage1_epoch0_step1.state", outside
        ),
        read_state,
    )


# Embeddings.
def embeddings(about=None, tokens=None, **index):
    def make(folder, outside):
        from keras_mdm.data.embeddings import write_about, write_shard

        write_about(folder, "t5", 4, 8)
        write_shard(folder, 0, ["a"], [np.ones((2, 4))], [np.ones(2, "bool")])
        if about is not None:
            write(folder / "embeddings.json", about)
        if tokens is not None:
            write(folder / "00000.tokens.npy", tokens)
        if index:
            np.savez(folder / "00000.index.npz", **index)

    return make


def read_embeddings(folder):
    from keras_mdm.data.embeddings import EmbeddingShards

    EmbeddingShards(folder).look_up(["a"])


# Without a checksum, and without what made it.
INDEX = {"hashes": np.arange(1, dtype="u8"), "lengths": np.full(1, 2, "i4")}
ABOUT = {"format": 1, "encoder": "t5", "size": 4, "max_tokens": 8}
for _name, _made in {
    "deep": embeddings(about="[" * 100_000),
    "list": embeddings(about=[1]),
    "huge": embeddings(about=ABOUT | {"size": 10**15}),
    "long": embeddings(about=ABOUT | {"max_tokens": 10**9}, **INDEX),
    "checksum": embeddings(about=ABOUT | {"checksum": "0"}),
    "object": embeddings(tokens=npy("|O", (2, 4), pickled(os.system, "true"))),
    "huge-shape": embeddings(tokens=npy("<f2", (10**12, 4))),
    "code": embeddings(tokens=npy("<f2", "__import__('evil_package')")),
    "header": embeddings(tokens=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"),
    "index-object": embeddings(hashes=np.array([{}], object), lengths=np.ones(1, "i4")),
    "index-bomb": embeddings(hashes=np.zeros(2**24, "u8"), lengths=np.ones(1, "i4")),
    "index-lengths": embeddings(
        hashes=np.zeros(2, "u8"), lengths=np.array([2**31 - 1, -(2**31) + 3], "i4")
    ),
    "changed": embeddings(tokens=npy("<f2", (2, 4), b"\1" * 16)),
}.items():
    case("embeddings", _name, _made, read_embeddings)
for _file in ("embeddings.json", "00000.tokens.npy", "00000.index.npz"):

    def _linked(folder, outside, file=_file):
        embeddings()(folder, outside)
        (folder / file).rename(outside / file)
        (folder / file).symlink_to(outside / file)

    case("embeddings", f"link-{_file}", _linked, read_embeddings)
