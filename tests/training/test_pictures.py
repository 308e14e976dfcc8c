"""Geometry of the grids."""

import numpy as np
import pytest
from PIL import Image

from keras_mdm.training.pictures import pyramid_grid, save_picture

pytestmark = pytest.mark.once


def pyramid(count, resolutions, channels=3):
    """Pictures of one colour each: 10 times their number, plus the level's."""
    return {
        r: np.stack(
            [np.full((r, r, channels), 10 * i + level, "uint8") for i in range(count)]
        )
        for level, r in enumerate(sorted(resolutions))
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_every_resolution_stands_beside_the_others(channels):
    grid = pyramid_grid(pyramid(5, (8, 16), channels), columns=2, size=20)
    # Two tiles of 20 + 1 + 20 with a gap of 4 around each; three rows.
    assert grid.size == (2 * 41 + 3 * 4, 3 * 20 + 4 * 4)
    pixels = np.asarray(grid)
    for i in range(5):
        top = 4 + (i // 2) * 24
        left = 4 + (i % 2) * 45
        tile = pixels[top : top + 20, left : left + 41]
        assert (tile[:, :20] == 10 * i).all()
        assert (tile[:, 20] == 255).all()
        assert (tile[:, 21:] == 10 * i + 1).all()
    assert (pixels[52:72, 49:] == 255).all()  # No sixth picture.


def test_enlarged_without_smoothing_to_at_least_64_pixels():
    picture = np.zeros((1, 2, 2, 3), "uint8")
    picture[0, 0, 1] = 200
    pixels = np.asarray(pyramid_grid({2: picture}))
    assert pixels.shape == (72, 72, 3)
    assert (pixels[4:36, 36:68] == 200).all() and (pixels[36:68, 4:68] == 0).all()


def test_long_titles_do_not_run_into_the_next_picture():
    levels = pyramid(2, (8,))
    title = "a very long name of a class, longer than a picture"
    narrow = pyramid_grid(levels, ["a", "b"], columns=2)
    high = pyramid_grid(levels, [title, "b"], columns=2)
    assert narrow.size == (2 * 68 + 4, 64 + 14 + 8)
    # Wrapped: as wide as before, with some lines below each other.
    assert high.size[0] == narrow.size[0]
    lines = (high.size[1] - 72) // 14
    assert lines > 2
    text = np.asarray(high)[68:]
    assert (text[:, 70] == 255).all() and (text[14:, 72:] == 255).all()
    assert all((text[14 * i : 14 * (i + 1), :70] < 255).any() for i in range(lines))
    # A word is not broken.
    wide = pyramid_grid(levels, ["long" * 9, "b"], columns=2)
    assert wide.size[0] > narrow.size[0] and wide.size[1] == narrow.size[1]


def test_save_picture(tmp_path):
    grey = np.arange(6, dtype="uint8").reshape(2, 3, 1)
    for array in (grey, grey[..., 0]):
        save_picture(tmp_path / "new" / "grey.png", array)
        loaded = np.asarray(Image.open(tmp_path / "new" / "grey.png"))
        assert np.array_equal(loaded, grey[..., 0])
    colours = np.repeat(grey, 3, axis=-1)
    save_picture(tmp_path / "colours.png", colours)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "colours.png")), colours)
