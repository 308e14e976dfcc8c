"""First frames of clips as pictures, and clips of fewer frames."""

import keras
import numpy as np
import pytest

from keras_mdm import data, diffusion

pytestmark = pytest.mark.once


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


def test_first_frame_is_a_picture_with_the_caption_of_its_clip():
    source = Counting()
    frames = data.at_level(source, 8)
    assert len(frames) == 3 and not frames.is_video
    assert frames[2]["image"].shape == (8, 8, 1)
    found = [(int(frames[i]["image"][0, 0, 0]), frames[i]["caption"]) for i in (0, 2)]
    assert found == [(0, "clip 0"), (20, "clip 2")]
    dataset = data.make_dataset(
        frames, 4, 2, shuffle=False, keep=("images", "captions")
    )
    (batch,) = dataset
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], [0, 20])
    assert source.skipped == (("clip 1", "broken"),)


def test_levels_keep_the_frames_that_the_nest_keeps():
    clips = np.arange(8, dtype="float32").reshape(1, 8, 1, 1, 1) * np.ones(
        (1, 8, 4, 4, 1)
    )
    pooled = diffusion.pyramid.pyramid(
        keras.ops.convert_to_tensor(clips), ["8x4", "2x4", 4]
    )

    class Ramp(Counting):
        def _read(self, index):
            return {"video": clips[0].astype("uint8"), "caption": ""}

    source = Ramp(num_frames=8)
    for level, kind, wanted in (("2x4", "video", pooled[1]), (4, "image", pooled[2])):
        found = data.at_level(source, level)[0][kind]
        np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(wanted)[0])


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
        (lambda: Counting(None), "2x8", "may differ in length.*num_frames=2"),
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
