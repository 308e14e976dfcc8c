"""`tools/judge_pictures.py`, with a model that draws what its captions name."""

import importlib
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("judge_pictures")
    sys.path.remove(str(TOOLS))


def picture(caption):
    """Noise of its own around the caption's color."""
    color, number = caption.split()
    noise = np.random.default_rng(int(number)).normal(0, 20, (16, 16, 3))
    return (np.array(COLORS[color]) + noise).clip(0, 255).astype("uint8")


def write(folder, count):
    rows = []
    for number in range(count):
        color = ("red", "blue")[number % 2]
        caption = f"{color} {number}"
        Image.fromarray(picture(caption)).save(folder / f"{number}.png")
        split = "test" if number % 4 > 1 else "train"
        row = {"file_name": f"{number}.png", "text": caption, "class": color}
        rows.append(row | {"split": split})
    rows[2]["split"] = "validation"
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_model_that_knows_what_it_saw(tool, tmp_path):
    """And takes captions it has not seen for blue."""
    write(tmp_path, 700)
    seen = {f"{('red', 'blue')[n % 2]} {n}" for n in range(700) if n % 4 < 2}

    def generate(captions, **_):
        known = [caption in seen for caption in captions]
        assert len(set(known)) == 1
        return np.stack([picture(c if known[0] else "blue 7") for c in captions])

    mdm = types.SimpleNamespace(resolution=16, generate=generate)
    found = tool.measure(mdm, tmp_path, epochs=2, seed=0)
    assert found["pictures"] == 350 and found["own_nearest"] == 1.0
    assert found["accuracy_held_out"] == found["accuracy_seen"] == 1.0
    assert found["accuracy_unseen"] == pytest.approx(0.5)
    assert found["frechet_seen"] == found["frechet_train"]
    for kind in ("frechet", "kernel"):
        assert found[f"{kind}_seen"] < 0.2 * found[f"{kind}_unseen"]
        assert found[f"{kind}_seen"] < found[f"{kind}_noise"]


def test_errors(tool, tmp_path):
    write(tmp_path, 40)
    mdm = types.SimpleNamespace(resolution=16)
    with pytest.raises(ValueError, match="20 drawn, 20 real"):
        tool.measure(mdm, tmp_path, epochs=1, seed=0)
    with pytest.raises(SystemExit, match="--epochs"):
        tool.main(["mdm_shapes_64", str(tmp_path), "--epochs", "0"])
