"""A small network that reads what moves in a clip, and where to.

Trained on real clips on the spot, as the judges of pictures are; asked by
`recipes/evaluate_clips.py`.
"""

import keras
import numpy as np
from keras import ops

from keras_mdm.data.shapes import COLOURS, DIRECTIONS, SHAPES
from keras_mdm.metrics.judge import Judge, convolve, initializers

# What a caption of a moving shape tells, and the words for it.
CLIP_ATTRIBUTES = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "direction": tuple(DIRECTIONS),
}
_SIZES = [len(words) for words in CLIP_ATTRIBUTES.values()]


def to_label(attributes):
    """What a clip of `shapes/clips` shows, as `ClipJudge` reads it.

    Args:
        attributes: dict of a source's item: `items` and `direction`.

    Returns:
        int32 array of shape `(3,)`: number of the shape, colour and direction.
    """
    (item,) = attributes["items"]
    found = {**item, "direction": attributes["direction"]}
    return np.array(
        [words.index(found[name]) for name, words in CLIP_ATTRIBUTES.items()], "int32"
    )


class ClipJudge(Judge):
    """Reads shape, colour and direction of motion of a clip.

    A convolutional network reads every frame alike: what is seen wherever it lies, by
    maxima over places, and where it lies. Shape and colour are told from the former,
    averaged over frames; the direction from the latter, frames in their order.

    Args:
        num_frames: int.
        resolution: int. Height and width of the frames.
        channels: int. Defaults to 3.
        seed: int. Of its weights and of the order of training. Defaults to 0.

    Example:

    ```python
    judge = keras_mdm.metrics.ClipJudge(8, 32)
    judge.fit(clips, labels)  # uint8 (clips, 8, 32, 32, 3), int (clips, 3)
    judge.accuracy(drawn, wanted)  # of all attributes pooled
    ```
    """

    def __init__(self, num_frames, resolution, channels=3, seed=0):
        self.num_classes = sum(_SIZES)
        inputs = keras.Input((num_frames, resolution, resolution, channels))
        self._prepare(inputs, *self._make(inputs, resolution, seed), seed)

    def _make(self, inputs, resolution, seed):
        layers, initializer = keras.layers, initializers(seed)
        num_frames = inputs.shape[1]

        def dense(x, width):
            return layers.Dense(width, "relu", kernel_initializer=next(initializer))(x)

        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        width = 32
        x = convolve(x, width, 1 if resolution <= 32 else 2, initializer)
        while x.shape[1] > 8:
            x = convolve(x, width, 2, initializer)
            width = min(2 * width, 96)
            x = convolve(x, width, 1, initializer)
        x = convolve(x, 96, 1, initializer)
        # By windows: on JAX the gradient of a plain maximum was not a number at times.
        seen = layers.Flatten()(layers.MaxPooling2D(x.shape[1])(x))
        place = dense(layers.Flatten()(convolve(x, 32, 2, initializer)), 64)
        seen, place = (
            ops.reshape(part, (-1, num_frames, part.shape[-1]))
            for part in (seen, place)
        )
        self._frames = keras.Model(inputs, layers.Concatenate()([seen, place]))
        seen = dense(layers.GlobalAveragePooling1D()(seen), 96)
        moved = dense(layers.Flatten()(place), 64)
        heads = [
            layers.Dense(size, kernel_initializer=next(initializer))(part)
            for size, part in zip(_SIZES, (seen, seen, moved), strict=True)
        ]
        features = layers.Concatenate()([seen, moved])
        return features, layers.Concatenate()(heads)

    def _loss(self):
        def loss(labels, logits):
            labels = ops.cast(labels, "int32")
            return sum(
                keras.losses.sparse_categorical_crossentropy(
                    labels[:, i], part, from_logits=True
                )
                for i, part in enumerate(ops.split(logits, _ends(), axis=-1))
            )

        return loss

    def _optimizer(self, steps):
        return keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, steps)
        )

    def classify(self, images):
        """Attributes that the judge sees, int array of shape `(clips, 3)`."""
        logits = np.split(self._predict(self._model, images), _ends(), axis=-1)
        return np.stack([part.argmax(axis=-1) for part in logits], axis=-1)

    def frame_features(self, images):
        """Features of every frame, float array of shape `(clips, frames, size)`."""
        return self._predict(self._frames, images) * self._scale


def _ends():
    """Where the logits of an attribute end and those of the next begin."""
    return np.cumsum(_SIZES[:-1]).tolist()
