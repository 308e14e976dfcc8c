"""Frames of clips as pictures, and clips of fewer frames."""

import numpy as np
import pytest

from keras_mdm import data


class Counting(data.Source):
    """Clips of 4 frames; frame f of clip c has the value 10 c + f. Clip 1 is broken."""

    def __init__(self, num_frames=4):
        super().__init__(
            "counting", 1, has_captions=True, is_video=True, num_frames=num_frames
        )

    def __len__(self):
        return 3

    def _read(self, index):
        if index == 1:
            raise data.UnusablePicture("clip 1", "broken")
        frames = 10 * index + np.arange(4, dtype="uint8")
        video = np.broadcast_to(frames[:, None, None, None], (4, 8, 8, 1))
        return {"video": video, "caption": f"clip {index}"}


def test_every_frame_is_a_picture_with_the_caption_of_its_clip():
    source = Counting()
    frames = data.at_level(source, 8)
    assert len(frames) == 12 and not frames.is_video
    assert frames[11]["image"].shape == (8, 8, 1)
    found = [(int(frames[i]["image"][0, 0, 0]), frames[i]["caption"]) for i in (2, 8)]
    assert found == [(2, "clip 0"), (20, "clip 2")]
    dataset = data.make_dataset(
        frames, 4, 2, shuffle=False, keep=("images", "captions")
    )
    batches = list(dataset)
    values = np.concatenate([batch["images"][:, 0, 0, 0] for batch in batches])
    np.testing.assert_array_equal(values, [0, 1, 2, 3, 20, 21, 22, 23])
    assert source.skipped == (("clip 1", "broken"),)


def test_fewer_frames_are_the_first_of_every_group():
    clips = data.at_level(Counting(), "2x8")
    assert len(clips) == 3 and clips.num_frames == 2
    np.testing.assert_array_equal(clips[2]["video"][:, 0, 0, 0], [20, 22])


def test_sources_that_fit_stay_as_they_are():
    clips, pictures = Counting(), data.open_source("digits")
    assert data.at_level(clips, "4x16") is clips
    assert data.at_level(pictures, 16) is pictures


@pytest.mark.parametrize(
    "source, level, message",
    [
        (lambda: data.open_source("digits"), "2x8", "'digits' has pictures, not clips"),
        (Counting, "3x8", "have 4 frames, which can't be divided into 3"),
        (Counting, "8x8", "have 4 frames.*num_frames=8"),
        (lambda: Counting(None), 8, "may differ in length"),
    ],
)
def test_levels_that_do_not_fit(source, level, message):
    with pytest.raises(ValueError, match=message):
        data.at_level(source(), level)


def test_names_of_classes_as_captions():
    source = data.ClassCaptions(data.open_source("digits"))
    for index in (0, 7):
        assert source[index]["caption"] == str(source[index]["label"])
    source.require_captions("a test")
    with pytest.raises(ValueError, match="neither captions nor named classes"):
        data.ClassCaptions(Counting())
