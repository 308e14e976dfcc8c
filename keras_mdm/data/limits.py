"""How much is read of what strangers give: checked before anything is decoded."""

import dataclasses

from keras_mdm.checks import check_number
from keras_mdm.data.transforms import check_positive


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an item of a source, or a file of it, may take; see `open_source`.

    An item that is beyond one is skipped and reported, like one that is damaged. No
    honest file meets the defaults.

    Args:
        picture_pixels: Int. Pixels of a picture; of AVIF, JPEG 2000 and WebP, whose
            decoders take twice the memory, half as many. Defaults to 2^27, 134
            megapixels, which take a gigabyte.
        picture_bytes: Int. Bytes of a picture's file, of a member of a shard, and of a
            record of TFDS once it is unpacked.
        clip_frames: Int. Frames of a clip, those that are left out included.
        clip_pixels: Int. Pixels of all frames of a clip together. Defaults to 2^28,
            32 frames of 3840x2160.
        frame_pixels: Int. Pixels of a frame of it. Defaults to 2^25, which 7680x4320 is
            below.
        caption_length: Int. Characters of a caption.
        table_bytes: Int. Bytes of a table of captions, which is refused beyond.
        shard_members: Int. Members of a shard; those behind are not read.
        unusable_rows: Float in [0, 1]. Share of the rows of a table of captions that
            may be unusable; a table with more is refused, with the reasons.

    Raises:
        ValueError: If one is no positive integer, or no share.

    Example:

    ```python
    limits = keras_mdm.data.Limits(picture_pixels=2**24, caption_length=500)
    source = keras_mdm.data.open_source("folder:PATH", limits=limits)
    ```
    """

    picture_pixels: int = 2**27
    picture_bytes: int = 2**29
    clip_frames: int = 100_000
    clip_pixels: int = 2**28
    frame_pixels: int = 2**25
    caption_length: int = 100_000
    table_bytes: int = 2**32
    shard_members: int = 2**22
    unusable_rows: float = 0.8

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                object.__setattr__(self, field.name, check_positive(field.name, value))
            else:
                check_number(0, 1, **{field.name: value})


LIMITS = Limits()
