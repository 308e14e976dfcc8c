"""Levels of a nest: their names, pictures by their side, clips by frames and side.

A level of pictures is an int, its side in pixels; one of clips is a string such as
`"16x64"`, 16 frames of 64 pixels. These are the keys of every dict of levels, the
values of `mdm.resolution`, and part of the names of losses. Imports nothing, so that
networks and diffusion, which do not know each other, may both use it.
"""


def level_name(resolution, frames=1):
    """The name of a level: `64`, or `"16x64"` for 16 frames.

    Args:
        resolution: int. Height and width in pixels.
        frames: int. Defaults to 1.

    Returns:
        int or str.
    """
    return resolution if frames == 1 else f"{frames}x{resolution}"


def read_level(level):
    """Frames and pixels of a level.

    Args:
        level: int or str, see `level_name`.

    Returns:
        A pair of int: frames and resolution.

    Raises:
        ValueError: if it is no such name.
    """
    if isinstance(level, str):
        parts = level.split("x")
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            frames, resolution = map(int, parts)
            if frames > 1 and resolution > 0:
                return frames, resolution
    elif isinstance(level, int) and level > 0:
        return 1, level
    raise ValueError(
        "a resolution must be a whole number of pixels, such as 64, or frames and "
        f"pixels of clips, such as '16x64'. Received: {level!r}"
    )


def level_shape(level, channels):
    """Shape of one picture or clip of a level, channels last."""
    frames, resolution = read_level(level)
    picture = (resolution, resolution, channels)
    return picture if frames == 1 else (frames, *picture)


def level_size(level):
    """Number of pixels, to sort levels by."""
    frames, resolution = read_level(level)
    return frames * resolution**2


def first(x, count):
    """The first `count` samples of `x`; all of them if that is all there are.

    `count` may be `None`, a size that TensorFlow does not know when it traces: then
    the batch is not a mixed one.
    """
    return x if count is None or x.shape[0] in (None, count) else x[:count]
