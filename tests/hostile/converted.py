"""Forged T5 folders and configurations of the official code."""

import json
import shutil
import struct

from hostile.forge import EVIL, case, write


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
    "laughs-inside": f"{LAUGHS}unet_config: {{resolution_channels: *a11}}",
    "laughs-beside": f"{LAUGHS}unet_config: {{}}\nsample_image_size: *a11",
    "deep": "[" * 100_000,
    "recursive": "&a [*a]",
    "recursive-map": "unet_config: &a {inner_config: *a, resolution_channels: '1'}\n"
    "sample_image_size: 4",
    "size": "unet_config: {resolution_channels: '1'}\nsample_image_size: .inf",
    "zero": "unet_config: \0",
    "long": f"unet_config: [{'1,' * 10**6}]",
}.items():
    case("yaml", _name, lambda f, o, t=_text: write(f / "config.yaml", t), read_yaml)
