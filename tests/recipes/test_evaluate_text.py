"""How `recipes/evaluate.py` judges runs on text, with painters of known skill."""

import argparse
import dataclasses

import numpy as np
import pytest
from keras_mdm_recipes import evaluate_clips, evaluate_scenes

from keras_mdm import data
from keras_mdm.data import shapes, shapes_drawing
from keras_mdm.data.source import Source
from keras_mdm.levels import read_level

pytestmark = pytest.mark.once

TRAIN, TEST = 320, 60


class Scenes(Source):
    """A part of a split of shapes, drawn instead of prepared and read."""

    def __init__(self, name, split):
        self._config = name.split("/")[1]
        clips = self._config == "clips"
        super().__init__(
            name,
            3,
            has_captions=True,
            is_video=clips,
            num_frames=8 if clips else None,
        )
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
    """A model that draws what the captions of one split ask for, and no other's.

    It knows the scenes by heart. For captions that were held out it draws the scene of
    another one.

    Args:
        name: str. A source.
        level: int or str.
    """

    def __init__(self, name, level):
        self.resolution = level
        self._source_name = name

    def generate(self, captions, **options):
        """Draws the scenes of the split whose captions these are, in their order."""
        for split in ("test", "test_held_out"):
            source = data.at_level(Scenes(self._source_name, split), self.resolution)
            items = [source[i] for i in range(len(source))]
            if [item["caption"] for item in items] == list(captions):
                break
        else:
            raise ValueError("these are the captions of no split.")
        if split != "test":
            items = items[1:] + items[:1]
        kind = "video" if source.is_video else "image"
        size = read_level(self.resolution)[1]
        return np.stack([data.prepare_picture(item[kind], size) for item in items])


@pytest.fixture
def judged(monkeypatch):
    """A function from a module's name, a data set and a level to an evaluation."""
    monkeypatch.setattr(
        data, "open_source", lambda name, split, *_, **__: Scenes(name, split)
    )

    def evaluate(module, name, level, epochs):
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
        return module.prepare(args, settings, Painter(name, level))()[1]

    return evaluate


def test_clips(judged, capsys):
    results = judged(evaluate_clips, "shapes/clips", "4x16", 12)
    printed = capsys.readouterr().out
    assert "seen combinations" in printed and "drawn, shuffled" in printed
    right, wrong = results["test"]["fractions"], results["test_held_out"]["fractions"]
    assert right["drawn"] == right["real_test"]
    assert right["drawn"]["direction"] > 0.85 and right["drawn"]["colour"] > 0.85
    assert right["drawn_shuffled"]["direction"] < 0.7
    assert wrong["real_test"]["direction"] > 0.85
    assert wrong["drawn"]["direction"] < 0.5 and wrong["drawn"]["colour"] < 0.5
    for result in results.values():
        change = result["frame_change"]
        assert change["drawn"] == pytest.approx(change["real_test"], rel=1e-3)
        assert change["drawn_shuffled"] > 1.2 * change["drawn"]
        assert result["frechet"]["drawn"] < result["frechet"]["noise"]


def test_pictures(judged, capsys):
    results = judged(evaluate_scenes, "shapes/single", 16, 11)
    assert "held-out combinations" in capsys.readouterr().out
    right, wrong = results["test"], results["test_held_out"]
    assert right["drawn"] == right["real_test"]
    assert right["drawn"]["colour"] > 0.6
    assert wrong["drawn"]["colour"] < wrong["real_test"]["colour"] - 0.2
    for result in results.values():
        assert result["kernel"]["drawn"] < result["kernel"]["noise"]


@pytest.mark.parametrize("module", [evaluate_clips, evaluate_scenes])
def test_other_data_can_not_be_judged(module):
    with pytest.raises(ValueError, match="trained on 'ucf101'"):
        module.check("ucf101")
