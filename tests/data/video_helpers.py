"""Videos made with PyAV itself, whose frames tell their number by their grey."""

import fractions

import av
import numpy as np

STEP = 12
FIRST = 10

CODECS = {
    ".avi": ("mpeg4", "yuv420p"),
    ".gif": ("gif", "gray"),
    ".mkv": ("libx264", "yuv420p"),
    ".mov": ("libx264", "yuv420p"),
    ".mp4": ("libx264", "yuv420p"),
    ".webm": ("libvpx-vp9", "yuv420p"),
}


def write_greys(path, count=16, frame_rate=8, stamps=None, start=0):
    """Writes a video whose frame `i` has the mean grey `10 + 12 * (start + i)`.

    Noise around it keeps the frames from taking next to no bytes.

    Args:
        path: Path of the file.
        count: Int. Number of frames, at most 20.
        frame_rate: Int. Frames a second.
        stamps: Optional list of ints: when each frame begins, in milliseconds.
        start: Int. Number of the first frame.
    """
    codec, pixel_format = CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=frame_rate)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        unit = fractions.Fraction(1, frame_rate)
        if stamps is not None:
            unit = fractions.Fraction(1, 1000)
            stream.codec_context.time_base = unit
        # Else mpeg4 would change even the mean.
        stream.bit_rate = 10**7
        rng = np.random.default_rng(0)
        for number in range(count):
            noise = rng.integers(-8, 9, (32, 48, 1))
            pixels = FIRST + STEP * (start + number) + np.repeat(noise, 3, axis=-1)
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_one(path, pixels, title=""):
    """Writes a video of one frame as H.264."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers_of(video):
    """Numbers of the frames of a video, told from their greys."""
    greys = (video.astype(float).mean(axis=(1, 2, 3)) - FIRST) / STEP
    # Codecs change colours a little; damage would show as a number in between.
    np.testing.assert_allclose(greys, np.round(greys), atol=0.25)
    return np.round(greys).astype(int).tolist()
