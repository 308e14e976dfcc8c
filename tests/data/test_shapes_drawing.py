"""Drawings, checked against closed forms and against each other."""

import math

import numpy as np
import pytest

from keras_mdm.data import shapes
from keras_mdm.data.shapes_drawing import draw, draw_clips

pytestmark = pytest.mark.once

WHITE = np.array(shapes.BACKGROUNDS["white"], float)
RED = np.array(shapes.COLOURS["red"], float)


def one(shape, x=0.5, y=0.5, radius=0.3, colour="red"):
    item = shapes.Item(shape, colour, "large", "centre", x, y, radius)
    return shapes.Scene((item,), "white")


def covered_area(scene, resolution):
    """Area of the shape in units of the picture, from the amount of red."""
    green = draw([scene], resolution)[0, ..., 1].astype(float)
    return ((WHITE[1] - green) / (WHITE[1] - RED[1])).mean()


STAR = 10 / 2 * 1.05 * 0.45 * math.sin(math.pi / 5)


@pytest.mark.parametrize("resolution", [16, 64, 200])
@pytest.mark.parametrize(
    "shape, area",
    [
        ("circle", math.pi),
        ("ring", math.pi * (1 - 0.5**2)),
        ("square", 1.7**2),
        ("triangle", 2 * 1.72 / 2),
        ("star", STAR),
    ],
)
def test_area_is_the_closed_form(shape, area, resolution):
    expected = area * 0.3**2
    found = covered_area(one(shape, 0.51, 0.48), resolution)
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize("colour", shapes.COLOURS)
@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_centre_has_the_exact_colour(shape, colour):
    for resolution in (16, 64):
        picture = draw([one(shape, colour=colour)], resolution)[0]
        assert (
            tuple(picture[resolution // 2, resolution // 2]) == shapes.COLOURS[colour]
        )
        assert tuple(picture[0, 0]) == shapes.BACKGROUNDS["white"]


def test_ring_has_a_hole():
    picture = draw([one("ring")], 64)[0]
    assert tuple(picture[32, 32]) == shapes.BACKGROUNDS["white"]
    assert tuple(picture[32, int(64 * (0.5 + 0.75 * 0.3))]) == shapes.COLOURS["red"]


def test_y_points_down():
    picture = draw([one("circle", 0.25, 0.75, 0.1)], 64)[0]
    assert tuple(picture[48, 16]) == shapes.COLOURS["red"]


@pytest.mark.parametrize("config", ["single", "scenes"])
def test_small_drawing_is_the_large_one_averaged(config):
    scenes = [shapes.make_scene(config, "train", index) for index in range(40)]
    large = draw(scenes, 64).astype(float)
    for resolution in (8, 16, 32):
        cells = 64 // resolution
        averaged = large.reshape(40, resolution, cells, resolution, cells, 3)
        averaged = averaged.mean(axis=(2, 4))
        # Both are rounded, so they may differ by one.
        assert np.abs(draw(scenes, resolution) - averaged).max() <= 1


def test_larger_drawing_averages_to_the_usual_one():
    scenes = [shapes.make_scene("single", "train", index) for index in range(20)]
    averaged = draw(scenes, 256).reshape(20, 64, 4, 64, 4, 3).mean(axis=(2, 4))
    difference = np.abs(draw(scenes, 64) - averaged)
    # Only pixels at the tip of a corner differ noticeably.
    assert difference.mean() < 0.1
    assert (difference > 16).mean() < 2e-3


def test_edges_are_soft():
    values = np.unique(draw([one("circle", 0.513, 0.487)], 64)[0, ..., 1])
    assert len(values) > 20


def test_the_same_scene_among_others_looks_the_same():
    scenes = [shapes.make_scene("scenes", "train", index) for index in range(30)]
    np.testing.assert_array_equal(draw(scenes, 32)[7:8], draw([scenes[7]], 32))


def test_clip_moves_by_the_velocity():
    for index in range(6):
        scene = shapes.make_scene("clips", "train", index)
        clip = draw_clips([scene], 64)[0].astype(float)
        assert clip.shape == (shapes.NUM_FRAMES, 64, 64, 3)
        background = np.array(shapes.BACKGROUNDS[scene.background])
        mass = np.abs(clip - background).sum(-1)
        grid = (np.arange(64) + 0.5) / 64
        x = (mass * grid).sum((1, 2)) / mass.sum((1, 2))
        y = (mass * grid[:, None]).sum((1, 2)) / mass.sum((1, 2))
        np.testing.assert_allclose(np.diff(x), scene.velocity[0], atol=2e-3)
        np.testing.assert_allclose(np.diff(y), scene.velocity[1], atol=2e-3)


def test_colours_are_far_apart():
    colours = np.array([*shapes.COLOURS.values(), *shapes.BACKGROUNDS.values()], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60


@pytest.mark.parametrize("resolution", [0, -1, 2.5])
def test_wrong_resolution(resolution):
    with pytest.raises(ValueError, match=f"Received: resolution={resolution}"):
        draw([one("circle")], resolution)
