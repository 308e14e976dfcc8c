"""Which attributes of a captioned scene of shapes are right in an image or a clip.

An image is read as cells: for each of the nine places a colour and a shape. `to_cells`
makes them from what a scene holds, `SceneJudge` reads them from pixels, and `score`
compares a reading with what was asked for. A clip is read as one shape, its colour and
its direction: `to_label` and `ClipJudge`.
"""

import itertools
import types

import numpy as np

from keras_mdm.data.shapes import COLOURS as _COLOURS
from keras_mdm.data.shapes import DIRECTIONS, PLACES, SHAPES, relation

COLOURS = tuple(_COLOURS)
NUM_CELLS = len(PLACES)
ATTRIBUTES = ("shape", "colour", "place", "count")
# What a caption of a moving shape tells, and the words for it.
CLIP_ATTRIBUTES = {
    "shape": SHAPES,
    "colour": COLOURS,
    "direction": tuple(DIRECTIONS),
}


def to_label(attributes):
    """What a clip of `shapes/clips` shows, as `ClipJudge` reads it.

    Args:
        attributes: dict of a source's item: `items` and `direction`.

    Returns:
        int32 array of shape `(3,)`: index of the shape, colour and direction.
    """
    (item,) = attributes["items"]
    found = {**item, "direction": attributes["direction"]}
    return np.array(
        [words.index(found[name]) for name, words in CLIP_ATTRIBUTES.items()], "int32"
    )


def to_cells(items):
    """Cells of a scene.

    Args:
        items: Sequence of dicts with `colour`, `shape` and `place`.

    Returns:
        int32 array of shape `(9, 2)`: colour and shape at each place, counted from 1;
        0 for none.
    """
    cells = np.zeros((NUM_CELLS, 2), "int32")
    for item in items:
        cells[PLACES.index(item["place"])] = (
            COLOURS.index(item["colour"]) + 1,
            SHAPES.index(item["shape"]) + 1,
        )
    return cells


def score(cells, items):
    """Compares a reading with the scene that its caption describes.

    A caption tells the place of one shape and of each of three, and how two lie to each
    other; only what it tells is asked for. Shapes read are matched to shapes asked for
    in the way that makes most of them right.

    Args:
        cells: int array of shape `(9, 2)`.
        items: Sequence of dicts with `colour`, `shape`, `place`, and `x` and `y` if
            there are two.

    Returns:
        dict of attribute to list of bool: `shape` and `colour` for each item, `place`
        for each (for two items, one for both), and `count`.
    """
    found = [
        (int(colour), int(shape), divmod(place, 3))
        for place, (colour, shape) in enumerate(np.asarray(cells))
        if colour or shape
    ]
    count = [len(found) == len(items)]
    # Missing shapes have nothing right.
    found += [(0, 0, None)] * max(0, len(items) - len(found))
    readings = (
        {
            "shape": [
                shape == SHAPES.index(item["shape"]) + 1
                for (_, shape, _), item in zip(chosen, items, strict=True)
            ],
            "colour": [
                colour == COLOURS.index(item["colour"]) + 1
                for (colour, _, _), item in zip(chosen, items, strict=True)
            ],
            "place": _places_right([place for *_, place in chosen], items),
        }
        for chosen in itertools.permutations(found, len(items))
    )
    best = max(readings, key=lambda reading: sum(map(sum, reading.values())))
    return {**best, "count": count}


def _places_right(places, items):
    if len(items) != 2:
        return [
            place == divmod(PLACES.index(item["place"]), 3)
            for place, item in zip(places, items, strict=True)
        ]
    if None in places:
        return [False]
    (first_row, first_column), (second_row, second_column) = places
    down, right = first_row - second_row, first_column - second_column
    wanted = relation(*(types.SimpleNamespace(**item) for item in items))
    # On a diagonal either word is true.
    return [
        {
            "above": down < 0 and -down >= abs(right),
            "below": down > 0 and down >= abs(right),
            "to the left of": right < 0 and -right >= abs(down),
            "to the right of": right > 0 and right >= abs(down),
        }[wanted]
    ]


def summarize(scores):
    """Fractions of right attributes over many images.

    Args:
        scores: Sequence of what `score` returned.

    Returns:
        dict of float: each attribute; `attributes`, all of them pooled; `pictures`, the
        fraction of images without a mistake.
    """
    pooled = {key: [v for one in scores for v in one[key]] for key in ATTRIBUTES}
    everything = [value for values in pooled.values() for value in values]
    result = {key: float(np.mean(values)) for key, values in pooled.items()}
    result["attributes"] = float(np.mean(everything))
    result["pictures"] = float(np.mean([all(map(all, s.values())) for s in scores]))
    return result
