"""Folders of videos: which frames a clip has, and files that are not usable."""

import struct
import sys
import types
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from video_helpers import CODECS, numbers_of, write_greys, write_one

from keras_mdm.data import UnusablePicture, make_dataset, open_source, video_files
from keras_mdm.data.video_files import READABLE, read_clip

pytestmark = pytest.mark.once


@pytest.mark.parametrize("suffix", READABLE)
def test_frames_are_picked_by_time_from_the_start(tmp_path, suffix):
    assert set(CODECS) == set(READABLE)
    path = tmp_path / f"greys{suffix}"
    write_greys(path, count=16, frame_rate=8)
    assert read_clip(path).dtype == np.uint8
    assert read_clip(path).shape == (16, 32, 48, 3)
    assert numbers_of(read_clip(path)) == list(range(16))
    assert numbers_of(read_clip(path, 5)) == [0, 1, 2, 3, 4]
    assert numbers_of(read_clip(path, 8, 4)) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert numbers_of(read_clip(path, 16, 8)) == list(range(16))
    # At 0, 1/6, 2/6, ... seconds, in units of 1/8 second: 0, 1.33, 2.67, 4, ...
    assert numbers_of(read_clip(path, 6, 6)) == [0, 1, 2, 4, 5, 6]
    # Twice the rate: each frame twice, to the end of the last one and no further.
    assert numbers_of(read_clip(path, 32, 16)) == [i // 2 for i in range(32)]
    for num_frames, frame_rate in ((17, None), (17, 8), (10, 4), (34, 16)):
        with pytest.raises(UnusablePicture, match=f"too short.*not {num_frames}"):
            read_clip(path, num_frames, frame_rate)


def test_uneven_stamps(tmp_path):
    """Frame 1 is shown for 50 ms, frame 2 for 750: counting frames would not do."""
    path = tmp_path / "uneven.mkv"
    write_greys(path, count=5, stamps=[0, 100, 150, 900, 1000])
    assert numbers_of(read_clip(path, 11, 10)) == [0, 1, *[2] * 7, 3, 4]
    assert numbers_of(read_clip(path, 4, 3)) == [0, 2, 2, 4]
    assert numbers_of(read_clip(path, 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".webm", ".mp4", ".gif"])
def test_rounded_stamps_neither_skip_nor_repeat(tmp_path, suffix):
    """The stamps of webm are whole milliseconds, those of gif hundredths."""
    write_greys(tmp_path / f"a{suffix}", count=20, frame_rate=30)
    assert numbers_of(read_clip(tmp_path / f"a{suffix}", 20, 30)) == list(range(20))
    assert numbers_of(read_clip(tmp_path / f"a{suffix}", 7, 10)) == [*range(0, 20, 3)]


@pytest.fixture
def folder(tmp_path):
    """Nine good videos of 8 frames in two classes, from mp4 to gif."""
    for number in range(9):
        suffix = (".mp4", ".webm", ".gif")[number % 3]
        name = f"{('walk', 'run')[number % 2]}/{number}{suffix}"
        write_greys(tmp_path / name, count=8, start=number)
    return tmp_path


def test_classes_and_batches(folder):
    source = open_source(f"clips:{folder}", "all", num_frames=4, frame_rate=4)
    assert len(source) == 9 and source.is_video and source.num_frames == 4
    assert source.class_names == ("run", "walk")
    for item in source:
        first, *others = numbers_of(item["video"])
        assert others == [first + 2, first + 4, first + 6]
        assert item["label"] == (first + 1) % 2
    batches = list(make_dataset(source, 16, 3))
    assert [batch["videos"].shape for batch in batches] == [(3, 4, 16, 16, 3)] * 3
    firsts = [numbers_of(video)[0] for batch in batches for video in batch["videos"]]
    assert sorted(firsts) == list(range(9))
    for batch in batches:
        for video, label in zip(batch["videos"], batch["labels"], strict=True):
            assert label == (numbers_of(video)[0] + 1) % 2


@pytest.mark.parametrize("table", [False, True])
def test_captions(folder, table):
    if table:
        text = "file_name,text\nwalk/0.mp4,a grey walk\nrun/1.webm,a grey run\n"
        (folder / "metadata.csv").write_text(text)
    else:
        (folder / "walk" / "0.txt").write_text("a grey walk")
        (folder / "run" / "1.txt").write_text("a grey run\n")
    source = open_source(f"clips:{folder}", "all", num_frames=2)
    assert source.has_captions and source.class_names is None
    captions = {numbers_of(item["video"])[0]: item["caption"] for item in source}
    assert captions == {0: "a grey walk", 1: "a grey run"}
    assert source.report().startswith("7 of 2 videos") and "no caption" in str(
        source.skipped
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unusable_videos_are_skipped_and_counted(folder, num_workers):
    write_greys(folder / "walk" / "long.mp4", count=20)
    whole = (folder / "walk" / "long.mp4").read_bytes()
    (folder / "walk" / "long.mp4").unlink()
    (folder / "walk" / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "walk" / "headless.mp4").write_bytes(whole[len(whole) // 3 :])
    gif = (folder / "walk" / "2.gif").read_bytes()
    (folder / "run" / "cut.gif").write_bytes(gif[: len(gif) // 2])
    (folder / "run" / "empty.webm").write_bytes(b"")
    (folder / "run" / "text.avi").write_bytes(b"not a video")
    (folder / "run" / "notes.doc").write_text("ignored by its extension")
    write_greys(folder / "run" / "short.mkv", count=7)
    source = open_source(f"clips:{folder}", "all", num_frames=8)
    assert len(source) == 15
    # The first frames of the cut mp4 are there, but not as many as asked for.
    longer = open_source(f"clips:{folder}", "all", num_frames=20)
    index = next(i for i in range(15) if longer.describe(i).endswith("cut.mp4"))
    assert numbers_of(source[index]["video"]) == list(range(8))
    with pytest.raises(UnusablePicture, match="cut.mp4: corrupt or unreadable"):
        longer[index]

    batches = list(make_dataset(source, 8, 5, num_workers=num_workers))
    assert [batch["videos"].shape for batch in batches] == [(5, 8, 8, 8, 3)] * 2
    reasons = {what.split("/")[-1]: why for what, why in source.skipped}
    assert reasons.keys() == {
        *("headless.mp4", "cut.gif", "empty.webm", "text.avi", "short.mkv")
    }
    assert reasons["short.mkv"] == "too short: 7 frames, not 8"
    assert reasons["cut.gif"] == "corrupt or unreadable: the file is cut off"
    assert source.report().startswith("5 of 15 videos of 'clips:")


def test_what_is_not_needed_is_not_decoded(tmp_path):
    write_greys(tmp_path / "a.mp4", count=20)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    half = (start + len(data)) // 2
    data[half:] = bytes(len(data) - half)
    (tmp_path / "a.mp4").write_bytes(data)
    assert numbers_of(read_clip(tmp_path / "a.mp4", 4)) == [0, 1, 2, 3]
    with pytest.raises(UnusablePicture, match="corrupt"):
        read_clip(tmp_path / "a.mp4")


def test_a_frame_cut_in_two_is_damaged(tmp_path):
    write_greys(tmp_path / "a.avi", count=10)
    data = (tmp_path / "a.avi").read_bytes()
    # In the middle of frame 4; each is a chunk `00dc` of the list `movi`.
    start = data.index(b"movi")
    places = [i for i in range(start, len(data)) if data.startswith(b"00dc", i)]
    (tmp_path / "a.avi").write_bytes(data[: (places[4] + places[5]) // 2])
    assert numbers_of(read_clip(tmp_path / "a.avi", 4)) == [0, 1, 2, 3]
    with pytest.raises(UnusablePicture, match="a.avi: corrupt.*a frame is damaged"):
        read_clip(tmp_path / "a.avi", 5)


def test_a_last_frame_of_unknown_duration_is_shown_as_long_as_the_one_before():
    frames = [
        types.SimpleNamespace(pts=pts, time_base=Fraction(1, 1000), duration=0)
        for pts in (40, 140, 340)
    ]
    shown = [frame.pts for frame in video_files._frames_at(frames, 10)]
    assert shown == [40, 140, 140, 340, 340]


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnusablePicture, match="no video"):
        read_clip(tmp_path / "a.mp4")


def test_unknown_codecs_and_old_encodings(tmp_path):
    path = tmp_path / "a.mp4"
    write_one(path, np.full((32, 32, 3), 90, np.uint8), title="cafEEE")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"cafEEE", b"caf\xe9\xe9\xe9"))
    assert abs(int(read_clip(path)[0, 9, 9, 0]) - 90) < 3
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(UnusablePicture, match="codec is unknown"):
        read_clip(path)


# Matrices of ISO 14496-12, in sixteenths of bits: where x and y of a picture go.
@pytest.mark.parametrize(
    "matrix, shape, corner",
    [
        ((0, 1, -1, 0), (48, 32), (0, -1)),  # a quarter clockwise: to the top right
        ((-1, 0, 0, -1), (32, 48), (-1, -1)),
        ((0, -1, 1, 0), (48, 32), (-1, 0)),
    ],
)
def test_a_turned_camera_is_turned_back(tmp_path, matrix, shape, corner):
    path = tmp_path / "phone.mp4"
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:8, :8] = 255  # the top left corner
    write_one(path, pixels)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    assert data[place : place + 4] == struct.pack(">i", 65536)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frame = read_clip(path)[0]
    assert frame.shape == (*shape, 3)
    assert frame[corner].min() > 230
    assert np.mean(frame > 128) == pytest.approx(64 / (32 * 48), rel=0.2)


def test_gif_palettes_and_transparency(tmp_path):
    frames = [Image.new("RGBA", (8, 8)) for _ in range(3)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 0), [(255, 0, 0), (0, 255, 0), (3, 5, 250)][number])
    frames[0].save(
        tmp_path / "a.gif",
        save_all=True,
        append_images=frames[1:],
        disposal=2,
        duration=100,
    )
    expected = np.full((3, 8, 8, 3), 255)
    expected[[0, 1, 2], 0, [0, 1, 2]] = (255, 0, 0), (0, 255, 0), (3, 5, 250)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.gif"), expected)


def test_frames_of_a_clip_are_cropped_and_mirrored_alike(tmp_path):
    ramp = np.add.outer(np.arange(20) * 6, np.arange(24) * 5).astype(np.uint8)
    frames = [Image.fromarray(ramp)] * 6
    # A black dot that wanders, lest Pillow write one long frame.
    for number in range(6):
        frames[number] = frames[number].copy()
        frames[number].putpixel((number, 19), 0)
    for name in range(16):
        frames[0].save(
            tmp_path / f"{name}.gif", save_all=True, append_images=frames[1:]
        )
    source = open_source(f"clips:{tmp_path}", "all", num_frames=6)
    dataset = make_dataset(source, 10, 16, crop="random", flip=True, seed=1)
    videos = next(iter(dataset))["videos"].astype(int)
    top = videos[..., :7, :, :]  # above the dots
    np.testing.assert_array_equal(top, np.repeat(top[:, :1], 6, axis=1))
    mirrored = top[:, 0, 0, 0, 0] > top[:, 0, 0, -1, 0]
    assert 0 < mirrored.sum() < 16
    assert len(np.unique(top[:, 0, 0, 0, 0])) > 4  # crops differ between clips


def test_videos_of_differing_lengths_are_refused(folder):
    source = open_source(f"clips:{folder}", "all")
    assert source.num_frames is None and len(source[0]["video"]) == 8
    with pytest.raises(ValueError, match="may differ in length.*num_frames=16"):
        make_dataset(source, 8, 2)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(f"clips:{tmp_path / 'nowhere'}")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"No videos in .*\.gif \.mkv .*\.webm"):
        open_source(f"clips:{tmp_path}")


@pytest.mark.parametrize(
    "argument",
    [
        *({"num_frames": value} for value in (0, -1, 2.5, "8", True)),
        *({"frame_rate": value} for value in (0, -1, "8", float("nan"), 1e9)),
    ],
)
def test_wrong_choices_are_named(tmp_path, argument):
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}={value!r}"):
        open_source(f"clips:{tmp_path}", **argument)


@pytest.mark.parametrize("argument", [{"num_frames": 8}, {"frame_rate": 4}])
@pytest.mark.parametrize("name", ["digits", "folder:PATH", "webdataset:PATH", "shapes"])
def test_pictures_have_no_frames_to_choose(shapes_dir, name, argument):
    with pytest.raises(ValueError, match="has pictures, not clips.*num_frames="):
        open_source(name, data_dir=shapes_dir, **argument)


def test_without_pyav_the_error_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="'clips:.*pip install av"):
        open_source(f"clips:{folder}")
