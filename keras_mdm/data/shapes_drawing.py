"""Draws scenes of `shapes.py` with anti-aliased edges, in numpy alone.

Every shape is an exact signed distance. A pixel is covered by
`clip(0.5 - distance / pixel size, 0, 1)`, evaluated on a grid of at least 64
cells a side and averaged down: a 16-pixel drawing is the area average of the
64-pixel drawing of the same scene.
"""

import dataclasses

import numpy as np

from keras_mdm.data import shapes
from keras_mdm.data.transforms import check_positive

_GRID = 64
_CHUNK = 128


def draw(scenes, resolution):
    """Draws pictures from scenes; of a clip, its first frame.

    Args:
        scenes: Sequence of `Scene`.
        resolution: Int, 1 or more. Side of the pictures in pixels.

    Returns:
        uint8 array `(len(scenes), resolution, resolution, 3)`.

    Example:

    >>> draw([make_scene("single", "train", 0)], 16).shape
    (1, 16, 16, 3)
    """
    resolution = check_positive("resolution", resolution)
    pictures = np.empty((len(scenes), resolution, resolution, 3), np.uint8)
    # Chunks keep the float32 working memory at a few tens of megabytes.
    for start in range(0, len(scenes), _CHUNK):
        part = slice(start, start + _CHUNK)
        pictures[part] = _draw_chunk(scenes[part], resolution)
    return pictures


def draw_clips(scenes, resolution, num_frames=shapes.NUM_FRAMES):
    """Draws clips from scenes in motion, see `draw`.

    Returns:
        uint8 array `(len(scenes), num_frames, resolution, resolution, 3)`.
    """
    frames = [_at_frame(scene, t) for scene in scenes for t in range(num_frames)]
    pictures = draw(frames, resolution)
    return pictures.reshape((len(scenes), num_frames, *pictures.shape[1:]))


def _at_frame(scene, frame):
    vx, vy = scene.velocity
    items = tuple(
        dataclasses.replace(item, x=item.x + frame * vx, y=item.y + frame * vy)
        for item in scene.items
    )
    return dataclasses.replace(scene, items=items)


def _draw_chunk(scenes, resolution):
    samples = -(-_GRID // resolution)
    grid = resolution * samples
    centers = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    backgrounds = [shapes.BACKGROUNDS[scene.background] for scene in scenes]
    canvas = np.empty((len(scenes), grid, grid, 3), np.float32)
    canvas[:] = np.array(backgrounds, np.float32)[:, None, None, :]
    for layer in range(max(len(scene.items) for scene in scenes)):
        # One shape at a time: each has its own distance, shared by many scenes.
        for shape, distance in _DISTANCES.items():
            which = [
                number
                for number, scene in enumerate(scenes)
                if layer < len(scene.items) and scene.items[layer].shape == shape
            ]
            if not which:
                continue
            items = [scenes[number].items[layer] for number in which]
            x, y, radius = (
                np.array([getattr(item, key) for item in items], np.float32)
                for key in ("x", "y", "radius")
            )
            unit = radius[:, None, None]
            # (items, grid, grid), in units of the radius
            u = (centers[None, None, :] - x[:, None, None]) / unit
            v = (centers[None, :, None] - y[:, None, None]) / unit
            cover = np.clip(0.5 - distance(u, v) * unit * grid, 0, 1)[..., None]
            colours = [shapes.COLOURS[item.colour] for item in items]
            colours = np.array(colours, np.float32)[:, None, None, :]
            canvas[which] += cover * (colours - canvas[which])
    if samples > 1:
        canvas = canvas.reshape(
            (len(scenes), resolution, samples, resolution, samples, 3)
        ).mean(axis=(2, 4))
    return np.floor(canvas + 0.5).astype(np.uint8)


def _circle(u, v):
    return np.hypot(u, v) - 1


def _ring(u, v):
    return np.abs(np.hypot(u, v) - 0.75) - 0.25


def _square(u, v):
    a, b = np.abs(u) - 0.85, np.abs(v) - 0.85
    outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0))
    return outside + np.minimum(np.maximum(a, b), 0)


def _polygon(corners):
    """Returns the signed distance to a polygon, negative inside.

    The distance is the least one to any edge; a point is inside if a ray from it
    crosses the edges an odd number of times.
    """
    corners = np.asarray(corners, np.float32)

    def distance(u, v):
        u, v = np.broadcast_arrays(u, v)
        nearest = np.full(u.shape, np.inf, np.float32)
        inside = np.zeros(u.shape, bool)
        following = np.roll(corners, -1, axis=0)
        for (ax, ay), (bx, by) in zip(corners, following, strict=True):
            ex, ey = bx - ax, by - ay
            px, py = u - ax, v - ay
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            squared = (px - along * ex) ** 2 + (py - along * ey) ** 2
            nearest = np.minimum(nearest, squared)
            crosses = (ay > v) != (by > v)
            right_of_edge = px * ey < py * ex
            inside ^= crosses & (right_of_edge == (ey > 0))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def _star_corners():
    angles = np.arange(10) * np.pi / 5
    lengths = np.where(np.arange(10) % 2 == 0, 1.05, 0.45)
    return np.stack([lengths * np.sin(angles), -lengths * np.cos(angles)], axis=1)


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon([(0, -0.9), (1, 0.82), (-1, 0.82)]),
    "star": _polygon(_star_corners()),
    "ring": _ring,
}
