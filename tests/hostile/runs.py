"""Forged run folders: settings, links, averages and states of training."""

import io
import os
import zipfile

import numpy as np

from hostile.forge import EVIL, archive, case, write
from hostile.presets import HOW
from hostile.weights import npy, state


def run(**changes):
    """Makes a run folder whose settings are changed."""

    def make(folder, outside):
        settings = {"run": {}, "data": {}, "model": {}, "stage": {}}
        for key, value in changes.items():
            section, name = key.split("_", 1)
            if isinstance(value, str):
                value = value.replace("{outside}", str(outside))
            settings[section][name] = value
        config = {"recipe": "train-image", "settings": settings}
        write(folder / "config.json", config)
        (folder / "preset").mkdir()

    return make


def resume(folder):
    from keras_mdm_recipes import command_line, start, train_image

    start.read_run(folder)
    command_line.parse(train_image, ["--output", str(folder), "--resume"])


for _name, _made in {
    "backend": run(run_backend=f"{EVIL}.x"),
    "backend-list": run(run_backend=["jax"]),
    "seed": run(run_seed="__import__('os')"),
    "crop": run(data_crop="evil"),
    "dataset": run(data_dataset={"a": 1}),
    "steps": run(stage_steps="9" * 5000),
    "steps-deep": run(stage_steps="[" * 100_000),
    "unknown": run(run_evil=1),
    "resolutions": run(stage_resolutions=["../x"]),
    "workers": run(data_num_workers=1.5),
    # What is named outside of the run must be named by the user.
    "folder": run(data_dataset="folder:{outside}"),
    "hub": run(data_dataset="hf:some/set"),
    "sets": run(data_dataset="forged", data_data_dir="{outside}"),
    "preset": run(model_preset="{outside}/precious"),
    "start-from": run(model_start_from="hf://some/preset"),
    "tracker": run(run_tracker="wandb"),
    "programs": run(run_cache_dir="{outside}"),
}.items():
    case("run", _name, _made, resume)
for _name, _config in {
    "deep": "[" * 100_000,
    "list": "[]",
    "names": {"recipe": "train-image", "settings": {}, "class_names": [1]},
    "sections": {"recipe": "train-image", "settings": []},
    "no-settings": {"recipe": "train-image"},
    "checksum": {"recipe": "train-image", "settings": {}, "checksum": "0"},
    "long": " " * 2**25 + "{}",
}.items():

    def _make(folder, outside, config=_config):
        (folder / "preset").mkdir()
        write(folder / "config.json", config)

    case("run", f"config-{_name}", _make, resume)


def linked(name, target):
    def make(folder, outside):
        (folder / name).symlink_to(outside / target)

    return make


def write_run(folder):
    """What a run writes into its folder, through links if it followed them."""
    from keras_mdm_recipes.run_folder import only_process

    from keras_mdm.files import append_whole, whole_file
    from keras_mdm.paths import own_folder
    from keras_mdm.training.pictures import save_picture

    own_folder(folder, "samples"), own_folder(folder, "state")
    with only_process(folder):
        pass
    with whole_file(folder / "losses.png") as temporary:
        temporary.write_bytes(b"")
    save_picture(folder / "grid.png", np.zeros((4, 4, 3), "uint8"))
    append_whole(folder / "history.csv", b"row")
    assert not (folder / "losses.png").is_symlink()
    return ["written beside the link"]


def train(folder):
    """A run that is begun, or gone on with, in a folder where something lies."""
    from keras_mdm_recipes import command_line, train_image

    command_line.parse(train_image, ["--output", str(folder)])


for _name, _target in {
    "samples": "precious",
    "state": "precious",
    ".lock": "precious/file",
    "losses.png": "secret.txt",
    "grid.png": "secret.png",
    "history.csv": "secret.txt",
}.items():
    case("run", f"link-{_name}", linked(_name, _target), write_run)


def hard(name, target):
    def make(folder, outside):
        (folder / name).hardlink_to(outside / target)

    return make


for _name in (".lock", "losses.png", "grid.png", "history.csv"):
    case("run", f"hard-{_name}", hard(_name, "precious/file"), write_run)
case("run", "fifo-rows", lambda f, o: os.mkfifo(f / "history.csv"), write_run)
for _name in ("preset", "state", "samples"):
    case("run", f"fifo-{_name}", lambda f, o, n=_name: os.mkfifo(f / n), train)


# Snapshots of averages.
def snapshot(change=None, compression=zipfile.ZIP_STORED):
    """Makes a run folder with a snapshot of which some members are changed."""

    def make(folder, outside):
        from helpers import tiny_mdm, tiny_nest

        from keras_mdm.saving.average_snapshots import write_snapshot

        mdm = tiny_mdm(network=tiny_nest(1, resolution=4), power_averages=(0.05, 0.1))
        write_snapshot(mdm, folder / "averages" / "stage1_step1.npz")
        path = folder / "averages" / "stage1_step1.npz"
        if callable(change):
            path.unlink()
            change(path, outside)
            return
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        first = max(members, key=lambda name: len(members[name]))
        for name, value in change.items():
            found = value() if callable(value) else value
            members[first if name == "first" else name] = found
        archive(path, members, compression)

    return make


def load_average(folder):
    from helpers import tiny_mdm, tiny_nest

    mdm = tiny_mdm(network=tiny_nest(1, resolution=4), power_averages=(0.05, 0.1))
    mdm.load_average(folder / "averages", 0.07)


def saved(value):
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


for _name, _made in {
    "lengths-text": snapshot({"sigma_rel.npy": saved(np.array(["a", "b"]))}),
    "lengths-square": snapshot({"sigma_rel.npy": saved(np.full((2, 2), 0.1))}),
    "lengths-scalar": snapshot({"sigma_rel.npy": saved(0.1)}),
    "updates-nan": snapshot({"updates.npy": saved(np.array([np.nan]))}),
    "updates-text": snapshot({"updates.npy": saved(np.array(["a"]))}),
    "updates-scalar": snapshot({"updates.npy": saved(3)}),
    "updates-huge": snapshot({"updates.npy": saved(np.array([1e308]))}),
    "values-texts": snapshot({"first": npy("<U4", (16, 16), b"a" * 4096)}),
    "values-bomb": snapshot(
        {"first": lambda: saved(np.zeros(2**28, "f4"))}, zipfile.ZIP_DEFLATED
    ),
    "lengths-bomb": snapshot(
        {"sigma_rel.npy": lambda: saved(np.zeros(2**28, "f4"))}, zipfile.ZIP_DEFLATED
    ),
    "object": snapshot({"updates.npy": npy("|O", (1,), b"cos\nsystem\n(S'x'\ntR.")}),
    "link": snapshot(HOW["link"]),
    "fifo": snapshot(HOW["fifo"]),
    "null": snapshot(HOW["null"]),
}.items():
    case("averages", _name, _made, load_average)


def write_averages(folder):
    """A run that is resumed with averages, whose folder is a link."""
    from keras_mdm_recipes import averages
    from keras_mdm_recipes.settings import Settings

    settings = Settings()
    settings.run.averages_every = 1
    averages.callbacks(settings, folder)


case("run", "link-averages", linked("averages", "precious"), write_averages)


def take_up(folder):
    """The rows that a resumed run goes on with."""
    from keras_mdm.training.rows import PLACE, Rows

    Rows(folder / "history.csv", lambda: PLACE).take_up((1, 1), True)


case("run", "link-rows", linked("history.csv", "secret.txt"), take_up)


def _linked_log(folder, outside):
    (folder / "logs").mkdir()
    (folder / "logs" / "stage1_8px").symlink_to(outside / "precious")


def write_log(folder):
    import types

    from keras_mdm.callbacks import NoiseLevels

    callback = NoiseLevels(folder / "noise_levels.csv")
    callback.on_stage_begin(0, types.SimpleNamespace(resolution=8))
    callback.open_writer(folder / "logs", "x").close()


case("run", "link-log", _linked_log, write_log)
case(
    "run",
    "link-config",
    lambda folder, outside: (
        write(outside / "config.json", {"recipe": "train-image", "settings": {}}),
        (folder / "config.json").symlink_to(outside / "config.json"),
    ),
    resume,
)


# States whose checksum is right, and whose values are not.
def read_values(folder):
    from keras_mdm.training.state import newest

    newest(folder)


PROGRESS = {"stage": 0, "epoch": 0, "step": 1}
SOUND = {
    "version": 1,
    "progress": PROGRESS,
    "places": [None],
    "arrays": 0,
    "settings": {},
    "callbacks": {},
}
for _name, _value in {
    "progress-float": {"progress": PROGRESS | {"step": 1.0}},
    "progress-bool": {"progress": PROGRESS | {"step": True}},
    "progress-list": {"progress": [0, 0, 1]},
    "places-text": {"places": "x"},
    "places-empty": {"places": []},
    "places-taken": {"places": [{"taken": "x", "epoch": 0, "state": None}]},
    "places-huge": {"places": [{"taken": -5, "epoch": 0, "state": None}]},
    "settings-list": {"settings": [1]},
    "callbacks-list": {"callbacks": [1]},
    "callbacks-text": {"callbacks": {"History": "x"}},
}.items():
    case("state", _name, state(SOUND | _value), read_values)
