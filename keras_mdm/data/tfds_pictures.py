"""Decodes the pictures of TFDS sets, in the formats that the package reads alone.

TFDS itself hands the bytes to whatever Pillow opens.
"""

import io

import numpy as np
import tensorflow_datasets as tfds

from keras_mdm.data.pictures import open_picture


class DecodePicture(tfds.decode.Decoder):
    """Bytes of a picture, or of the frames of a clip, to an array as TFDS makes it."""

    def decode_example(self, serialized_example):
        return self.feature.decode_example(serialized_example)

    def decode_example_np(self, serialized_example):
        with open_picture(io.BytesIO(serialized_example)) as picture:
            pixels = np.asarray(picture, dtype=np.uint8)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def decode_batch_example_np(self, serialized_example):
        return [self.decode_example_np(frame) for frame in serialized_example]


class Undecoded(tfds.decode.SkipDecoding):
    """Leaves pictures that nobody asks for as bytes."""

    def decode_batch_example_np(self, serialized_example):
        return serialized_example

    def decode_ragged_example_np(self, serialized_example):
        return serialized_example


def decoders_of(features, wanted=None):
    """Decoders for `as_data_source`: of the wanted pictures, and none of any others.

    Args:
        features: `tfds.features.FeaturesDict`.
        wanted: String. Key of the pictures or clips that are read.

    Returns:
        Nested dict of `tfds.decode.Decoder`.
    """
    decoders = {}
    for key, feature in features.items():
        while isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.Image):
            decoders[key] = DecodePicture() if key == wanted else Undecoded()
        elif isinstance(feature, tfds.features.FeaturesDict):
            nested = decoders_of(feature)
            if nested:
                decoders[key] = nested
    return decoders
