"""How the pictures of TFDS sets are decoded: within limits, and no others.

Used by `tfds_source.py`.
"""

import io

import numpy as np
import tensorflow_datasets as tfds

from keras_mdm.data.pictures import open_picture


class DecodePicture(tfds.decode.Decoder):
    """Bytes of a picture, or of the frames of a clip, to an array as TFDS makes it.

    TFDS itself hands the bytes to whatever Pillow opens.
    """

    def __init__(self, limits):
        super().__init__()
        self._limits = limits

    def decode_example(self, serialized_example):
        return self.feature.decode_example(serialized_example)

    def decode_example_np(self, serialized_example):
        return self._decode(serialized_example, self._limits.picture_pixels)

    def _decode(self, data, max_pixels):
        with open_picture(io.BytesIO(data), max_pixels) as picture:
            pixels = np.asarray(picture, dtype=np.uint8)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def decode_batch_example_np(self, serialized_example):
        if len(serialized_example) > self._limits.clip_frames:
            raise ValueError(f"it has more than {self._limits.clip_frames} frames")
        frames, left = [], self._limits.clip_pixels
        for data in serialized_example:
            frames.append(self._decode(data, left))
            left -= frames[-1].shape[0] * frames[-1].shape[1]
        return frames


class _Undecoded(tfds.decode.SkipDecoding):
    """Leaves pictures that nobody asks for as bytes."""

    def decode_batch_example_np(self, serialized_example):
        return serialized_example

    decode_ragged_example_np = decode_batch_example_np


def decoders_of(features, wanted, decoder):
    """Nested dict of decoders: of the wanted pictures, and none of any others."""
    decoders = {}
    for key, feature in features.items():
        while isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.Image):
            decoders[key] = decoder if key == wanted else _Undecoded()
        elif isinstance(feature, tfds.features.FeaturesDict):
            nested = decoders_of(feature, None, decoder)
            if nested:
                decoders[key] = nested
    return decoders
