"""Opens picture files. Every picture that the package reads comes through here."""

import os

import numpy as np

from keras_mdm.data.limits import LIMITS
from keras_mdm.data.source import UnusablePicture
from keras_mdm.data.transforms import to_channels
from keras_mdm.paths import as_path

# Not all that Pillow opens: for PostScript, by whatever name, it starts Ghostscript.
EXTENSIONS = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
    "PCX": (".pcx",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Whose decoders take more than twice the memory of others: half as many pixels.
_HEAVY = ("AVIF", "JPEG2000", "WEBP")
_STRIP = 2**20  # Pixels that are converted at once.
_MOST_SCANNED = 2**33  # Pixels times scans: of the largest pictures 64.


def supported_formats():
    """Tuple of the formats that are read, as far as this Pillow has them."""
    from PIL import Image

    Image.init()
    return tuple(name for name in EXTENSIONS if name in Image.OPEN)


def picture_extensions():
    """Set of the endings of the formats that are read, as far as this Pillow can."""
    return {ending for name in supported_formats() for ending in EXTENSIONS[name]}


def open_picture(
    file, max_pixels=LIMITS.picture_pixels, max_bytes=LIMITS.picture_bytes
):
    """Opens a path or a binary file as a `PIL.Image.Image` that is not decoded yet.

    Raises:
        ValueError: If it has more pixels than `max_pixels`, or its file has more than
            `max_bytes`.
    """
    from PIL import Image

    if isinstance(file, str | os.PathLike):
        file = as_path(file)
        if file.stat().st_size > max_bytes:
            raise ValueError(f"its file has more than {max_bytes} bytes")
    picture = Image.open(file, formats=supported_formats())
    width, height = picture.size
    if picture.format in _HEAVY:
        max_pixels //= 2
    if width * height > max_pixels:
        picture.close()
        raise ValueError(f"{width}x{height} pixels are more than {max_pixels}")
    if picture.format in ("JPEG", "MPO"):
        scans = _count_scans(picture.fp)
        if scans * width * height > _MOST_SCANNED:
            picture.close()
            raise ValueError(f"{scans} scans of {width}x{height} pixels take too long")
    return picture


def _count_scans(file):
    """How often a JPEG file goes over its pixels: a hundred bytes may do it once."""
    place, count, last = file.tell(), 0, b""
    file.seek(0)
    while part := file.read(2**20):
        count += (last + part).count(b"\xff\xda")
        last = part[-1:]
    file.seek(place)
    return count


def read_picture(
    path,
    name=None,
    max_pixels=LIMITS.picture_pixels,
    max_bytes=LIMITS.picture_bytes,
):
    """Reads a picture file as 8-bit RGB.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grays
    are scaled, and of an animation the first frame is taken.

    Args:
        path: Path of the file, or a binary file object.
        name: String. Its name in errors. Defaults to the path.
        max_pixels: Int. Larger pictures are unusable, and are not decoded.
        max_bytes: Int. So are larger files.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        UnusablePicture: If the file is not a picture, is truncated or damaged.
    """
    from PIL import ImageOps

    try:
        with open_picture(path, max_pixels, max_bytes) as picture:
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return _to_rgb(picture)
    # Pillow's decoders raise almost anything on damaged files.
    except Exception as error:
        raise UnusablePicture(
            str(name or path), f"corrupt or unreadable: {error}"
        ) from error


def _to_rgb(picture):
    """An RGB array, made strip by strip: copies of a large picture fill the memory."""
    width, height = picture.size
    rows = max(1, _STRIP // width)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip_to_rgb(picture.crop((0, top, width, bottom)))
    return pixels


def _strip_to_rgb(picture):
    if picture.mode.startswith("I"):
        # 16-bit grays; Pillow's own conversion would clip them at 255.
        wide = np.clip(np.asarray(picture), 0, 65535).astype(np.uint16)
        pixels = (wide // 257 + (wide % 257 > 128)).astype(np.uint8)
        return to_channels(pixels[..., None], 3)
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    has_alpha = picture.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    has_alpha = has_alpha or "transparency" in picture.info
    return to_channels(np.asarray(picture.convert("RGBA" if has_alpha else "RGB")))
