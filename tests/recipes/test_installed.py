"""`keras-mdm`, where the package is installed and there is no checkout."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile

import keras
import pytest
from recipe_runs import ROOT

setuptools = int(importlib.metadata.version("setuptools").partition(".")[0])
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(setuptools < 77, reason="the build needs setuptools 77"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The contents of the wheel, in a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("keras_mdm", "recipes"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    shutil.rmtree(checkout)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def keras_mdm(wheel, tmp_path):
    """A function that runs `keras-mdm` as the installed script does."""
    code = (
        "import importlib.metadata, sys\n"
        "(script,) = importlib.metadata.entry_points(name='keras-mdm')\n"
        "sys.exit(script.load()())"
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
        )

    return run


def test_every_preset_and_no_picture_of_the_readme_is_in_it(wheel):
    presets = {path.name for path in (ROOT / "keras_mdm").rglob("presets/*.*")}
    assert {path.name for path in wheel.rglob("presets/*.*")} == presets
    assert not list(wheel.rglob("*.webp"))


def test_train_and_sample(keras_mdm, preset, tmp_path):
    flags = ["--output", "run", "--dataset", "digits", "--preset", preset]
    flags += [
        "--backend",
        keras.backend.backend(),
        "--steps",
        2,
        "--batch-size",
        8,
        "--resolutions",
        8,
    ]
    done = keras_mdm("train-image", *flags, "--set", "samples.num_samples=2")
    assert done.returncode == 0, done.stderr
    assert "Draw more: keras-mdm sample run" in done.stdout
    assert (tmp_path / "run" / "preset" / "model.weights.h5").is_file()
    done = keras_mdm("sample", "run", "--labels", 3, "--grid", "--output", "a.png")
    assert done.returncode == 0 and (tmp_path / "a.png").is_file(), done.stderr
    done = keras_mdm("train-image", *flags)
    assert done.returncode == 1 and done.stderr.startswith("error: --output 'run'")


def test_help_and_unknown_names(keras_mdm):
    done = keras_mdm("train-text", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: keras-mdm train-text [-h] --output")
    for arguments, code in (((), 0), (("--help",), 0), (("train",), 2)):
        done = keras_mdm(*arguments)
        assert done.returncode == code and "train-image" in done.stdout
