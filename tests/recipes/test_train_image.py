"""`recipes/train_image.py` end to end: one tiny run a session, read by many tests."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
from helpers import tiny_mdm, tiny_unet
from keras_mdm_recipes import (
    __main__,
    check,
    report,
    run_folder,
    trackers,
    train_image,
    train_text_to_image,
)
from keras_mdm_recipes.settings import Settings
from PIL import Image
from recipe_runs import ROOT, run_recipe

import keras_mdm
from keras_mdm import data
from keras_mdm.data.digits import Digits
from keras_mdm.training import state, state_file


def rows_of(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_is_whole(finished):
    folder, output = finished
    for name in ("config.json", "history.csv", "noise_levels.csv", "losses.png"):
        assert (folder / name).stat().st_size > 0, name
    assert state.newest(folder / "state") is not None
    assert {entry.name for entry in (folder / "samples").iterdir()} == {
        "stage1_8px.png",
        "stage1_8px_raw.png",
        "stage2_16px.png",
        "stage2_16px_raw.png",
        "nearest.png",
    }
    for stage in ("stage1_8px", "stage2_16px"):
        kinds = {e.suffix for e in (folder / "logs" / stage).iterdir()}
        assert kinds == {".history", ".samples", ".noise_levels"}
    assert "stage2_16px.png" in output and "images/s" in output
    assert not [e for e in folder.rglob("*") if e.name.endswith(".part")]


@pytest.mark.once
def test_report_is_one_page_that_needs_no_network(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "run <b>")
    written = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "skipped.txt").write_text("<script>x</script>")
    grid = folder / "samples/stage1_8px.png"
    shutil.copy(grid, folder / "samples/stage1_8px_step2.png")
    monkeypatch.setattr(sys, "argv", ["keras-mdm", "report", str(folder)])
    __main__.main()
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (written, page):
        assert "http" not in text and "<script" not in text
        assert text.count("</table>") == 2 and "stage.batch_size" in text
    # Losses, norms, rates, distances, noise levels, five grids.
    assert [text.count("data:image/png") for text in (written, page)] == [10, 11]
    places = [page.index(name) for name in ("px_step2<", "stage1_8px<", "stage2_16px<")]
    assert places == sorted(places)
    assert "run &lt;b&gt;" in page and "&lt;script&gt;" in page
    with pytest.raises(SystemExit, match="no run in"):
        report.main([str(tmp_path)])


def test_output_has_no_spam(finished):
    lines = finished[1].splitlines()
    assert "\r" not in finished[1]
    assert len(lines) < 16, finished[1]
    assert len([line for line in lines if line.startswith("Stage ")]) == 2


def test_history_has_a_row_for_each_save_and_every_resolution(finished):
    rows = rows_of(finished[0])
    found = [(row["stage"], row["resolution"], row["step"]) for row in rows]
    assert found == [
        ("1", "8", "2"),
        ("1", "8", "3"),
        ("2", "16", "2"),
        ("2", "16", "3"),
    ]
    for row in rows:
        assert float(row["loss_8"]) > 0 and float(row["learning_rate"]) > 0
        assert bool(row["loss_16"]) == (row["stage"] == "2")
        parts = [float(row[key]) for key in ("loss_8", "loss_16") if row[key]]
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-4)


def test_grid_has_every_resolution_side_by_side(finished):
    folder = finished[0] / "samples"
    assert Image.open(folder / "stage1_8px.png").size == (2 * 68 + 4, 2 * 82 + 4)
    # Three pictures in one column, 64 + 1 + 64 pixels wide.
    assert Image.open(folder / "stage2_16px.png").size == (129 + 8, 3 * 82 + 4)
    assert Image.open(finished[0] / "losses.png").size == (960, 540)


def test_config_says_all_that_was_chosen(finished_config, preset):
    config = finished_config
    settings = config["settings"]
    assert settings["run"]["backend"] == keras.backend.backend()
    assert settings["run"]["seed"] == 5 and config["recipe"] == "train-image"
    assert settings["model"]["preset"] == str(preset)
    assert settings["samples"]["num_samples"] == 3
    assert settings["stage"]["learning_rate"] == [3e-3, 7e-4]
    assert config["class_names"] == [str(digit) for digit in range(10)]
    assert [stage["resolution"] for stage in config["stages"]] == [8, 16]
    assert [stage["steps"] for stage in config["stages"]] == [3, 3]
    assert config["versions"]["keras"] == keras.__version__
    assert config["model"]["prediction"] == "v"


def test_preset_of_the_run_draws(finished):
    mdm = keras_mdm.MDM.from_preset(finished[0])
    assert mdm.generate(labels=[3], seed=0).shape == (1, 16, 16, 1)


@pytest.mark.once
def test_refuses_a_folder_that_holds_a_run(finished, training_flags):
    before = sorted(finished[0].rglob("*"))
    done = run_recipe("train_image.py", "--output", finished[0], *training_flags)
    assert done.returncode == 1 and "--resume" in done.stderr
    assert sorted(finished[0].rglob("*")) == before


def test_resume_goes_on_where_the_state_was_saved(finished, tmp_path):
    """As if the run had been stopped after step 2 of 3 of the second stage."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "preset")
    (folder / "samples" / "stage2_16px.png").unlink()
    (folder / "state" / "stage2_epoch2_step0.state").unlink()
    done = run_recipe("train_image.py", "--output", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert "Stage 1" not in done.stdout and "3/3" in done.stdout
    assert [(r["stage"], r["step"]) for r in rows_of(folder)] == [
        ("1", "2"),
        ("1", "3"),
        ("2", "2"),
        ("2", "3"),
    ]
    assert (folder / "samples" / "stage2_16px.png").is_file()
    assert (folder / "preset" / "model.weights.h5").is_file()

    # Once more, on a run that has ended: it trains nothing and keeps the weights.
    weights = keras_mdm.MDM.from_preset(folder).network.get_weights()
    flags = ("--resume", "run.save_every", "--save-every", 1)
    done = run_recipe("train_image.py", "--output", folder, *flags)
    assert done.returncode == 0, done.stderr
    assert "steps_per_epoch was 2 and is 1" in done.stdout
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["run"]["save_every"] == 1
    again = keras_mdm.MDM.from_preset(folder).network.get_weights()
    assert all(map(np.array_equal, weights, again))


@pytest.mark.once
def test_a_second_process_is_refused(finished, tmp_path, main):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); "
            "lock.acquire(); print(flush=True); input()",
            str(folder / ".lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    history = (folder / "history.csv").read_bytes()
    with pytest.raises(SystemExit, match="another process is training in"):
        main(["--output", str(folder), "--resume"])
    assert (folder / "history.csv").read_bytes() == history
    # The lock dies with its process, though its file stays.
    holder.kill()
    holder.wait()
    assert (folder / ".lock").exists()
    with run_folder.only_process(folder):
        pass


@pytest.mark.once
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(signum, training_flags, tmp_path):
    folder = tmp_path / "run"
    flags = map(str, [*training_flags, "--max-steps", 100000, "--steps", 100000])
    recipe = str(ROOT / "recipes" / "train_image.py")
    process = subprocess.Popen(
        [sys.executable, recipe, "--output", str(folder), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "state" / "stage1_epoch1_step0.state").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, out + err
    assert "Traceback" not in err
    assert f"--output {folder} --resume" in err
    found = state.newest(folder / "state")
    progress = found.progress
    with state_file.opened(found.path) as (_, arrays):
        optimizer = [v for name, v in arrays if name.startswith("optimizer/")]
    done = next(value for value in optimizer if value.shape == ())
    assert progress["stage"] == 0
    assert 2 * progress["epoch"] + progress["step"] == done > 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "no_such_set"], "no_such_set"),
        (["--dataset", "folder:/no/such/folder"], "No such folder"),
        (["--preset", "no_such_preset"], "mdm_tiny_32"),
        (["--resolutions", "16", "24"], r"\(16, 8\)"),
        (["--resolutions", "16", "8"], "must rise"),
        (["--steps", "1", "2", "3"], "one for each of the 2 stages"),
        (["--set", "stage.mixed=16=2,32=1"], r"\[32\]"),
        (["--set", "stage.mixed=16:2"], "NAME=NUMBER"),
        (["--set", "samples.guidance_scale=-1"], "guidance_scale"),
        (["--set", "samples.sampler=dd"], "`sampler` must be one of"),
        (["--set", "samples.num_samples=0"], "samples.num_samples"),
        (["--set", "model.prediction=w"], "prediction.*'w'"),
        (["--set", "model.loss_weighting=w"], "weighting.*'w'"),
        (["--set", "model.schedule=quadratic"], "`schedule` must be one of"),
        (["--set", "stage.decay=linear"], "one of constant, cosine"),
        (["--batch-size", "100000"], "fewer than"),
        (["--resolutions", "8", "--learning-rate", "0"], "above 0"),
        (["--bogus"], "unrecognized"),
        (["--set", "run.tracker=wandb"], "needs `pip install wandb`"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    flags, message, training_flags, tmp_path, main, capsys
):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["--output", str(folder), *map(str, training_flags), *flags])
    told = capsys.readouterr().err + str(end.value.code)
    assert re.search(message, told), told
    assert not folder.exists()


@pytest.mark.once
def test_a_tracker_that_cannot_begin_is_told_before_anything_is_written(
    training_flags, tmp_path, main, monkeypatch
):
    class WithoutLogin(types.ModuleType):
        def init(self, **_):
            raise RuntimeError("no login")

    monkeypatch.setitem(sys.modules, "trackio", WithoutLogin("trackio"))
    flags = ["--output", str(tmp_path), "--set", "run.tracker=trackio"]
    with pytest.raises(SystemExit, match="trackio can't begin: no login"):
        main([*map(str, training_flags), *flags])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_tracker_that_cannot_finish_does_not_end_the_run_in_an_error(capsys):
    class Broken:
        def finish(self):
            raise RuntimeError("no disk")

    trackers.finish(Broken())
    assert "no disk" in capsys.readouterr().err


@pytest.mark.once
def test_resume_refuses_other_settings(finished, main):
    with pytest.raises(SystemExit, match="learning_rate"):
        main(["--output", str(finished[0]), "--resume", "--learning-rate", "0.5"])
    with pytest.raises(SystemExit, match="data.flip=False. Received: data.flip=True"):
        main(["--output", str(finished[0]), "--resume", "--set", "data.flip=true"])


@pytest.mark.once
def test_what_may_change_is_not_written_where_something_else_has(
    finished, main, tmp_path, monkeypatch
):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    monkeypatch.setattr(Digits, "contents", lambda self: {"pictures": 1})
    flags = ["--resume", "run.save_every", "--save-every", "1"]
    with pytest.raises(SystemExit, match="data.pictures was 1438 and is 1"):
        main(["--output", str(folder), *flags])
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.once
def test_resume_refuses_the_run_of_another_recipe(finished):
    with pytest.raises(SystemExit, match="is a run of train-image"):
        train_text_to_image.main(["--output", str(finished[0]), "--resume"])


@pytest.mark.once
def test_check_says_whether_anything_is_learned(
    training_flags, tmp_path, main, capsys, monkeypatch
):
    monkeypatch.setattr(check, "_STEPS", 40)
    flags = ["--output", str(tmp_path / "run"), "--check", *map(str, training_flags)]
    main([*flags, "--learning-rate", "0.01"])
    assert capsys.readouterr().out.endswith("All resolutions learn.\n")
    with pytest.raises(SystemExit, match="resolution 16, 8 did not fall by 25%"):
        main([*flags, "--learning-rate", "1e-9"])
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_check_takes_the_optimizer_of_the_run(
    training_flags, tmp_path, main, monkeypatch
):
    monkeypatch.setattr(check, "_STEPS", 10)
    made = []
    monkeypatch.setattr(keras_mdm.MDM, "fit", lambda mdm, *_, **__: made.append(mdm))
    flags = ["--output", str(tmp_path / "run"), "--check", *map(str, training_flags)]
    with pytest.raises(AttributeError):
        main([*flags, "--set", "stage.optimizer=muon", "stage.warmup_steps=1000"])
    (mdm,) = made
    assert isinstance(mdm.optimizer, keras_mdm.Muon)
    assert float(mdm.optimizer.learning_rate) == pytest.approx(0.0007)


@pytest.mark.once
def test_check_tells_of_pictures_without_anything_to_learn():
    pictures = np.zeros((2, 4, 4, 3), "uint8")
    pictures[1, ..., 0] = 255
    with pytest.raises(ValueError, match="2 pictures of a batch are of a single color"):
        check.check_pictures(pictures)
    pictures[:, 0, 0] = 7
    check.check_pictures(pictures)
    with pytest.raises(ValueError, match="2 pictures of a batch are the same"):
        check.check_pictures(pictures[[0, 0]])
    check.check_pictures(pictures[:1])


@pytest.mark.once
def test_resume_needs_a_run(tmp_path, main):
    with pytest.raises(SystemExit, match="no run"):
        main(["--output", str(tmp_path), "--resume"])


@pytest.mark.once
def test_folder_with_a_corrupt_picture_is_reported(preset, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "pictures" / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 24, 3), dtype="uint8")
        Image.fromarray(pixels).save(path)
    broken = tmp_path / "pictures" / "cats" / "broken.png"
    broken.write_bytes(path.read_bytes()[:60])
    small = tmp_path / "preset"
    mdm = tiny_mdm(network=tiny_unet(classes=2), sampling={"num_steps": 2})
    mdm.save_to_preset(small)
    done = run_recipe(
        "train_image.py",
        *("--output", tmp_path / "run", "--preset", small, "--batch-size", 4),
        *("--dataset", f"folder:{tmp_path / 'pictures'}", "--steps", 10),
        *("--backend", keras.backend.backend(), "--set", "data.split=all"),
        *("data.flip=true", "data.crop=random", "samples.num_samples=2"),
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 31 pictures" in done.stdout and "broken.png" in done.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["class_names"] == ["cats", "dogs"]


def test_data_without_labels_train_an_unconditional_model(monkeypatch):
    class Source:
        num_classes, channels, class_names, is_video = None, 1, None, False

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"image": np.zeros((32, 32, 1), "uint8")}

    source, settings = Source(), Settings()
    monkeypatch.setattr(data, "open_source", lambda *_, **__: source)
    train_image.open_source(settings)
    mdm = train_image.make_model(settings, source)
    assert mdm.network.levels == (32, 16)
    assert mdm.batch_spec.num_classes is None and mdm.network.image_channels == 1
