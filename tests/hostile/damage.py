"""Files of each kind that carries a checksum, damaged in four ways by a seed.

A damaged file must raise an error that names it, or load the numbers that it had: a
byte that means nothing may change.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Callable

import keras
import numpy as np

WAYS = ("cut", "flipped", "emptied", "swapped")


@dataclasses.dataclass
class Kind:
    """What a preset, a run or a data set has.

    Args:
        name: str.
        files: Tuple of names in the folder that are damaged, one at a time.
        make: Callable `(folder, seed)`.
        read: Callable of the folder; returns a digest of what it loads.
    """

    name: str
    files: tuple
    make: Callable
    read: Callable


def _digest(values):
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(keras.ops.convert_to_numpy(value)).tobytes())
    return found.hexdigest()


def _mdm(seed):
    from helpers import randomize, tiny_mdm, tiny_nest

    mdm = tiny_mdm(network=tiny_nest(1, resolution=4, classes=0))
    randomize(mdm.network, seed=seed)
    return mdm


def _make_preset(folder, seed):
    _mdm(seed).save_to_preset(folder)


def _read_preset(folder):
    import keras_mdm

    mdm = keras_mdm.MDM.from_preset(folder)
    config = json.dumps(mdm.get_config(), sort_keys=True, default=str).encode()
    return _digest(mdm.network.weights) + hashlib.sha256(config).hexdigest()


def _make_by_hand(folder, seed):
    folder.mkdir(parents=True)
    _mdm(seed).save_weights(folder / "one.weights.h5")
    _mdm(seed).save_weights(folder / "two.weights.json", max_shard_size=3e-5)
    _mdm(seed).save(folder / "whole.keras")


def _read_by_hand(folder):
    found = []
    for name in ("one.weights.h5", "two.weights.json", "whole.keras"):
        mdm = _mdm(9)
        mdm.load_weights(folder / name)
        found += mdm.network.weights
    return _digest(found)


def _make_bundled(folder, seed):
    from keras_mdm.saving.bundled import write_bundled_weights

    write_bundled_weights(_mdm(seed), folder / "weights.npz")


def _read_bundled(folder):
    from keras_mdm.saving.bundled import read_bundled_weights

    mdm = _mdm(9)
    read_bundled_weights(mdm.network, folder / "weights.npz")
    return _digest(mdm.network.weights)


def _make_embeddings(folder, seed):
    from keras_mdm.data.embeddings import write_about, write_shard

    rng = np.random.default_rng(seed)
    write_about(folder, f"encoder {seed}", 8, 4)
    for number in range(2):
        texts = [f"{seed} {number} {i}" for i in range(4)]
        rows = [rng.normal(size=(3, 8)) for _ in texts]
        write_shard(folder, number, texts, rows, [np.ones(3, "bool")] * 4)


def _read_embeddings(folder):
    from keras_mdm.data.embeddings import EmbeddingShards

    shards = EmbeddingShards(folder)
    texts = [f"0 {number} {i}" for number in range(2) for i in range(4)]
    found = shards.look_up(texts)
    about = f"{shards.encoder_name} {shards.max_tokens} {shards.size}"
    return _digest(found.values()) + about


def _make_state(folder, seed):
    from keras_mdm.training import state_file

    rng = np.random.default_rng(seed)
    values = {"version": 1, "progress": {"stage": seed, "epoch": 0, "step": 0}}
    arrays = {"a": rng.normal(size=(8, 8)).astype("float32"), "b": np.arange(9)}
    name = f"stage{seed + 1}_epoch0_step0.state"
    state_file.write(folder / name, values | {"places": [None]}, arrays)


def _read_state(folder):
    from keras_mdm.training import state, state_file

    found = state.newest(folder)
    with state_file.opened(found.path) as (values, arrays):
        return _digest(array for _, array in arrays) + json.dumps(values)


def _averaged(seed):
    from helpers import randomize, tiny_mdm, tiny_nest

    network = tiny_nest(1, resolution=4, classes=0)
    mdm = tiny_mdm(network=network, power_averages=(0.05, 0.1))
    randomize(mdm.network, seed=seed)
    for average in mdm.power_averages:
        average.reset(mdm.network.variables)
    return mdm


def _make_averages(folder, seed):
    from keras_mdm.saving.average_snapshots import write_snapshot

    write_snapshot(_averaged(seed), folder / "stage1_step1.npz")


def _read_averages(folder):
    mdm = _averaged(9)
    mdm.load_average(folder, 0.07)
    return _digest(mdm.network.weights)


def _make_run(folder, seed):
    from keras_mdm_recipes import start

    settings = {"run": {"seed": seed}, "stage": {"learning_rate": [1e-3 * (seed + 1)]}}
    config = {"recipe": "train-image", "settings": settings, "class_names": ["a", "b"]}
    config["checksum"] = start.checksum(config)
    (folder / "preset").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def _read_run(folder):
    from keras_mdm_recipes import start

    config = start.read_run(folder)
    return json.dumps([config["settings"], config["class_names"]])


def _make_index(folder, seed):
    from hostile.sets import GOOD, sample, shard
    from keras_mdm.data.shards import index_path, read_index

    samples = (sample(GOOD, text=b"a" * (seed + 1), key=f"s{i}") for i in range(3))
    shard(*(member for found in samples for member in found))(folder, folder)
    read_index(folder / "a.tar")
    shutil.copy(index_path(folder / "a.tar"), folder / "index.npz")


def _read_index(folder):
    from keras_mdm.data.shards import index_path, read_index

    # The shard as it was when the index was made, by name and time.
    tar = folder / "a.tar"
    shutil.copy(folder / "index.npz", index_path(tar))
    keys, members, *_ = read_index(tar)
    return f"{keys} {members.tolist()}"


def _make_checkpoint(folder, seed):
    from keras_mdm.convert.checkpoint import write_checkpoint

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    pairs = [(f"w{i}", rng.normal(size=(4, 4))) for i in range(3)]
    write_checkpoint(folder / "vis_model.pth", pairs)


def _read_checkpoint(folder):
    from keras_mdm.convert.checkpoint import read_checkpoint

    found = read_checkpoint(folder / "vis_model.pth")
    return _digest(found.values()) + str(sorted(found))


def _make_t5(folder, seed):
    from safetensors.numpy import save_file

    from keras_mdm.convert.t5_folder import keep_encoder

    plain, rng = folder.with_name(f"plain {seed}"), np.random.default_rng(seed)
    plain.mkdir(parents=True)
    names = ("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight")
    tensors = {name: rng.normal(size=(8, 8)).astype("float32") for name in names}
    save_file(tensors, plain / "model.safetensors")
    (plain / "config.json").write_text(json.dumps({"model_type": "t5", "d_kv": seed}))
    (plain / "spiece.model").write_bytes(rng.bytes(99))
    keep_encoder(plain, folder)


def _read_t5(folder):
    from keras_mdm.conditioning.t5_files import encoder_weights
    from keras_mdm.conditioning.t5_model import read_config

    config = read_config(folder)
    found = encoder_weights(folder)
    vocabulary = (folder / "spiece.model").read_bytes().hex()
    tensors = [file.get_tensor(name).view("uint16") for name, file in found.items()]
    # A key that is changed from "checksum" is one more that nobody asks for.
    asked = [config.get(key) for key in ("model_type", "d_kv", "dtype")]
    return _digest(tensors) + json.dumps(asked) + vocabulary


def _make_statistics(folder, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    found = {"mu": rng.normal(size=4), "sigma": np.eye(4), "resolution": 64}
    np.savez(folder / "reference.npz", **found)


def _read_statistics(folder):
    from keras_mdm_recipes.fid import read_reference

    return _digest(read_reference(str(folder / "reference.npz"), 64).values())


PRESET = ("config.json", "metadata.json", "model.weights.h5")
T5 = ("config.json", "model.safetensors", "spiece.model")
EMBEDDINGS = (
    "embeddings.json",
    *(f"0000{n}.{part}" for n in (0, 1) for part in ("tokens.npy", "index.npz")),
)
BY_HAND = (
    "one.weights.h5",
    "two.weights.json",
    "two_00000.weights.h5",
    "two_00001.weights.h5",
    "whole.keras",
)
KINDS = (
    Kind("preset", PRESET, _make_preset, _read_preset),
    Kind("by hand", BY_HAND, _make_by_hand, _read_by_hand),
    Kind("bundled", ("weights.npz",), _make_bundled, _read_bundled),
    Kind("embeddings", EMBEDDINGS, _make_embeddings, _read_embeddings),
    Kind("state", ("stage1_epoch0_step0.state",), _make_state, _read_state),
    Kind("averages", ("stage1_step1.npz",), _make_averages, _read_averages),
    Kind("run", ("config.json",), _make_run, _read_run),
    Kind("index", ("index.npz",), _make_index, _read_index),
    Kind("t5", T5, _make_t5, _read_t5),
    Kind("statistics", ("reference.npz",), _make_statistics, _read_statistics),
    Kind("checkpoint", ("vis_model.pth",), _make_checkpoint, _read_checkpoint),
)
# One file that is whole in itself may be replaced by another: that is no damage.
WHOLE = {
    "weights.npz",
    "stage1_step1.npz",
    "reference.npz",
    "vis_model.pth",
    "one.weights.h5",
    "two.weights.json",
    "whole.keras",
    "run/config.json",
    "t5/config.json",
}


def damages(count, seed):
    """`count` damages in turn over all files, as (kind, file, way, place in [0, 1))."""
    rng = np.random.default_rng(seed)
    found = [
        (kind, file, way)
        for way in WAYS
        for kind in KINDS
        for file in kind.files
        if way != "swapped" or not {file, f"{kind.name}/{file}"} & WHOLE
    ]
    # A flip has more places to be at than the others.
    flips = [one for one in found if one[2] == "flipped"]
    turns = (found + 4 * flips) * (count // len(found) + 1)
    chosen = rng.permutation(len(turns))[:count]
    return [(*turns[i], float(rng.random())) for i in sorted(chosen)]


def damage(path, way, place, other):
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    if way == "cut":
        del data[at:]
    elif way == "flipped":
        data[at] ^= 1 << int(place * 1e6) % 8
    elif way == "emptied":
        data.clear()
    else:
        data = other.read_bytes()
    path.write_bytes(data)


def check(count, seed):
    """Damages files one by one.

    Returns:
        dict of counts, and list of what was wrong.
    """
    counts, wrong = {"refused": 0, "same": 0}, []
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root, honest = pathlib.Path(root), {}
        for kind, file, way, place in damages(count, seed):
            where = root / kind.name
            if kind.name not in honest:
                for other in (0, 1):
                    kind.make(where / str(other), other)
                honest[kind.name] = kind.read(where / "0")
            other = where / "1" / file.replace("stage1", "stage2")
            path = where / "0" / file
            whole, times = path.read_bytes(), path.stat()
            damage(path, way, place, other)
            what = f"{kind.name}/{file} {way} at {place}"
            try:
                found = kind.read(where / "0")
                if found == honest[kind.name]:
                    counts["same"] += 1
                else:
                    wrong.append(f"{what}: loaded other numbers")
            except (ValueError, OSError, KeyError) as error:
                counts["refused"] += 1
                if file.partition(".")[0] not in str(error):
                    wrong.append(f"{what}: the file is not named in {error}")
            except Exception as error:
                wrong.append(f"{what}: {error!r}")
            path.write_bytes(whole)
            assert times.st_size == path.stat().st_size
    return counts, wrong
