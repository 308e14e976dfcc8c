"""Video files to arrays of frames and back: `read_clip` and `write_video`.

PyAV, which brings FFmpeg with it, reads all formats and writes mp4; Pillow writes webp
and gif. Both are imported where they are used.
"""

import fractions
import itertools

import numpy as np

from keras_mdm.checks import check_number
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.source import UnusablePicture
from keras_mdm.data.transforms import to_channels
from keras_mdm.files import whole_file
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

WRITABLE = (".gif", ".mp4", ".webp")
# Browsers show gifs with frames shorter than 1/50 s far slower.
_FASTEST_GIF = 50
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
    step = 1 / _fraction(frame_rate)
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


def write_video(path, frames, frame_rate=8):
    """Writes a clip as mp4, webp or gif, by the suffix of the path.

    webp is lossless, and so is gif up to 256 colors in a frame; both repeat for ever.
    mp4 is H.264 of high quality, for which both sides must be even. In webp and gif, a
    frame that equals the one before is stored as a longer showing of that.

    Args:
        path: Path of the file. Its folder is made if need be.
        frames: uint8 array `(frames, height, width, channels)` in [0, 255], with 1 or 3
            channels, as `MDM.generate` returns for each clip.
        frame_rate: Float in [0.001, 1000]. Frames a second; at most 50 for gif.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    ```python
    clips = mdm.generate("a red circle moves left", num_samples=2)
    keras_mdm.write_video("circle.webp", clips[0], frame_rate=8)
    ```
    """
    path = as_path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        raise ValueError(
            f"`path` must end in {' or '.join(WRITABLE)}. Received: path={path}"
        )
    check_frame_rate(frame_rate)
    if suffix == ".gif" and frame_rate > _FASTEST_GIF:
        raise ValueError(
            f"`frame_rate` must be at most {_FASTEST_GIF} for .gif. "
            f"Received: frame_rate={frame_rate}"
        )
    frames = np.asarray(frames)
    _check_frames(frames)
    if suffix == ".mp4":
        import_av(f"Writing {path.name}")
        _check_even(path, frames)
    with whole_file(path) as temporary:
        if suffix == ".mp4":
            _write_mp4(temporary, to_channels(frames, 3), frame_rate)
        else:
            _write_animation(temporary, frames, frame_rate)


def check_frame_rate(frame_rate):
    """Raises a `ValueError` if a frame rate is no number in [0.001, 1000]."""
    check_number(0.001, 1000, frame_rate=frame_rate)


def _check_frames(frames):
    if frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] not in (1, 3):
        hint = " Write clips one by one, such as `clips[0]`." * (frames.ndim == 5)
        raise ValueError(
            "`frames` must be one clip (frames, height, width, channels) with at least "
            f"one frame and 1 or 3 channels. Received shape: {frames.shape}.{hint}"
        )
    if frames.dtype != np.uint8:
        raise ValueError(
            "`frames` must be uint8 in [0, 255], as `MDM.generate` returns by default. "
            f"Received dtype: {frames.dtype}. Floats in [-1, 1] become it by "
            "`np.round((np.clip(x, -1, 1) + 1) * 127.5).astype('uint8')`."
        )


def _check_even(path, frames):
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            "The sides of an mp4 must be even; webp and gif take any. "
            f"Received: frames of {height}x{width} (height x width) for path={path}"
        )


def _write_mp4(path, frames, frame_rate):
    import av

    height, width = frames.shape[1:3]
    rate = _fraction(frame_rate)
    # With the index at the front, browsers play before all is loaded.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # What FFmpeg converts to by default; untold, players guess by the size.
        stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601
        for number, pixels in enumerate(np.ascontiguousarray(frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_animation(path, frames, frame_rate):
    from PIL import Image

    pictures = [
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        for pixels in frames
    ]
    # Frames end at times rounded to the unit of the format, in milliseconds, so that
    # rounding does not add up.
    unit = 10 if path.suffix.lower() == ".gif" else 1
    counts = np.arange(len(frames) + 1) * (1000 / unit / frame_rate)
    durations = np.diff(np.rint(counts).astype(int)) * unit
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=durations.tolist(),
        loop=0,
        lossless=True,
    )


def _fraction(frame_rate):
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
