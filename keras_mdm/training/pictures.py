"""PNG files and grids of pictures. Used by the callbacks and the recipes."""

import math
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 4
_LINE = 14
_PAPER = 255


def save_picture(path, picture):
    """Writes a picture as PNG, creating its folder.

    Args:
        path: Path of the file.
        picture: uint8 array of shape `(height, width)`, `(height, width, 1)` or
            `(height, width, 3)`, or a Pillow picture.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 3 and picture.shape[-1] == 1
        picture = Image.fromarray(picture[..., 0] if grey else picture)
    picture.save(path)


def pyramid_grid(pyramid, titles=None, columns=None, size=None):
    """A grid of pictures, each with every resolution side by side.

    Smaller resolutions are enlarged without smoothing to the size of the largest.

    Args:
        pyramid: dict of resolution to uint8 array of shape
            `(pictures, resolution, resolution, channels)`.
        titles: Optional sequence of str, one for each picture.
        columns: int. Pictures in a row. Defaults to about a square of pictures.
        size: int. Height of each picture in the grid, in pixels. Defaults to the
            largest resolution, at least 64.

    Returns:
        A Pillow picture.
    """
    resolutions = sorted(pyramid)
    count = len(pyramid[resolutions[-1]])
    size = size or max(64, resolutions[-1])
    columns = columns or max(1, round(math.sqrt(count / len(resolutions))))
    rows = -(-count // columns)
    tile_width = len(resolutions) * (size + 1) - 1
    caption = 0
    if titles is not None:
        font = ImageFont.load_default()
        titles = [_wrapped(str(title), font, tile_width) for title in titles]
        lines = [line for title in titles for line in title]
        tile_width = max(tile_width, math.ceil(max(map(font.getlength, lines))))
        caption = _LINE * max(map(len, titles))
    width = columns * (tile_width + _GAP) + _GAP
    height = rows * (size + caption + _GAP) + _GAP
    grid = Image.new("RGB", (width, height), (_PAPER,) * 3)
    draw = ImageDraw.Draw(grid)
    for i in range(count):
        x = _GAP + (i % columns) * (tile_width + _GAP)
        y = _GAP + (i // columns) * (size + caption + _GAP)
        for level, resolution in enumerate(resolutions):
            picture = pyramid[resolution][i]
            if picture.shape[-1] == 1:
                picture = np.repeat(picture, 3, axis=-1)
            tile = Image.fromarray(picture).resize((size, size), Image.NEAREST)
            grid.paste(tile, (x + level * (size + 1), y))
        if titles is not None:
            for number, line in enumerate(titles[i]):
                place = (x, y + size + number * _LINE)
                draw.text(place, line, fill=(0, 0, 0), font=font)
    return grid


def _wrapped(title, font, width):
    """Lines of a title, as wide as may be; a longer word has a line of its own."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
