"""PNG files and grids of pictures. Used by the callbacks and the recipes."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_mdm.files import whole_file
from keras_mdm.levels import level_size, read_level
from keras_mdm.text_files import cut, printable

_GAP = 4
_LINE = 14
_PAPER = 255
# Bytes of a title that are drawn, and pixels of a word that is not divided.
_MOST_OF_TITLE, _WIDEST_WORD = 400, 400


def save_picture(path, picture):
    """Writes a picture in the format that its suffix names, creating its folder.

    Args:
        path: Path of the file.
        picture: uint8 array of shape `(height, width)`, `(height, width, 1)` or
            `(height, width, 3)`, or a Pillow picture.
    """
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 3 and picture.shape[-1] == 1
        picture = Image.fromarray(picture[..., 0] if grey else picture)
    with whole_file(path) as temporary:
        picture.save(temporary, quality=95, lossless=True)


def pyramid_grid(pyramid, titles=None, columns=None, size=None, truth=None):
    """A grid of pictures, each with every resolution side by side.

    Smaller resolutions are enlarged without smoothing to the size of the largest.

    Args:
        pyramid: dict of resolution to uint8 array of shape
            `(pictures, resolution, resolution, channels)`. A key for clips stands for
            one frame of them.
        titles: Optional sequence of str, one for each picture.
        columns: int. Pictures in a row. Defaults to about a square of pictures.
        size: int. Height of each picture in the grid, in pixels. Defaults to the
            largest resolution, at least 64.
        truth: Optional uint8 array of real pictures, or a list of them, shown last.

    Returns:
        A Pillow picture.
    """
    resolutions = sorted(pyramid, key=level_size)
    count = len(pyramid[resolutions[-1]])
    size = size or max(64, read_level(resolutions[-1])[1])
    shown = [pyramid[resolution] for resolution in resolutions]
    if truth is not None:
        shown += truth if isinstance(truth, list) else [truth]
    columns = columns or max(1, round(math.sqrt(count / len(shown))))
    rows = -(-count // columns)
    tile_width = len(shown) * (size + 1) - 1
    caption = 0
    if titles is not None:
        font = ImageFont.load_default()
        titles = [" ".join(str(title).split()) for title in titles]
        titles = [cut(printable(title), _MOST_OF_TITLE) for title in titles]
        titles = [_wrapped(title, font, tile_width) for title in titles]
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
        for level, pictures in enumerate(shown):
            picture = pictures[i]
            if picture.shape[-1] == 1:
                picture = np.repeat(picture, 3, axis=-1)
            tile = Image.fromarray(picture).resize((size, size), Image.NEAREST)
            grid.paste(tile, (x + level * (size + 1), y))
        if titles is not None:
            for number, line in enumerate(titles[i]):
                place = (x, y + size + number * _LINE)
                draw.text(place, line, fill=(0, 0, 0), font=font)
    return grid


def pyramid_frames(pyramid, titles=None, truth=None):
    """Grids like those of `pyramid_grid`, one for each frame of the longest clips.

    Shorter clips keep each frame for as long as it stands for; pictures stay.

    Args:
        pyramid: dict of level to uint8 array of pictures or clips.
        titles: See `pyramid_grid`.
        truth: Optional uint8 array of real pictures or clips, shown last.

    Returns:
        uint8 array of shape `(frames, height, width, 3)`; one frame for pictures.
    """
    everything = [*pyramid.values(), *([] if truth is None else [truth])]
    longest = max(_frames(array) for array in everything)
    grids = []
    for frame in range(longest):
        shown = {
            level: _frame(array, frame, longest) for level, array in pyramid.items()
        }
        real = None if truth is None else _frame(truth, frame, longest)
        grids.append(np.asarray(pyramid_grid(shown, titles, truth=real)))
    return np.stack(grids)


def _frames(array):
    """Frames of an array of clips; 1 of pictures."""
    return array.shape[1] if array.ndim == 5 else 1


def _frame(array, frame, longest):
    """What an array of pictures or clips shows while the longest is at a frame."""
    if array.ndim == 4:
        return array
    return array[:, frame * array.shape[1] // longest]


def _wrapped(title, font, width):
    """Lines of a title, as wide as may be; a longer word has a line of its own."""
    lines = [""]
    for word in _words(title, font, max(width, _WIDEST_WORD)):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _words(title, font, width):
    """Yields the words of a title, in parts where one is wider than may be."""
    for word in title.split():
        part = ""
        for letter in word:
            if part and font.getlength(part + letter) > width:
                yield part
                part = ""
            part += letter
        yield part
