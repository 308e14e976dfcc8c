"""Picture files to arrays: the one place where pictures of others are opened."""

import struct

import numpy as np

from keras_mdm.data.source import UnusablePicture
from keras_mdm.files import printable

# Pillow tells formats by their content. Others than these start programs (EPS), are no
# pictures of pixels, or are hardly ever tried.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)


def _known_formats():
    """Those of `FORMATS` that this build of Pillow can open."""
    from PIL import Image

    Image.init()
    return [kind for kind in FORMATS if kind in Image.OPEN]


def extensions():
    """Endings of the names of files that `read_picture` may open."""
    from PIL import Image

    return {
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in _known_formats()
    }


def read_picture(path, name=None):
    """Reads a picture file as 8-bit RGB.

    The EXIF orientation is applied, transparency is laid on white, 16-bit greys
    are scaled, and of an animation the first frame is taken.

    Args:
        path: Path of the file, or a binary file object.
        name: String. Its name in errors. Defaults to the path.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        UnusablePicture: If the file is not a picture, is truncated or damaged.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_known_formats()) as picture:
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture))
    # All that Pillow's decoders were seen to raise on damaged files.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnusablePicture(
            printable(name or path), f"corrupt or unreadable: {error}"
        ) from error


def _to_rgb(picture):
    from PIL import Image

    if picture.mode.startswith("I"):
        # 16-bit greys; Pillow's own conversion would clip them at 255.
        wide = np.asarray(picture).astype(np.float64)
        grey = np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA") or (
        "transparency" in picture.info
    ):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))
