"""Forged presets, weights, checkpoints, states, embeddings and configurations."""

import functools
import io
import json
import os
import pickle
import shutil
import struct
import zipfile

import h5py
import numpy as np

from hostile.forge import EVIL, Call, archive, case, pickled, sparse, write


@functools.cache
def preset():
    """Files of a tiny preset as a dict of bytes, without checksums."""
    import tempfile

    from helpers import tiny_mdm, tiny_nest

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "p")
        tiny_mdm(network=tiny_nest(1, resolution=4)).save_to_preset(path)
        files = {e.name: open(e.path, "rb").read() for e in os.scandir(path)}
    metadata = json.loads(files["metadata.json"])
    metadata = {k: v for k, v in metadata.items() if k not in ("files", "checksum")}
    return files | {"metadata.json": json.dumps(metadata).encode()}


def load(folder):
    import keras_mdm

    keras_mdm.MDM.from_preset(folder)


def forged(change, name="config.json"):
    """Makes a preset of which one JSON file is changed."""

    def make(folder, outside):
        for file, data in preset().items():
            write(folder / file, data)
        value = json.loads(preset()[name])
        found = change(value)
        write(folder / name, value if found is None else found)

    return make


def network_of(config):
    return config["config"]["network"]["config"]


def put(*keys, value):
    """Changes a value deep inside."""

    def change(config):
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


def keras_class(name, **config):
    return {"module": "keras.layers", "class_name": name, "config": config}


NETWORK = ("config", "network")
OPTIONS = (*NETWORK, "config")
CONDITIONER = (*OPTIONS, "conditioner")
EVIL_CLASS = {"module": EVIL, "class_name": "Evil", "config": {}}
CONFIGS = {
    "dense": put(*CONDITIONER, value=keras_class("Dense", units=8)),
    "huge-dense": put(*CONDITIONER, value=keras_class("Dense", units=10**12)),
    "lambda": put(
        *CONDITIONER,
        value=keras_class("Lambda", function={"class_name": "__lambda__", "config": 1}),
    ),
    "sequential": put(*NETWORK, value=keras_class("Sequential", layers=[])),
    "module": put(*CONDITIONER, value=EVIL_CLASS),
    "network-module": put(*NETWORK, value=EVIL_CLASS),
    "registered": put(
        *CONDITIONER, value={**EVIL_CLASS, "registered_name": f"{EVIL}>Evil"}
    ),
    "borrowed-name": put(
        *CONDITIONER,
        value={**EVIL_CLASS, "registered_name": "keras_mdm>ClassLabels"},
    ),
    "hub-class": put(
        *CONDITIONER,
        value={
            "module": "keras_hub.models",
            "class_name": "Backbone",
            "registered_name": "keras_hub>Backbone",
            "config": {},
        },
    ),
    "function": put(
        "config",
        "schedule",
        "name",
        value={"class_name": "function", "module": "os", "config": "system"},
    ),
    "function-registered": put(
        "config",
        "schedule",
        "name",
        value={
            "class_name": "function",
            "module": "os",
            "config": "system",
            "registered_name": "keras_mdm>UNet",
        },
    ),
    "timesteps": put("config", "timesteps", value=EVIL_CLASS),
    "dtype": put(
        *OPTIONS,
        "dtype_policy",
        value={"module": EVIL, "class_name": "Policy", "config": {}},
    ),
    "compile": put(
        "compile_config", value={"optimizer": keras_class("Adam"), "resolution": 4}
    ),
    "no-class": put(*NETWORK, value={"config": {}}),
    "list": lambda config: [],
    "number": lambda config: 5,
    "deep": lambda config: "[" * 100_000,
    "deep-object": lambda config: '{"a":' * 100_000,
    "digits": lambda config: '{"class_name": "MDM", "config": ' + "9" * 5000 + "}",
    "huge-channels": put(*OPTIONS, "channels", value=[10**9]),
    "float-channels": put(*OPTIONS, "channels", value=[float("inf")]),
    "many-levels": put(*OPTIONS, "channels", value=[8] * 100_000),
    "many-blocks": put(*OPTIONS, "num_residual_blocks", value=10**9),
    "huge-timesteps": put("config", "schedule", "num_timesteps", value=10**12),
    "text-resolution": put(*OPTIONS, "resolution", value="4"),
    "huge-size": put(*CONDITIONER, "config", "size", value=10**12),
    "huge-classes": put(*CONDITIONER, "config", "num_classes", value=10**12),
    "unknown-option": put("config", "evil", value=1),
    "sampler": put("config", "sampling", "sampler", value=EVIL),
    "no-config": lambda config: config.pop("config") and None,
    "network-none": put(*NETWORK, value=None),
    "network-list": put(*NETWORK, value=[1]),
    "long": lambda config: json.dumps(config) + " " * 2**25,
}
for _name, _change in CONFIGS.items():
    case("preset", f"config-{_name}", forged(_change), load)
METADATA = {
    "list": lambda m: [],
    "version-text": put("format_version", value="2"),
    "version-nan": put("format_version", value=float("nan")),
    "version-huge": put("format_version", value=10**400),
    "files-list": put("files", value=[]),
    "files-wrong": put("files", value={"config.json": "0"}),
    "checksum": put("checksum", value="00000000"),
    "deep": lambda m: "[" * 100_000,
}
for _name, _change in METADATA.items():
    case("preset", f"metadata-{_name}", forged(_change, "metadata.json"), load)


def replaced(file, how):
    def make(folder, outside):
        for name, data in preset().items():
            write(folder / name, data)
        (folder / file).unlink()
        how(folder / file, outside)

    return make


HOW = {
    "fifo": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
    "link": lambda path, outside: path.symlink_to(outside / "secret.txt"),
    "null": lambda path, outside: path.symlink_to("/dev/zero"),
    "loop": lambda path, outside: path.symlink_to(path),
    "sparse": lambda path, outside: sparse(path, 10**11),
    "empty": lambda path, outside: write(path, b""),
}
for _file in ("config.json", "model.weights.h5"):
    for _name, _how in HOW.items():
        case("preset", f"{_file}-{_name}", replaced(_file, _how), load)


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


def _replacement(folder, outside):
    (folder / ".replacement").symlink_to(outside / "precious")
    write(folder / "config.json", "{}")


case("preset", "replacement-link", _replacement, load)


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
        import hashlib

        from keras_mdm.training import state_file

        assert state_file
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


ABOUT = {"format": 1, "encoder": "t5", "size": 4, "max_tokens": 8}
for _name, _made in {
    "deep": embeddings(about="[" * 100_000),
    "list": embeddings(about=[1]),
    "huge": embeddings(about=ABOUT | {"size": 10**15}),
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


# safetensors, and the configuration of T5.
def t5(index=None, config=None, **files):
    def make(folder, outside):
        if index is not None:
            write(folder / "model.safetensors.index.json", index)
        for name, data in files.items():
            write(folder / f"{name}.safetensors", data)
        shutil.copy(outside / "secret.txt", folder / "spiece.model")
        write(
            folder / "config.json", {"model_type": "t5"} if config is None else config
        )

    return make


def tensors(header, data=b"\0" * 64):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def read_t5(folder):
    from keras_mdm.conditioning.t5_model import load_encoder

    load_encoder(folder, "float32")


def shared(start, end, shape=(4, 4), dtype="F32"):
    return {
        "shared.weight": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    }


SIZES = {
    k: 4 for k in ("vocab_size", "num_layers", "num_heads", "d_model", "d_ff", "d_kv")
}
GOOD = tensors(shared(0, 64))
T5 = {"model_type": "t5", **SIZES}
for _name, _made in {
    "parent": t5(index={"weight_map": {"a": "../outside/secret.txt"}}),
    "absolute": t5(index={"weight_map": {"a": "/etc/passwd"}}),
    "folder": t5(index={"weight_map": {"a": "x/y.safetensors"}}),
    "backslash": t5(index={"weight_map": {"a": "..\\x.safetensors"}}),
    "number": t5(index={"weight_map": {"a": 1}}),
    "nothing": t5(index={"weight_map": None}),
    "zero": t5(index={"weight_map": {"a": "a\0b"}}),
    "deep-index": t5(index="[" * 100_000),
    "negative": t5(
        model=tensors(
            b'{"shared.weight": {"dtype": "F32", "shape": [4, 4], '
            b'"data_offsets": [-64, 0]}}'
        )
    ),
    "beyond": t5(model=tensors(shared(0, 640, (16, 10)))),
    "overlap": t5(model=tensors(shared(0, 64) | {"b": shared(0, 64)["shared.weight"]})),
    "huge-header": t5(model=struct.pack("<Q", 2**63) + b"{}"),
    "large-header": t5(model=struct.pack("<Q", 10**9) + b"{}"),
    "deep-header": t5(model=tensors(b"[" * 100_000)),
    "shape": t5(model=tensors(shared(0, 64, (2**32, 2**32)))),
    "dtype": t5(model=tensors(shared(0, 64, dtype="OBJECT"))),
    "config-huge": t5(config=T5 | {"vocab_size": 10**12}, model=GOOD),
    "config-layers": t5(config=T5 | {"num_layers": 10**9}, model=GOOD),
    "config-text": t5(config=T5 | {"d_ff": "4"}, model=GOOD),
    "config-negative": t5(config=T5 | {"d_kv": -4}, model=GOOD),
    "config-deep": t5(config="[" * 100_000, model=GOOD),
    "config-kind": t5(config={"model_type": EVIL}, model=GOOD),
    "config-projection": t5(config=T5 | {"feed_forward_proj": EVIL}, model=GOOD),
    "config-unfit": t5(config=T5, model=GOOD),
}.items():
    case("t5", _name, _made, read_t5)
case(
    "t5",
    "link",
    lambda folder, outside: (
        t5(config=T5)(folder, outside),
        (folder / "model.safetensors").symlink_to(outside / "secret.txt"),
    ),
    read_t5,
)


# YAML of the official code.
def read_yaml(folder):
    from keras_mdm.convert.config import complete, model_options, read_config

    config = read_config(folder / "config.yaml")
    complete(config["unet_config"])
    model_options(config)


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
for _name, _text in {
    "apply": f"!!python/object/apply:os.system ['touch MARKER']\n# {EVIL}",
    "module": f"unet_config: !!python/module:{EVIL} x",
    "name": f"unet_config: !!python/name:{EVIL}.x ''",
    "laughs": LAUGHS,
    "deep": "[" * 100_000,
    "recursive": "&a [*a]",
    "recursive-map": "unet_config: &a {inner_config: *a, resolution_channels: '1'}\n"
    "sample_image_size: 4",
    "size": "unet_config: {resolution_channels: '1'}\nsample_image_size: .inf",
    "zero": "unet_config: \0",
}.items():
    case("yaml", _name, lambda f, o, t=_text: write(f / "config.yaml", t), read_yaml)
assert Call
