"""From a picture of any size to a square of the wanted resolution, in numpy.

Shrinking is by exact area averaging, like the pyramid inside the model: a picture
prepared at 16 is what one prepared at 64 becomes after 4x4 average pooling.
"""

import functools

import numpy as np

from keras_mdm.checks import between

_PART = 2**18  # Pixels that are converted at once.


class TooSmall(ValueError):
    """A picture smaller than the resolution, which is not to be enlarged."""


def prepare(
    pictures,
    resolution,
    crop="center",
    rng=None,
    upscale=False,
    channels=None,
    crop_scale=(0.8, 1.0),
):
    """Crops and resizes a picture, or all frames of a clip alike.

    Args:
        pictures: uint8 array `(height, width, channels)` or
            `(frames, height, width, channels)`, with 1 to 4 channels.
        resolution: Int. Side of the result in pixels.
        crop: `"center"` (the largest centered square) or `"random"` (a square
            anywhere whose side is a random fraction of the shorter side).
        rng: `numpy.random.Generator`, needed by a random crop.
        upscale: Bool. Whether smaller pictures are enlarged.
        channels: 1 or 3. Defaults to what the picture has (1 or 3).
        crop_scale: Pair of floats in (0, 1], the range of that fraction.

    Returns:
        uint8 array `([frames,] resolution, resolution, channels)`.

    Raises:
        TooSmall: If the picture is too small and `upscale` is `False`.
        ValueError: If it has another type or number of dimensions.
    """
    resolution = check_resolution(resolution)
    square = choose_square(pictures, resolution, crop, rng, upscale, crop_scale)
    return cut(pictures, square, resolution, channels)


def check_resolution(resolution):
    """Returns a resolution as int; a `ValueError` if it is no positive integer."""
    if isinstance(resolution, tuple | list | np.ndarray):
        raise ValueError(
            "Pictures are square: `resolution` must be one integer, the side in "
            f"pixels. Received: resolution={resolution}"
        )
    return check_positive("resolution", resolution)


def check_positive(name, value):
    """Returns a number as int, or raises a `ValueError` if it is not positive."""
    if not between(value, 1) or value != int(value):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def choose_square(pictures, resolution, crop, rng, upscale, crop_scale):
    """Side, top and left of the square that `prepare` with these arguments cuts."""
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4):
        raise ValueError(
            "expected uint8 (height, width, channels) or (frames, height, width, "
            f"channels). Received: {pictures.dtype} {pictures.shape}"
        )
    height, width = pictures.shape[-3:-1]
    shorter = min(height, width)
    if shorter < 1 or (shorter < resolution and not upscale):
        raise TooSmall(
            f"too small: {width}x{height} pixels for resolution {resolution}"
        )
    if crop != "random":
        return shorter, (height - shorter) // 2, (width - shorter) // 2
    side = round(shorter * rng.uniform(*crop_scale))
    # A crop below the resolution would have to be enlarged.
    side = min(max(side, resolution), shorter)
    top = int(rng.integers(height - side + 1))
    return side, top, int(rng.integers(width - side + 1))


def cut(pictures, square, resolution, channels=None):
    """Cuts a square `(side, top, left)` out of what `prepare` takes and resizes it."""
    side, top, left = square
    pictures = pictures[..., top : top + side, left : left + side, :]
    pictures = to_channels(pictures, channels)
    if side < resolution:
        pictures = _enlarge(pictures, resolution)
    elif side > resolution:
        pictures = area_downscale(pictures, resolution)
    return np.ascontiguousarray(pictures)


def area_downscale(pictures, resolution):
    """Shrinks squares by averaging exactly the area that each new pixel covers.

    `(..., side, side, channels)` becomes `(..., resolution, resolution, channels)`.
    """
    result = _average_rows(pictures, resolution).swapaxes(-3, -2)
    result = np.ascontiguousarray(result)
    result = _average_rows(result, resolution).swapaxes(-3, -2)
    # Half a thousandth: equal averages must round alike in spite of float32.
    return np.floor(result + 0.5005).astype(np.uint8)


def to_channels(pictures, channels=None):
    """Converts pictures `(..., channels)`, uint8 with 1 to 4 channels, to 1 or 3.

    Gray becomes three equal channels; colors become gray by luma (ITU-R BT.601);
    an alpha channel (the second of two or the fourth of four) is laid on white. With
    `channels=None` only that is done.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"`channels` must be 1 or 3. Received: channels={channels}")
    if pictures.shape[-1] in (2, 4):
        pictures = _on_white(pictures)
    if channels == 3 and pictures.shape[-1] == 1:
        return np.repeat(pictures, 3, axis=-1)
    if channels == 1 and pictures.shape[-1] == 3:
        luma = pictures @ np.array([[0.299], [0.587], [0.114]], np.float32)
        return np.floor(luma + 0.5).clip(0, 255).astype(np.uint8)
    return pictures


def _on_white(pictures):
    """Lays an alpha channel on white, part by part: floats would fill the memory."""
    pixels = np.empty((*pictures.shape[:-1], pictures.shape[-1] - 1), np.uint8)
    old = pictures.reshape(-1, pictures.shape[-1])
    new = pixels.reshape(-1, pixels.shape[-1])
    for start in range(0, len(old), _PART):
        part = old[start : start + _PART]
        alpha = part[:, -1:].astype(np.float32) / 255
        on_white = part[:, :-1] * alpha + 255 * (1 - alpha)
        new[start : start + _PART] = np.floor(on_white + 0.5)
    return pixels


def _average_rows(pictures, resolution):
    """Averages along the third axis from the end; `(..., side, width, channels)`.

    A sum over the few old rows that a new one covers. As a matrix product it would
    run in BLAS, whose threads fight with those of the pipeline.
    """
    rows, weights = _covered_rows(pictures.shape[-3], resolution)
    result = pictures[..., rows[0], :, :] * weights[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        result += pictures[..., row, :, :] * weight
    return result


@functools.lru_cache(maxsize=256)
def _covered_rows(side, resolution):
    """Returns the old rows that each new row covers, and how much of each.

    Rows are `(taps, resolution)`; weights are `(taps, resolution, 1, 1)` and sum to 1
    over the taps.
    """
    edges = np.arange(resolution + 1) * (side / resolution)
    first = np.floor(edges[:-1]).astype(int)
    taps = int((np.ceil(edges[1:]) - first).max())
    rows = first + np.arange(taps)[:, None]
    covered = np.minimum(edges[1:], rows + 1) - np.maximum(edges[:-1], rows)
    weights = np.maximum(covered, 0) * (resolution / side)
    # Rows beyond the picture have no weight, but must exist.
    return np.minimum(rows, side - 1), weights.astype(np.float32)[..., None, None]


def _enlarge(pictures, resolution):
    from PIL import Image

    *leading, side, _, channels = pictures.shape
    # Pillow knows gray pictures without an axis of channels.
    shape = (-1, side, side) if channels == 1 else (-1, side, side, channels)
    large = [
        np.asarray(Image.fromarray(one).resize((resolution, resolution), Image.BICUBIC))
        for one in pictures.reshape(shape)
    ]
    return np.stack(large).reshape((*leading, resolution, resolution, channels))
