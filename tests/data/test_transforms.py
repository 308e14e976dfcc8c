"""Area averaging against brute force; crops, channels and the no-upscaling rule."""

import fractions

import numpy as np
import pytest

from keras_mdm.data import transforms

pytestmark = pytest.mark.once


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def brute_force(picture, resolution):
    """Average over the lcm grid: each old pixel split into equal small ones."""
    side = picture.shape[0]
    ratio = fractions.Fraction(side, resolution)
    fine = picture.repeat(ratio.denominator, 0).repeat(ratio.denominator, 1)
    cell = ratio.numerator
    return (
        fine.reshape(resolution, cell, resolution, cell, -1).astype(float).mean((1, 3))
    )


@pytest.mark.parametrize(
    "side, resolution", [(64, 16), (18, 16), (45, 16), (7, 3), (9, 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_area_downscale_is_exact(side, resolution, channels):
    picture = noise(side, side, channels)
    found = transforms.area_downscale(picture, resolution)
    expected = brute_force(picture, resolution)
    assert np.abs(found - expected).max() < 0.502
    assert found.dtype == np.uint8


def test_constant_stays_constant():
    for value in (0, 1, 127, 254, 255):
        picture = np.full((37, 37, 3), value, np.uint8)
        assert (transforms.area_downscale(picture, 11) == value).all()


def test_centre_crop_takes_the_middle_square():
    picture = noise(10, 16, 3)
    np.testing.assert_array_equal(transforms.prepare(picture, 10), picture[:, 3:13])
    picture = noise(16, 10, 3)
    np.testing.assert_array_equal(transforms.prepare(picture, 10), picture[3:13])


def test_random_crop_is_a_square_of_the_picture():
    # Rows and columns can be told from the value.
    rows, columns = np.mgrid[:12, :20]
    picture = np.stack([rows, columns], -1).astype(np.uint8)
    picture = np.concatenate([picture, picture[..., :1]], -1)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        crop = transforms.prepare(picture, 9, "random", rng, crop_scale=(0.75, 0.75))
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(crop, picture[top : top + 9, left : left + 9])
        seen.add((top, left))
    assert {top for top, _ in seen} == set(range(4))
    assert {left for _, left in seen} == set(range(12))


def test_random_crop_never_needs_enlarging():
    rng = np.random.default_rng(0)
    picture = noise(10, 10, 3)
    crop = transforms.prepare(picture, 10, "random", rng, crop_scale=(0.1, 0.2))
    np.testing.assert_array_equal(crop, picture)


def test_small_pictures_are_refused_unless_upscaling():
    picture = noise(12, 30, 3)
    with pytest.raises(transforms.TooSmall, match="too small: 30x12 .* resolution 16"):
        transforms.prepare(picture, 16)
    assert transforms.prepare(picture, 16, upscale=True).shape == (16, 16, 3)
    flat = np.full((5, 5, 1), 77, np.uint8)
    assert (transforms.prepare(flat, 16, upscale=True) == 77).all()


def test_enlarging_keeps_orientation_and_channels():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 3] = (255, 0, 128)
    large = transforms.prepare(picture, 16, upscale=True)
    # Bicubic interpolation overshoots a little.
    np.testing.assert_allclose(large[1, 14], (255, 0, 128), atol=20)
    assert large[14, 1].max() == 0


def test_frames_of_a_clip_are_treated_alike():
    clip = noise(3, 20, 24, 3)
    together = transforms.prepare(clip, 8, "random", np.random.default_rng(5))
    for frame, prepared in zip(clip, together, strict=True):
        alone = transforms.prepare(frame, 8, "random", np.random.default_rng(5))
        np.testing.assert_array_equal(prepared, alone)


def test_channels():
    grey = noise(4, 4, 1)
    np.testing.assert_array_equal(
        transforms.to_channels(grey, 3), np.concatenate([grey] * 3, -1)
    )
    primary = np.eye(3, dtype=np.uint8)[None] * 255
    found = transforms.to_channels(primary, 1)[0, :, 0]
    np.testing.assert_allclose(found, [76.2, 149.7, 29.1], atol=0.5)


def test_transparency_is_laid_on_white():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    found = transforms.to_channels(pixels, 3)
    np.testing.assert_array_equal(found, [[[10, 20, 30], [255] * 3, [204] * 3]])


def test_wrong_type():
    with pytest.raises(ValueError, match=r"Received: float32 \(4, 4, 3\)"):
        transforms.prepare(np.zeros((4, 4, 3), np.float32), 4)
    with pytest.raises(ValueError, match="Received: channels=2"):
        transforms.to_channels(noise(4, 4, 3), 2)
