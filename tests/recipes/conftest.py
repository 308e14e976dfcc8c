"""Runs recipes as users do, in processes of their own, on a model of a few weights."""

import json

import keras
import pytest
from helpers import tiny_mdm, tiny_nest
from keras_mdm_recipes import train_image
from recipe_runs import run_recipe


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    """A preset of 8 -> 16 pixels in one channel that compiles fast."""
    folder = tmp_path_factory.mktemp("preset") / "small"
    mdm = tiny_mdm(
        network=tiny_nest(classes=10), ema_momentum=0.9, sampling={"num_steps": 3}
    )
    mdm.save_to_preset(folder)
    return folder


@pytest.fixture(scope="session")
def training_flags(preset):
    """Flags of a run of seconds."""
    return (
        *("--dataset", "digits", "--preset", preset, "--backend"),
        *(keras.backend.backend(), "--max-steps", 3, "--save-every", 2),
        *(
            "--batch-size",
            8,
            "--set",
            "samples.num_samples=3",
            "run.averages_every=2",
            "--seed",
            5,
        ),
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory, training_flags):
    """A finished run: its folder and what it printed. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    done = run_recipe(
        "train_image.py",
        *("--output", folder),
        *training_flags,
        without_tensorflow=keras.backend.backend() == "jax",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="session")
def finished_config(finished):
    return json.loads((finished[0] / "config.json").read_text())


@pytest.fixture
def main():
    """The function that `python recipes/train_image.py` calls."""
    return train_image.main
