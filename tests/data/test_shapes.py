"""The world of shapes: rules and words, checked against an independent reading."""

import collections
import re

import pytest

from keras_mdm.data import shapes

pytestmark = pytest.mark.once


def scenes_of(config, split, count=150):
    return [shapes.make_scene(config, split, index) for index in range(count)]


def test_scene_depends_on_seed_config_split_and_index_only():
    one = shapes.make_scene("scenes", "test", 7, seed=3)
    shapes.make_scene("scenes", "test", 6, seed=3)
    assert shapes.make_scene("scenes", "test", 7, seed=3) == one
    others = [
        ("scenes", "test", 8, 3),
        ("scenes", "test", 7, 4),
        ("scenes", "train", 7, 3),
    ]
    assert all(shapes.make_scene(*other) != one for other in others)


def test_a_ninth_is_held_out_and_every_class_and_place_stays():
    seen, held_out = set(), set()
    for colour in shapes.COLOURS:
        for shape in shapes.SHAPES:
            for place in shapes.PLACES:
                into = held_out if shapes.is_held_out(colour, shape, place) else seen
                into.add((colour, shape, place))
    assert (len(held_out), len(seen)) == (30, 240)
    # One place of each class is held out, so all pairs with a class stay.
    assert len({(colour, shape) for colour, shape, _ in held_out}) == 30
    assert {place for *_, place in seen} == set(shapes.PLACES)
    assert {(colour, place) for colour, _, place in seen} == {
        (colour, place) for colour in shapes.COLOURS for place in shapes.PLACES
    }


@pytest.mark.parametrize("config", shapes.CONFIGS)
def test_splits_honour_the_rule(config):
    for split in shapes.SPLITS:
        for scene in scenes_of(config, split):
            held = [shapes.is_held_out(i.colour, i.shape, i.place) for i in scene.items]
            assert any(held) == (split == "test_held_out")


def test_training_shows_every_value():
    scenes = scenes_of("single", "train", 1500)
    items = [scene.items[0] for scene in scenes]
    assert {item.colour for item in items} == set(shapes.COLOURS)
    assert {item.shape for item in items} == set(shapes.SHAPES)
    assert {item.place for item in items} == set(shapes.PLACES)
    assert {scene.background for scene in scenes} == set(shapes.BACKGROUNDS)
    assert {scene.label for scene in scenes} == set(range(30))
    counts = collections.Counter(len(s.items) for s in scenes_of("scenes", "train"))
    assert set(counts) == {1, 2, 3}


def test_label_is_colour_and_shape():
    for scene in scenes_of("single", "train", 40):
        item = scene.items[0]
        assert shapes.CLASS_NAMES[scene.label] == f"{item.colour} {item.shape}"


def test_place_is_the_third_of_the_picture_where_the_item_lies():
    for scene in scenes_of("scenes", "train"):
        for item in scene.items:
            rows = {"top": item.y < 0.4, "bottom": item.y > 0.6}
            columns = {"left": item.x < 0.4, "right": item.x > 0.6}
            for word, lies_there in (rows | columns).items():
                assert (word in item.place.split()) == lies_there


@pytest.mark.parametrize("config", shapes.CONFIGS)
def test_items_stay_inside_and_apart(config):
    for scene in scenes_of(config, "train"):
        for item in scene.items:
            for frame in (0, shapes.NUM_FRAMES - 1 if scene.direction else 0):
                x = item.x + frame * scene.velocity[0]
                y = item.y + frame * scene.velocity[1]
                assert item.radius < min(x, y, 1 - x, 1 - y) + 1e-6
        for a in scene.items:
            for b in scene.items:
                distance = ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5
                assert a is b or distance > a.radius + b.radius


NAME = r"a (?:(small|large) )?(\w+) (circle|square|triangle|star|ring)"
WHERE = r"(?:in the|at the) ((?:top|bottom)? ?(?:left|right|centre)?)"


def names_of(items):
    return [(item.size, item.colour, item.shape) for item in items]


def test_captions_say_what_is_there():
    """Parses each sentence with a grammar of its own and compares."""
    for scene in scenes_of("scenes", "train") + scenes_of("scenes", "test_held_out"):
        sentence = scene.caption
        assert sentence.endswith(f" on a {scene.background} background")
        assert re.findall(NAME, sentence) == names_of(scene.items)
        if len(scene.items) == 2:
            first, second = scene.items
            relation = re.search(r"(above|below|left of|right of)", sentence)[1]
            assert {
                "above": first.y < second.y,
                "below": first.y > second.y,
                "left of": first.x < second.x,
                "right of": first.x > second.x,
            }[relation]
        else:
            places = [place.strip() for place in re.findall(WHERE, sentence)]
            assert places == [item.place for item in scene.items]


def test_captions_of_single_shapes_leave_out_the_size():
    for scene in scenes_of("single", "test", 30):
        (item,) = scene.items
        assert re.findall(NAME, scene.caption) == [("", item.colour, item.shape)]
        assert item.place in scene.caption


def test_captions_of_clips_tell_the_direction():
    for scene in scenes_of("clips", "train", 60):
        assert re.findall(NAME, scene.caption) == names_of(scene.items)
        vx, vy = scene.velocity
        told = re.search(r"moves (\w+) on", scene.caption)[1]
        assert told == scene.direction
        moves = {"right": vx > 0, "left": vx < 0, "down": vy > 0, "up": vy < 0}
        assert [word for word, true in moves.items() if true] == [told]


@pytest.mark.parametrize("argument", [("triple", "train"), ("single", "dev")])
def test_unknown_config_or_split(argument):
    with pytest.raises(ValueError, match=f"Received: .*{argument[0][:3]}|dev"):
        shapes.make_scene(*argument, 0)
