"""`tools/train_memory.py`: the plan shrinks where activations are computed again."""

import importlib
import json
import pathlib

import keras
import pytest
from helpers import tiny_mdm, tiny_unet

TOOLS = pathlib.Path(__file__).parents[2] / "tools"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="the tool plans with JAX"
    ),
]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("train_memory")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    mdm = tiny_mdm(network=tiny_unet(32, classes=2), ema_momentum=0.9)
    mdm.save_to_preset(folder)
    return folder


def test_plans(tool, preset, capsys):
    flags = ["--preset", str(preset), "--batch", "16", "--only", "none", "all"]
    tool.main(flags)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    plain, again = found["bytes"]["none"], found["bytes"]["all"]
    # Gradients and the largest picture's features stay.
    assert again["temporary"] < 0.8 * plain["temporary"]
    # Weights, their average and two moments, as float32, and little else.
    weights = 4 * 4 * found["parameters"]
    assert weights <= plain["state"] < 1.05 * weights + 1000
    assert again["state"] == plain["state"]
    assert "computed again" in printed.err


def test_wrong_flags_are_told(tool, preset):
    with pytest.raises(SystemExit, match="--only must have some of"):
        tool.main(["--preset", str(preset), "--only", "64"])
    with pytest.raises(SystemExit, match="--batch must be at least 1"):
        tool.main(["--preset", str(preset), "--batch", "0"])
