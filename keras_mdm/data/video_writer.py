"""Arrays of frames to video files: mp4 by PyAV, webp and gif by Pillow.

Both are imported where they are used.
"""

import numpy as np

from keras_mdm.data.transforms import to_channels
from keras_mdm.data.video_files import as_fraction, check_frame_rate, import_av
from keras_mdm.files import whole_file
from keras_mdm.paths import as_path

WRITABLE = (".gif", ".mp4", ".webp")
# Browsers show gifs with frames shorter than 1/50 s far slower.
_FASTEST_GIF = 50


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
    rate = as_fraction(frame_rate)
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
