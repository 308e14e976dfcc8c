"""The judge of clips reads motion from the order of the frames."""

import dataclasses

import numpy as np
import pytest

from keras_mdm.data import shapes, shapes_drawing
from keras_mdm.metrics import ClipJudge, frame_change, to_label

pytestmark = pytest.mark.once


def drawn(split, count, resolution=16):
    """Clips of four frames, and what moves in them."""
    scenes = [shapes.make_scene("clips", split, i) for i in range(count)]
    clips = shapes_drawing.draw_clips(scenes, resolution)[:, ::2]
    labels = [
        to_label(
            {
                "items": [dataclasses.asdict(item) for item in scene.items],
                "direction": scene.direction,
            }
        )
        for scene in scenes
    ]
    return clips, np.stack(labels)


@pytest.fixture(scope="module")
def judge():
    judge = ClipJudge(4, 16)
    judge.fit(*drawn("train", 320), epochs=7, batch_size=32)
    return judge


def test_labels_are_what_the_caption_says():
    scene = shapes.make_scene("clips", "train", 3)
    _, labels = drawn("train", 4)
    shape, colour, direction = labels[3]
    item = scene.items[0]
    assert shapes.SHAPES[shape] == item.shape
    assert list(shapes.COLOURS)[colour] == item.colour
    assert f"moves {list(shapes.DIRECTIONS)[direction]} " in scene.caption


def test_reads_colour_and_direction_of_new_clips(judge):
    clips, labels = drawn("test", 100)
    seen = judge.classify(clips)
    assert seen.shape == (100, 3)
    share = (seen == labels).mean(axis=0)
    # Chance is 0.2: telling shapes of three pixels apart takes more training.
    assert share[0] > 0.3 and share[1] > 0.9 and share[2] > 0.9


def test_backwards_is_the_other_direction(judge):
    clips, labels = drawn("test", 100)
    back = judge.classify(clips[:, ::-1])
    other = np.array([1, 0, 3, 2])[labels[:, 2]]
    assert (back[:, 2] == other).mean() > 0.9
    assert (back[:, 1] == labels[:, 1]).mean() > 0.9


def test_shuffled_frames_are_less_like_their_neighbors(judge):
    clips, _ = drawn("test", 50)
    features = judge.frame_features(clips)
    assert features.shape[:2] == (50, 4)
    shuffled = judge.frame_features(clips[:, [2, 0, 3, 1]])
    assert frame_change(shuffled) > 1.3 * frame_change(features)
    frozen = judge.frame_features(clips[:, [0, 0, 0, 0]])
    assert frame_change(frozen) == pytest.approx(0.0, abs=1e-4)


def test_features_are_one_row_a_clip(judge):
    clips, _ = drawn("test", 3)
    features = judge.features(clips)
    assert features.shape == (3, 160)
    np.testing.assert_allclose(judge.features(clips[:1]), features[:1], atol=1e-4)
