"""Readings of scenes are compared with what captions tell, and with no more."""

import numpy as np
import pytest

from keras_mdm.data import draw, make_scene
from keras_mdm.metrics import SceneJudge, score, summarize, to_cells

pytestmark = pytest.mark.once


def _item(colour, shape, place, x=0.5, y=0.5):
    return {"colour": colour, "shape": shape, "place": place, "x": x, "y": y}


def _items(scene):
    return [
        _item(item.colour, item.shape, item.place, item.x, item.y)
        for item in scene.items
    ]


@pytest.mark.parametrize("config", ["single", "scenes"])
def test_a_true_reading_has_everything_right(config):
    for index in range(60):
        items = _items(make_scene(config, "test", index))
        result = score(to_cells(items), items)
        assert all(map(all, result.values()))
        told = {1: 4, 2: 6, 3: 10}[len(items)]
        assert sum(map(len, result.values())) == told


def test_each_mistake_counts_once():
    wanted = [_item("red", "circle", "top")]
    for changes, attribute in (
        ({"colour": "blue"}, "colour"),
        ({"shape": "star"}, "shape"),
        ({"place": "left"}, "place"),
    ):
        result = score(to_cells([{**wanted[0], **changes}]), wanted)
        assert {key for key, value in result.items() if not all(value)} == {attribute}
    two = [*wanted, _item("blue", "star", "left")]
    assert score(to_cells(two), wanted) == {
        "shape": [True],
        "colour": [True],
        "place": [True],
        "count": [False],
    }
    nothing = score(np.zeros((9, 2), int), wanted)
    assert not any(map(any, nothing.values()))


def test_two_items_are_judged_by_how_they_lie():
    first = _item("red", "circle", "top", 0.5, 0.24)
    second = _item("blue", "star", "bottom", 0.5, 0.76)
    wanted = [first, second]  # "a red circle above a blue star"
    moved = [{**first, "place": "left"}, {**second, "place": "bottom left"}]
    assert all(map(all, score(to_cells(moved), wanted).values()))
    swapped = [{**first, "place": "bottom"}, {**second, "place": "top"}]
    result = score(to_cells(swapped), wanted)
    assert result["place"] == [False] and all(result["shape"] + result["colour"])
    beside = [{**first, "place": "left"}, {**second, "place": "right"}]
    assert score(to_cells(beside), wanted)["place"] == [False]


def test_colours_that_changed_shapes_are_found():
    wanted = [
        _item("red", "circle", "top"),
        _item("blue", "star", "left"),
        _item("green", "ring", "right"),
    ]
    read = [dict(item) for item in wanted]
    read[0]["colour"], read[1]["colour"] = "blue", "red"
    result = score(to_cells(read), wanted)
    assert sum(result["colour"]) == 1 and all(result["shape"] + result["place"])


def test_summary_pools_attributes():
    good = {"shape": [True], "colour": [True], "place": [True], "count": [True]}
    found = summarize([good, {**good, "count": [False]}])
    assert found["attributes"] == 7 / 8 and found["pictures"] == 0.5
    assert found["count"] == 0.5 and found["shape"] == 1.0


@pytest.mark.slow
def test_the_judge_reads_real_pictures():
    def real(split, count):
        scenes = [make_scene("single", split, i) for i in range(count)]
        return draw(scenes, 32), [_items(scene) for scene in scenes]

    pictures, scenes = real("train", 3000)
    judge = SceneJudge(32)
    judge.fit(pictures, np.stack([to_cells(items) for items in scenes]), epochs=8)
    for split in ("test", "test_held_out"):
        pictures, scenes = real(split, 200)
        cells = judge.classify(pictures)
        found = summarize([score(c, s) for c, s in zip(cells, scenes, strict=True)])
        assert found["attributes"] > 0.97, (split, found)
    assert judge.features(pictures).shape == (200, 128)
