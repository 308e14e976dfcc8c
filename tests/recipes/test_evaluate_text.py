"""How `recipes/evaluate.py` judges runs on text, with painters of known skill."""

import argparse
import dataclasses
import importlib

import numpy as np
import pytest

from keras_mdm import data
from keras_mdm.data import shapes, shapes_drawing
from keras_mdm.data.source import Source

TRAIN, TEST = 240, 60


class Scenes(Source):
    """A part of a split of shapes, drawn instead of prepared and read."""

    def __init__(self, name, split):
        self._config = name.split("/")[1]
        clips = self._config == "clips"
        super().__init__(name, 3, has_captions=True, is_video=clips, num_frames=8)
        self._split = split

    def __len__(self):
        return TRAIN if self._split == "train" else TEST

    def _read(self, index):
        scene = shapes.make_scene(self._config, self._split, index)
        items = [dataclasses.asdict(item) for item in scene.items]
        item = {"caption": scene.caption, "attributes": {"items": items}}
        if not self.is_video:
            return {**item, "image": shapes_drawing.draw([scene], 32)[0]}
        item["attributes"]["direction"] = scene.direction
        return {**item, "video": shapes_drawing.draw_clips([scene], 32)[0]}


class Painter:
    """A model that draws the scenes of the given split, whatever the captions say.

    Args:
        name: str. A source.
        level: int or str.
        skilled: bool. Whether it draws what was asked for.
    """

    def __init__(self, name, level, skilled):
        self.resolution = level
        self._source_name, self._skilled = name, skilled

    def generate(self, captions, **options):
        found = {}
        for split in ("test", "test_held_out"):
            source = data.at_level(Scenes(self._source_name, split), self.resolution)
            items = [source[i] for i in range(len(source))]
            found |= {item["caption"]: item for item in items}
        names = list(captions)
        if not self._skilled:
            names = names[1:] + names[:1]
        kind = "video" if "video" in found[names[0]] else "image"
        size = int(str(self.resolution).split("x")[-1])
        return np.stack([data.prepare_picture(found[n][kind], size) for n in names])


@pytest.fixture
def judged(recipe, monkeypatch):
    """A function from a module's name, a data set and a level to two evaluations."""
    monkeypatch.setattr(
        data, "open_source", lambda name, split, folder: Scenes(name, split)
    )

    def evaluate(module, name, level, epochs):
        module = importlib.import_module(module)
        args = argparse.Namespace(
            max_real=TRAIN,
            judge_epochs=epochs,
            num_samples=TEST,
            batch_size=TEST,
            seed=0,
            sampler=None,
            num_steps=None,
            guidance_scale=None,
        )
        settings = {"dataset": name, "data_dir": None}
        module.check(name)
        return [
            module.evaluate(args, settings, Painter(name, level, skilled))[1]
            for skilled in (True, False)
        ]

    return evaluate


def test_clips(judged, capsys):
    good, bad = judged("evaluate_clips", "shapes/clips", "4x16", 10)
    printed = capsys.readouterr().out
    assert "seen combinations" in printed and "drawn, shuffled" in printed
    for split in ("test", "test_held_out"):
        shares = good[split]["shares"]
        assert shares["drawn"] == shares["real_test"]
        assert shares["drawn"]["direction"] > 0.85 and shares["drawn"]["colour"] > 0.85
        assert shares["drawn_shuffled"]["direction"] < 0.7
        assert bad[split]["shares"]["drawn"]["direction"] < 0.5
        assert bad[split]["shares"]["real_test"] == shares["real_test"]
        change = good[split]["frame_change"]
        assert change["drawn"] == pytest.approx(change["real_test"], rel=1e-3)
        assert change["drawn_shuffled"] > 1.2 * change["drawn"]
        distances = good[split]["frechet"]
        assert distances["drawn"] < distances["noise"]


def test_pictures(judged, capsys):
    good, bad = judged("evaluate_scenes", "shapes/single", 16, 10)
    assert "held-out combinations" in capsys.readouterr().out
    for split in ("test", "test_held_out"):
        assert good[split]["drawn"] == good[split]["real_test"]
        assert good[split]["drawn"]["colour"] > 0.6
        assert bad[split]["drawn"]["colour"] < 0.5
        assert good[split]["kernel"]["drawn"] < good[split]["kernel"]["noise"]


@pytest.mark.parametrize("module", ["evaluate_clips", "evaluate_scenes"])
def test_other_data_can_not_be_judged(module, recipe):
    module = importlib.import_module(module)
    with pytest.raises(ValueError, match="trained on 'ucf101'"):
        module.check("ucf101")
