"""The source of one's own in `examples/own_source.py`, run as a program would be."""

import importlib.util
import pathlib
import sqlite3

import pytest
from PIL import Image

from keras_mdm import data

pytestmark = pytest.mark.once

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "own_source.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_source", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_trains(example, tmp_path, capsys):
    example.main(["--steps", "1", "--output", str(tmp_path / "out.png")])
    assert "on 1295 pictures" in capsys.readouterr().out
    assert Image.open(tmp_path / "out.png").size == (320, 32)


def test_its_source_is_one_of_all(example, tmp_path):
    path = tmp_path / "digits.db"
    example.write_digits(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE pictures SET picture = x'00' WHERE id = 1")
    source, test = (data.open_source(f"sqlite:{path}", s) for s in ("train", "test"))
    assert len(source) + len(test) == 1438
    assert source.class_names == tuple("0123456789")
    digits = data.open_source("digits")
    assert (source[5]["image"] == digits[5]["image"]).all()
    assert source[5]["label"] == digits[5]["label"]
    batches = data.make_dataset(source, 16, 32, num_workers=0)
    assert sum(1 for _ in batches) == 1294 // 32
    assert "1 of 1295 pictures" in source.report()
    with pytest.raises(ValueError, match="Received: split='dev'"):
        data.open_source(f"sqlite:{path}", "dev")
    with pytest.raises(ValueError, match="has pictures, not clips.*num_frames=4"):
        data.open_source(f"sqlite:{path}", num_frames=4)


def test_registering(monkeypatch):
    from keras_mdm.data import sources

    monkeypatch.setattr(sources, "_OPENERS", dict(sources._OPENERS))
    with pytest.raises(ValueError, match="without a colon.*kind='mine:'"):
        data.register_source("mine:", data.Source)
    seen = []

    def opener(path, split="train", data_dir=None):
        seen.append((path, split, data_dir))
        raise ModuleNotFoundError("No module named 'odd'", name="odd")

    assert data.register_source("mine", opener) is opener
    with pytest.raises(ImportError, match="'mine:a:b' needs odd.*pip install odd"):
        data.open_source("mine:a:b", "test", data_dir="/somewhere")
    ((path, split, folder),) = seen
    assert (path, split, str(folder)) == ("a:b", "test", "/somewhere")
