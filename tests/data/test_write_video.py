"""Clips written as mp4, webp and gif, read back by other means."""

import sys

import av
import numpy as np
import pytest
from helpers import run_python
from PIL import Image, ImageSequence

import keras_mdm

pytestmark = pytest.mark.once


def colours(count=6, height=32, width=48):
    """A bar of 16 colours on a ramp that brightens from frame to frame."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (np.arange(count) * 30)[:, None, None]
    frames[:, 8:24, 8:40] = np.array([40, 120, 200], np.uint8)
    frames[:, :, :4, 1] = 255
    for number in range(count):
        frames[number, :8, 4 * number + 8] = (250, 20, 90)
    return frames


def read(path):
    """Frames, and when each ends in seconds, by Pillow or PyAV."""
    if path.suffix.lower() != ".mp4":
        with Image.open(path) as picture:
            frames, seconds = [], []
            for frame in ImageSequence.Iterator(picture):
                frames.append(np.asarray(frame.convert("RGB")))
                seconds.append(frame.info.get("duration", 0) / 1000)
        return np.stack(frames), np.cumsum(seconds)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    frames = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    return frames, np.array(
        [float((frame.pts + frame.duration) * frame.time_base) for frame in decoded]
    )


@pytest.mark.parametrize("suffix, tolerance", [("webp", 0), ("gif", 0), ("mp4", 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path, suffix, tolerance, channels):
    frames = colours()[..., :channels]
    # The folder is made.
    path = tmp_path / "new" / f"clip.{suffix}"
    keras_mdm.write_video(path, frames, frame_rate=8)
    found, ends = read(path)
    assert found.shape == (6, 32, 48, 3)
    difference = np.abs(found.astype(int) - frames)
    if suffix == "mp4":
        # Its colours have half the resolution; grey has none.
        assert difference.mean() < (8 if channels == 3 else 1.5)
        difference = difference[:, 12:20, 12:36]
    assert difference.max() <= tolerance
    # Rounding to hundredths of a second in gifs does not add up.
    np.testing.assert_allclose(ends, np.arange(1, 7) / 8, atol=0.006)
    if suffix != "mp4":
        assert Image.open(path).info["loop"] == 0


def test_any_colours_are_exact_in_webp_and_close_in_gif(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), np.uint8)
    y, x = np.mgrid[:20, :20] * 12
    smooth = np.stack([x, y, (x + y) // 2], axis=-1)[None].astype(np.uint8)
    smooth = np.concatenate([smooth, smooth[:, ::-1]])
    for clip in (frames, smooth):
        keras_mdm.write_video(tmp_path / "a.webp", clip)
        np.testing.assert_array_equal(read(tmp_path / "a.webp")[0], clip)
    keras_mdm.write_video(tmp_path / "a.gif", smooth)
    found = read(tmp_path / "a.gif")[0].astype(int)
    assert np.abs(found - smooth).mean() < 6
    # 256 colours in each frame, others in the next.
    palettes = np.random.default_rng(1).integers(0, 256, (3, 256, 3), np.uint8)
    clip = np.stack([colour.reshape((16, 16, 3)) for colour in palettes])
    keras_mdm.write_video(tmp_path / "a.gif", clip)
    np.testing.assert_array_equal(read(tmp_path / "a.gif")[0], clip)


@pytest.mark.parametrize("suffix", ["webp", "gif", "mp4"])
def test_one_frame_that_is_a_view(tmp_path, suffix):
    # Endings may be in capitals.
    path = tmp_path / f"one.{suffix.upper()}"
    keras_mdm.write_video(path, colours(1)[:, :, ::-1])
    frames, _ = read(path)
    assert frames.shape == (1, 32, 48, 3)
    assert np.abs(frames[0, 16, 24].astype(int) - (40, 120, 200)).max() <= 6
    assert frames[0, 28, -1, 1] > 200 > 100 > frames[0, 28, 0, 1]


def test_fractional_rates(tmp_path):
    keras_mdm.write_video(tmp_path / "a.mp4", colours(), frame_rate=29.97002997)
    with av.open(str(tmp_path / "a.mp4")) as container:
        rate = container.streams.video[0].average_rate
        assert (rate.numerator, rate.denominator) == (30000, 1001)
    keras_mdm.write_video(tmp_path / "a.webp", colours(), frame_rate=0.4)
    np.testing.assert_allclose(read(tmp_path / "a.webp")[1], 2.5 * np.arange(1, 7))


def test_odd_sides(tmp_path):
    frames = colours(2)[:, :31]
    with pytest.raises(ValueError, match="must be even.*31x48"):
        keras_mdm.write_video(tmp_path / "a.mp4", frames)
    assert not (tmp_path / "a.mp4").exists()
    for suffix in ("webp", "gif"):
        keras_mdm.write_video(tmp_path / f"a.{suffix}", frames)
        np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}")[0], frames)


@pytest.mark.parametrize(
    "name, frames, frame_rate, message",
    [
        ("a.avi", colours(), 8, r"must end in .gif or .mp4 or .webp.*a\.avi"),
        ("a", colours(), 8, "must end in"),
        ("a.gif", colours()[0], 8, r"one clip.*shape: \(32, 48, 3\)"),
        ("a.gif", colours()[None], 8, r"\(1, 6, 32, 48, 3\).*`clips\[0\]`"),
        ("a.gif", colours()[:0], 8, "at least one frame"),
        ("a.gif", colours()[..., :2], 8, "1 or 3 channels"),
        ("a.gif", colours() / 127.5 - 1, 8, r"must be uint8.*float64.*127\.5"),
        ("a.gif", colours(), 51, "at most 50 for .gif.*frame_rate=51"),
        ("a.webp", colours(), 0, "from 0.001 to 1000.*frame_rate=0"),
        ("a.mp4", colours(), "8", "frame_rate='8'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, name, frames, frame_rate, message):
    with pytest.raises(ValueError, match=message):
        keras_mdm.write_video(tmp_path / name, frames, frame_rate)
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="a.mp4 needs PyAV.*pip install av"):
        keras_mdm.write_video(tmp_path / "a.mp4", colours())
    keras_mdm.write_video(tmp_path / "a.webp", colours())


def test_import_stays_light():
    code = "import sys, keras_mdm; print({'av', 'grain'} & {*sys.modules})"
    assert run_python(code).strip() == "set()"
