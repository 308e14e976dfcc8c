"""The generated world of colored shapes: what is in a picture, and its caption.

Everything here is attributes and words; `shapes_drawing.py` turns them into
pixels and `shapes_builder.py` into a TFDS set. Coordinates are in units of the
picture side, with y downwards, so the same scene can be drawn at any resolution.
Scene `index` of a split depends on `(seed, config, split, index)` only.
"""

import dataclasses

import numpy as np

from keras_mdm.checks import check_choice

SHAPES = ("circle", "square", "triangle", "star", "ring")
COLOURS = {
    "red": (222, 40, 44),
    "green": (44, 164, 68),
    "blue": (40, 84, 220),
    "yellow": (248, 208, 36),
    "purple": (150, 48, 190),
    "cyan": (48, 200, 220),
}
BACKGROUNDS = {
    "black": (28, 28, 32),
    "grey": (122, 124, 126),
    "beige": (206, 190, 166),
    "white": (242, 242, 238),
}
# fmt: off
PLACES = (
    "top left", "top", "top right",
    "left", "centre", "right",
    "bottom left", "bottom", "bottom right",
)
# fmt: on
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
CONFIGS = ("single", "scenes", "clips")
SPLITS = ("train", "validation", "test", "test_held_out")
CLASS_NAMES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
NUM_FRAMES = 8

# Distance between neighboring places, and ranges of the radius.
_SPACING = {"single": 0.14, "scenes": 0.26, "clips": 0.05}
_JITTER = 0.03
_RADII = {
    "single": {"large": (0.26, 0.31)},
    "scenes": {"small": (0.08, 0.11), "large": (0.15, 0.19)},
    "clips": {"small": (0.11, 0.13), "large": (0.16, 0.19)},
}
# Of a clip's shape: most of the picture, so that each direction has ends of its own.
_TRAVEL = (0.34, 0.38)


@dataclasses.dataclass(frozen=True)
class Item:
    """One shape: names, center `(x, y)` and `radius` in units of the picture."""

    shape: str
    colour: str
    size: str
    place: str
    x: float
    y: float
    radius: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture, or one clip if there is a `direction`.

    In a clip, `items` holds the first frame, and `velocity` is the step `(x, y)`
    from each frame to the next.
    """

    items: tuple
    background: str
    direction: str | None = None
    velocity: tuple = (0.0, 0.0)

    @property
    def label(self):
        """Class of the first item: index into `CLASS_NAMES`."""
        return class_index(self.items[0].colour, self.items[0].shape)

    @property
    def caption(self):
        """One shape is told with its place, two by how they lie to each other, three
        each with its place, a moving one with its direction; the size where it varies.
        """
        ending = f"on a {self.background} background"
        if self.direction is not None:
            return f"{_name(self.items[0])} moves {self.direction} {ending}"
        if len(self.items) == 2:
            first, second = self.items
            between = relation(first, second)
            return f"{_name(first)} {between} {_name(second)} {ending}"
        phrases = [f"{_name(item)} {_where(item.place)}" for item in self.items]
        if len(phrases) == 1:
            return f"{phrases[0]} {ending}"
        return f"{', '.join(phrases[:-1])} and {phrases[-1]} {ending}"


def class_index(colour, shape):
    """Returns the index into `CLASS_NAMES` of a colour and a shape."""
    return CLASS_NAMES.index(f"{colour} {shape}")


def is_held_out(colour, shape, place):
    """Whether a combination never occurs in training.

    Each of the 30 (colour, shape) classes has exactly one held-out place of the
    nine: place number `class_index % 9`. That is 30 of 270 combinations (11 %);
    every class, colour, shape and place still occurs in training. The splits
    `train`, `validation` and `test` hold no such combination; every scene of
    `test_held_out` holds at least one. In clips, the place is that of the middle
    of the way.

    Args:
        colour: String, a key of `COLOURS`.
        shape: String, one of `SHAPES`.
        place: String, one of `PLACES`.

    Returns:
        Bool.

    Example:

    >>> is_held_out("red", "circle", "top left")
    True
    """
    return PLACES.index(place) == class_index(colour, shape) % len(PLACES)


def make_scene(config, split, index, seed=0):
    """Makes the scene that a split holds at an index.

    Args:
        config: `"single"` (one large shape), `"scenes"` (one to three shapes) or
            `"clips"` (one moving shape).
        split: `"train"`, `"validation"`, `"test"` or `"test_held_out"`.
        index: Int, 0 or more.
        seed: Int, 0 or more.

    Returns:
        A `Scene`.

    Example:

    >>> make_scene("single", "train", 0).caption
    'a yellow triangle at the top right on a white background'
    """
    check_choice(CONFIGS, config=config)
    check_choice(SPLITS, split=split)
    rng = np.random.default_rng(
        (seed, CONFIGS.index(config), SPLITS.index(split), index)
    )
    background = _choose(rng, tuple(BACKGROUNDS))
    count = int(rng.integers(1, 4)) if config == "scenes" else 1
    held_out = split == "test_held_out"
    # Retries end soon: three shapes fit in about half of the draws.
    while True:
        items = tuple(
            _make_item(rng, config, held_out and number == 0) for number in range(count)
        )
        if _apart(items) and (
            held_out or not any(is_held_out(i.colour, i.shape, i.place) for i in items)
        ):
            break
    if config != "clips":
        return Scene(items, background)
    return _set_in_motion(rng, items[0], background)


def _choose(rng, values):
    return values[int(rng.integers(len(values)))]


def _make_item(rng, config, held_out):
    colour, shape = _choose(rng, tuple(COLOURS)), _choose(rng, SHAPES)
    place = _choose(rng, PLACES)
    if held_out:
        place = PLACES[class_index(colour, shape) % len(PLACES)]
    size = _choose(rng, tuple(_RADII[config]))
    row, column = divmod(PLACES.index(place), 3)
    x, y = (
        0.5 + (step - 1) * _SPACING[config] + rng.uniform(-_JITTER, _JITTER)
        for step in (column, row)
    )
    radius = rng.uniform(*_RADII[config][size])
    # float32, as the prepared set keeps them: both then draw the same pixels.
    x, y, radius = (float(np.float32(value)) for value in (x, y, radius))
    return Item(shape, colour, size, place, x, y, radius)


def _apart(items):
    """Whether no two items touch, nor share a name that would confuse them."""
    for number, one in enumerate(items):
        for other in items[:number]:
            if (one.colour, one.shape) == (other.colour, other.shape):
                return False
            distance = np.hypot(one.x - other.x, one.y - other.y)
            # The corners of a square reach 1.2 radii from its center.
            if distance < 1.2 * (one.radius + other.radius):
                return False
    return True


def _set_in_motion(rng, item, background):
    direction = _choose(rng, tuple(DIRECTIONS))
    travel = rng.uniform(*_TRAVEL)
    dx, dy = DIRECTIONS[direction]
    velocity = tuple(float(np.float32(d * travel / (NUM_FRAMES - 1))) for d in (dx, dy))
    # The item was placed at the middle of its way.
    start = dataclasses.replace(
        item,
        x=float(np.float32(item.x - dx * travel / 2)),
        y=float(np.float32(item.y - dy * travel / 2)),
    )
    return Scene((start,), background, direction, velocity)


def _name(item):
    # `single` has no small shapes, so a size would say nothing there.
    size = "" if item.radius > _RADII["scenes"]["large"][1] else f"{item.size} "
    return f"a {size}{item.colour} {item.shape}"


def _where(place):
    return "in the centre" if place == "centre" else f"at the {place}"


def relation(first, second):
    """How a first item lies to a second one, by their `x` and `y`."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dy) >= abs(dx):
        return "above" if dy < 0 else "below"
    return "to the left of" if dx < 0 else "to the right of"
