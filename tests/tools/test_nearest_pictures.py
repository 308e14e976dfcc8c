"""`tools/nearest_pictures.py`, with a model that draws what the test tells it to."""

import importlib
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image

from keras_mdm.metrics import pixel_distances

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("nearest_pictures")
    sys.path.remove(str(TOOLS))


@pytest.fixture
def folder(tmp_path):
    """Gray pictures 0, 10, 20, 30 to train on, 100 and 105 held out."""
    rows = []
    for value in (0, 10, 20, 30, 100, 105):
        Image.new("L", (12, 12), value).save(tmp_path / f"{value}.png")
        row = {"file_name": f"{value}.png", "text": f"gray {value}"}
        rows.append(row | {"split": "test" if value >= 100 else "train"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def _gray(*values):
    return np.stack([np.full((8, 8, 3), value, "uint8") for value in values])


def test_distances_are_root_mean_squares():
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, (n, 4, 4, 3), "uint8") for n in (3, 5))
    wide = a[:, None].astype(float) - b[None].astype(float)
    np.testing.assert_allclose(
        pixel_distances(a, b), np.sqrt((wide**2).mean((2, 3, 4)))
    )


def test_what_is_nearest(tool, folder):
    asked = []

    def generate(prompts, **sampling):
        asked.append((prompts, sampling))
        # Of the seen ones the first as it is, the second like another; then the
        # held-out ones, the first nearly as it is; then the further prompt.
        return _gray(0, 11, 98, 33, 7)

    mdm = types.SimpleNamespace(resolution=8, generate=generate)
    grid, lines = tool.look(mdm, folder, 2, ["a new gray"], seed=3)
    prompts = ["gray 0", "gray 30", "gray 100", "gray 105", "a new gray"]
    assert asked == [(prompts, {"resolution": 8, "seed": 3})]
    assert lines == [
        "seen: 2 drawn, to the nearest training picture 0.5; it has the prompt as its "
        "caption for 1; to the real picture 9.5",
        "not seen: 2 drawn, to the nearest training picture 35.5; it has the prompt as "
        "its caption for 0; to the real picture 37.0",
        "asked: 1 drawn, to the nearest training picture 3.0; it has the prompt as its "
        "caption for 0",
        "real pictures held out, to the nearest training one: 72.5",
    ]
    # Drawn, real and nearest stand side by side, in 64 pixels each.
    pixels = np.asarray(grid)
    assert [int(pixels[30, x, 0]) for x in (30, 95, 160)] == [0, 0, 0]
    assert {0, 10, 11, 30, 33, 98, 100, 105, 255} <= set(np.unique(pixels[..., 0]))


def test_errors(tool, folder, tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    for flags, what in (
        (["--output", str(taken)], "already"),
        (["--output", str(tmp_path / "a.png"), "--count", "0"], "--count"),
    ):
        with pytest.raises(SystemExit, match=what):
            tool.main(["mdm_shapes_64", str(folder), *flags])
    assert taken.read_bytes() == b"mine"
