"""Forged presets."""

import functools
import json
import os

from hostile.forge import EVIL, case, sparse, write


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


def _replacement(folder, outside):
    (folder / ".replacement").symlink_to(outside / "precious")
    write(folder / "config.json", "{}")


case("preset", "replacement-link", _replacement, load)
