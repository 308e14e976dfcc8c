"""Video files to arrays of frames. `video_writer` is the way back.

PyAV, which brings FFmpeg with it, reads all formats; it is imported where it is used.
"""

import fractions
import itertools

import numpy as np

from keras_mdm.checks import check_number
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.source import UnusablePicture
from keras_mdm.data.transforms import to_channels
from keras_mdm.paths import as_path

# FFmpeg's readers by ending: left to itself, it also follows lists of other files.
_FORMATS = {
    ".avi": "avi",
    ".gif": "gif",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mov",
    ".webm": "matroska",
}
READABLE = tuple(_FORMATS)
_LONGEST_ROUNDING = fractions.Fraction(1, 200)


def read_clip(
    path,
    num_frames=None,
    frame_rate=None,
    max_pixels=LIMITS.clip_pixels,
    max_frames=LIMITS.clip_frames,
    max_frame_pixels=LIMITS.frame_pixels,
):
    """Reads a video file from its start as 8-bit RGB, and decodes no more than needed.

    Transparency is laid on white, and a turned camera is turned back.

    Args:
        path: Path of the file.
        num_frames: Int. Number of frames. Defaults to all.
        frame_rate: Float in [0.001, 1000]. Frames a second: frame `k` is what the file
            shows at the time `k / frame_rate`. Where the file has fewer, frames come
            more than once. Defaults to the frames as they follow each other.
        max_pixels: Int. Of all frames together; larger clips are unusable.
        max_frames: Int. Of those that are decoded and of those that are returned.
        max_frame_pixels: Int. Of each frame.

    Returns:
        uint8 array `(frames, height, width, 3)`.

    Raises:
        UnusablePicture: If the file is no video, is damaged or too short.
    """
    av = import_av(f"Reading {path}")
    path = as_path(path)
    try:
        if path.suffix.lower() == ".gif":
            _check_gif_end(path)
        # Titles in old encodings are no damage.
        with av.open(
            f"file:{path.absolute()}",
            format=_FORMATS[path.suffix.lower()],
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        ) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise ValueError("there is no video in it")
            if stream.codec_context is None:
                raise ValueError("its codec is unknown")
            # Several files are read at once; more threads would only fight.
            stream.codec_context.thread_count = 1
            # FFmpeg itself refuses larger frames, before it takes memory for one.
            most = min(max_pixels // (num_frames or 1), max_frame_pixels)
            stream.codec_context.options = {"max_pixels": str(most)}
            size = stream.codec_context.width * stream.codec_context.height
            if size > most:
                raise ValueError(f"its frames have {size} pixels, more than {most}")
            frames = _at_most(max_frames, _sound_frames(container.decode(stream)))
            if frame_rate is not None:
                # Frames that are shown long come more than once.
                frames = _at_most(max_frames, _frames_at(frames, frame_rate))
            clip, left = [], max_pixels
            for frame in itertools.islice(frames, num_frames):
                left -= frame.width * frame.height
                if left < 0:
                    raise ValueError(f"its frames have more than {max_pixels} pixels")
                clip.append(_to_rgb(frame))
            pixels = _stacked(clip) if clip else None
    # Whatever a damaged file makes FFmpeg and numpy raise.
    except Exception as error:
        # FFmpeg's own words, without number and path.
        why = getattr(error, "strerror", None) or error
        raise UnusablePicture(str(path), f"corrupt or unreadable: {why}") from error
    count = 0 if pixels is None else len(pixels)
    if count < (num_frames or 1):
        rate = "" if frame_rate is None else f" at {frame_rate:g} a second"
        raise UnusablePicture(
            str(path), f"too short: {count} frames{rate}, not {num_frames or 1}"
        )
    return pixels


def _stacked(frames):
    """An array of frames; their list is emptied, so that none is there twice."""
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("its frames differ in size")
    clip = np.empty((len(frames), *frames[0].shape), "uint8")
    for index in reversed(range(len(frames))):
        clip[index] = frames.pop()
    return clip


def _check_gif_end(path):
    """FFmpeg paints the missing part of a frame that is cut off in some color."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        if not file.read().rstrip(b"\0\r\n ").endswith(b";"):
            raise ValueError("the file is cut off")


def _sound_frames(frames):
    for frame in frames:
        if frame.is_corrupt:
            raise ValueError("a frame is damaged")
        yield frame


def _at_most(count, frames):
    yield from itertools.islice(frames, count)
    if next(frames, None) is not None:
        raise ValueError(f"it has more than {count} frames")


def _frames_at(frames, frame_rate):
    """Yields what is shown at the times 0, 1 / frame_rate, 2 / frame_rate, ..."""
    step = 1 / as_fraction(frame_rate)
    start = shown = end = None
    count = 0
    for frame in frames:
        if frame.pts is None:
            raise ValueError("its frames have no time stamps; use frame_rate=None")
        stamp = frame.pts * frame.time_base
        # Stamps are rounded to the unit they are counted in, so a frame may be said to
        # begin a little late. (The unit of an avi is a whole frame, and exact.)
        rounding = min(frame.time_base / 2, _LONGEST_ROUNDING)
        if shown is None:
            start = stamp
        else:
            while start + count * step < stamp - rounding:
                yield shown
                count += 1
        # The last frame is shown for its duration; where none is told, as long as the
        # one before.
        duration = frame.duration * frame.time_base
        if not duration and shown is not None:
            duration = stamp - (shown.pts * shown.time_base)
        shown, end = frame, stamp + duration - 2 * rounding
    while shown is not None and start + count * step < end:
        yield shown
        count += 1


def _to_rgb(frame):
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels = to_channels(frame.to_ndarray(format="rgba" if has_alpha else "rgb24"))
    return np.rot90(pixels, round(frame.rotation / 90))


def check_frame_rate(frame_rate):
    """Raises a `ValueError` if a frame rate is no number in [0.001, 1000]."""
    check_number(0.001, 1000, frame_rate=frame_rate)


def as_fraction(frame_rate):
    """A frame rate as the fraction that it was rounded from."""
    # 29.97002997 is to be 30000 / 1001.
    return fractions.Fraction(float(frame_rate)).limit_denominator(2000)


def import_av(doing):
    """Returns the module `av`, or says what needs it and how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"{doing} needs PyAV, which is not installed. Run `pip install av`."
        ) from error
    return av
