"""`recipes/sample.py` and `recipes/evaluate.py` on the tiny run of the session."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import equal_values
from keras_mdm_recipes import averages, evaluate, labels, sample
from PIL import Image

import keras_mdm


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of the run that may be written into."""
    return shutil.copytree(finished[0], tmp_path_factory.mktemp("copy") / "run")


@pytest.mark.once
def test_draws_numbered_files_and_never_over_them(run, tmp_path, capsys):
    flags = [str(run), "--labels", "3", "7", "--num-samples", "2", "--output"]
    flags += [str(tmp_path), "--no-progress"]
    sample.main(flags)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == [
        "00000_3_16px.png",
        "00001_3_16px.png",
        "00002_7_16px.png",
        "00003_7_16px.png",
    ]
    first = np.asarray(Image.open(tmp_path / names[0]))
    assert first.shape == (16, 16)
    sample.main([*flags, "--pyramid"])
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert len(names) == 4 + 8 and "00004_3_8px.png" in names
    # The same seed draws the same pictures.
    assert np.array_equal(first, Image.open(tmp_path / "00004_3_16px.png"))
    assert "numbered from 00004" in capsys.readouterr().out


@pytest.mark.once
def test_grid_is_not_replaced_unless_asked(run, tmp_path):
    file = tmp_path / "grid.png"
    flags = [str(run), "--num-samples", "2", "--grid", "--output", str(file)]
    sample.main(flags)
    assert Image.open(file).size == (72, 2 * 82 + 4)
    with pytest.raises(SystemExit, match="--overwrite"):
        sample.main(flags)
    sample.main([*flags, "--overwrite", "--pyramid"])
    assert Image.open(file).size == (129 + 8, 2 * 82 + 4)


@pytest.mark.once
def test_a_grid_is_a_file_in_other_formats_too(run, tmp_path):
    flags = [str(run), "--num-samples", "2", "--grid", "--output"]
    sample.main([*flags, str(tmp_path / "grid.jpg")])
    assert Image.open(tmp_path / "grid.jpg").format == "JPEG"
    with pytest.raises(SystemExit, match="must end in .png, .jpg"):
        sample.main([*flags, str(tmp_path / "grid.tiff")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.jpg"]


@pytest.mark.once
def test_home(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    sample.main(["~/run", "--num-samples", "1", "--output=~/out"])
    assert (tmp_path / "out").is_dir() and not (tmp_path / "~").exists()


def test_draws_at_an_inner_resolution_into_the_run_by_default(run):
    sample.main([str(run), "--labels", "0", "--resolution", "8", "--num-samples", "1"])
    assert [e.name for e in (run / "drawn").iterdir()] == ["00000_0_8px.png"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels", "10"], "0 to 9"),
        (["--labels", "red"], "'red'"),
        (["--labels", "10", "--ema", "0.5"], "0 to 9"),
        (["--resolution", "32"], "resolution"),
        (["--num-samples", "0"], "num-samples"),
        (["--num-steps", "0"], "num_steps"),
        (["--ema", "0.5"], "sigma_rel.*must be above 0 and below 0.289.*0.5"),
        (["--output", "x.png"], "--grid"),
    ],
)
def test_wrong_flags_are_told(run, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = [] if "--output" in flags else ["--output", "out"]
    with pytest.raises(SystemExit, match=message):
        sample.main([str(run), *flags, *output])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", [sample, evaluate])
def test_a_folder_that_cannot_be_written_to_is_told_first(
    program, run, monkeypatch, capsys
):
    monkeypatch.setattr(os, "access", lambda *_: False)  # Root may write anywhere.
    with pytest.raises(SystemExit, match="run(/drawn)?' can't be written to"):
        program.main([str(run)])
    assert not capsys.readouterr().out


def test_an_average_of_another_length(run, tmp_path, preset, capsys):
    updates = {
        path.name: np.load(path)["updates"].tolist()
        for path in (run / "averages").iterdir()
    }
    # The inner level is frozen in the second stage.
    assert updates == {
        "stage1_step2.npz": [0, 2],
        "stage1_step3.npz": [0, 3],
        "stage2_step2.npz": [2, 3],
        "stage2_step3.npz": [3, 3],
    }
    flags = ["--labels", "3", "--num-samples", "1", "--no-progress", "--output"]
    mdm = keras_mdm.MDM.from_preset(str(run))
    weights = [mdm.averaged_weights()]
    for name, ema in (("a", "0.1"), ("b", "0.02")):
        sample.main([str(run), *flags, str(tmp_path / name), "--ema", ema])
        assert len(list((tmp_path / name).iterdir())) == 1
        mdm.load_average(run / "averages", float(ema))
        weights.append(mdm.averaged_weights())
    assert not equal_values(weights[0], weights[1])
    assert not equal_values(weights[1], weights[2])
    # Two snapshots know little of so short a time, and enough of one that was kept.
    warned = capsys.readouterr().err
    assert "sigma_rel 0.02: its profile" in warned and "sigma_rel 0.1:" not in warned
    assert "is missing" not in warned
    last = run / "averages" / "stage2_step3.npz"
    last.rename(tmp_path / last.name)
    sample.main([str(run), *flags, str(tmp_path / "c"), "--ema", "0.1"])
    assert "stage2_step3.npz' is missing" in capsys.readouterr().err
    (tmp_path / last.name).rename(last)
    with pytest.raises(SystemExit, match="no snapshots.*run.averages_every=STEPS"):
        sample.main([str(preset), *flags, str(tmp_path / "d"), "--ema", "0.1"])


def test_unknown_model_is_told():
    with pytest.raises(SystemExit, match="Unknown preset"):
        sample.main(["no_such_preset"])


def test_a_run_that_has_not_ended_is_told(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="has not ended.*--resume"):
        sample.main([str(tmp_path)])


def test_labels_by_name():
    names = ["red circle", "blue star"]
    assert labels.find_labels(["blue star", "0"], 2, names, 3) == ([1, 0], 3)
    assert labels.find_labels(None, 2, names, 3) == ([0, 1, 0], 1)
    assert labels.find_labels(None, None, None, 3) == (None, 3)
    with pytest.raises(ValueError, match="not class-conditional"):
        labels.find_labels(["1"], None, None, 3)


def test_spread_labels_reach_far():
    assert labels.spread_labels(12, 10) == [*range(10), 0, 1]
    some = labels.spread_labels(20, 30)
    assert len(set(some)) == 20
    # Colours and shapes of the 30 classes of shapes: all of them occur.
    assert {label % 6 for label in some} == set(range(6))
    assert {label // 6 for label in some} == set(range(5))


def test_evaluation_of_a_run(run, capsys):
    flags = ["--num-samples", "20", "--judge-epochs", "8", "--max-real", "200"]
    evaluate.main([str(run), *flags])
    printed = capsys.readouterr().out
    assert "8 pixels" in printed and "16 pixels" in printed
    found = json.loads((run / "evaluation.json").read_text())["results"]
    for result in found.values():
        assert 0 <= result["accuracy"] <= 1
        assert result["judge_accuracy_real"] > 0.2
        assert sorted(map(int, result["per_class"])) == list(range(10))
        assert result["pictures"] == {"drawn": 20, "real_train": 200, "real_test": 200}
        for name in ("frechet", "kernel"):
            # Untrained: nearer to noise than to real pictures.
            assert result[name]["real_test"] < result[name]["drawn"]


@pytest.mark.once
def test_evaluation_of_several_lengths(run, capsys, monkeypatch):
    monkeypatch.setattr(averages, "SWEEP", (0.05, 0.1))
    flags = ["--num-samples", "20", "--judge-epochs", "1", "--max-real", "40"]
    evaluate.main([str(run), *flags, "--ema", "sweep"])
    table = capsys.readouterr().out.partition("sigma_rel")[2]
    found = json.loads((run / "evaluation_sweep.json").read_text())["results"]
    assert list(found) == ["saved", "0.05", "0.1"]
    distances = [result["16"]["frechet"]["drawn"] for result in found.values()]
    assert len(set(distances)) == 3
    assert all(f"{distance:.4g}" in table for distance in distances)
    with pytest.raises(SystemExit):
        evaluate.parse_arguments([str(run), "--ema", "swep"])


def test_evaluation_needs_a_conditional_run(tmp_path, run):
    with pytest.raises(SystemExit, match="not a finished run"):
        evaluate.main([str(tmp_path)])
    with pytest.raises(SystemExit, match="at least the 10 classes"):
        evaluate.main([str(run), "--num-samples", "3", "--ema", "0.5"])
