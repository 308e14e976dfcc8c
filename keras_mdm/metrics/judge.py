"""Small networks that read generated images, trained on real ones on the spot.

`recipes/evaluate.py` asks them what they see, and takes their features for the
distances: `Judge` reads a class, `SceneJudge` the shapes of a scene, `ClipJudge` what
moves in a clip.
"""

import itertools

import keras
import numpy as np
from keras import ops

from keras_mdm import backend
from keras_mdm.metrics.scenes import CLIP_ATTRIBUTES, COLOURS, NUM_CELLS, SHAPES


class Judge:
    """Convolutional classifier of small images; the same seed gives the same judge.

    Args:
        resolution: int. Height and width of the images.
        channels: int.
        num_classes: int.
        seed: int. Of its weights and of the order of training. Defaults to 0.

    Example:

    ```python
    judge = keras_mdm.metrics.Judge(16, channels=1, num_classes=10)
    judge.fit(images, labels)  # uint8 (images, 16, 16, 1), int (images,)
    judge.accuracy(generated, wanted)
    ```
    """

    _decays = False  # whether the learning rate falls along a cosine

    def __init__(self, resolution, channels, num_classes, seed=0):
        shape = (resolution, resolution, channels)
        self._prepare(keras.Input(shape), (num_classes,), seed)

    def _prepare(self, inputs, heads, seed):
        """Builds the networks; `heads` has the number of answers to each question."""
        self._heads = heads
        self._seed = seed
        self._scale = 1.0
        features, logits = self._make(inputs, _seeded(seed))
        self._model = keras.Model(inputs, logits)
        self._features = keras.Model(inputs, features)

    def _make(self, inputs, seeded):
        """Features and logits of the network, with layers that `seeded` makes."""
        x, width, resolution = inputs, 24, inputs.shape[1]
        # Down to 4x4 by strides: whatever the resolution, seconds on two cores.
        while x.shape[1] > 4:
            strides = 1 if x is inputs and resolution <= 16 else 2
            conv = seeded(
                keras.layers.Conv2D, width, 3, strides, "same", activation="relu"
            )
            x, width = conv(x), min(2 * width, 96)
        x = keras.layers.Flatten()(x)
        features = seeded(keras.layers.Dense, 64, "relu")(x)
        return features, seeded(keras.layers.Dense, *self._heads)(features)

    def _shift(self, resolution):
        """Pixels by which training images are shifted."""
        return max(1, resolution // 16)

    def _split(self, logits):
        """Logits of each question."""
        ends = itertools.accumulate(self._heads, initial=0)
        return [logits[..., start:end] for start, end in itertools.pairwise(ends)]

    def _loss(self, labels, logits):
        labels = ops.cast(labels, "int32")
        return sum(
            keras.losses.sparse_categorical_crossentropy(
                labels[..., i], part, from_logits=True
            )
            for i, part in enumerate(self._split(logits))
        )

    def fit(self, images, labels, epochs=15, batch_size=64, progress=False):
        """Trains on real images, each shifted a little.

        Args:
            images: uint8 array of shape `(images, height, width, channels)`.
            labels: int array of what `classify` shall return.
            epochs: int. Defaults to 15.
            batch_size: int. Defaults to 64.
            progress: bool. Whether a progress bar shows the epochs. Defaults to
                `False`.
        """
        rng = np.random.default_rng(self._seed)
        labels = np.asarray(labels)
        devices = backend.rows_per_call()
        if len(images) != len(labels) or len(images) < devices:
            raise ValueError(
                "`images` and `labels` must be as many, and at least one for each "
                f"device that shares a batch, {devices}. "
                f"Received: {len(images)} images, {len(labels)} labels"
            )
        if len(self._heads) == 1:
            labels = labels[:, None]
        batch_size = max(1, min(batch_size, len(images)) // devices) * devices
        size = len(images) // batch_size * batch_size
        rate = 2e-3
        if self._decays:
            steps = epochs * size // batch_size
            rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
        self._model.compile(keras.optimizers.Adam(rate), self._loss)
        reach = self._shift(images.shape[-2])
        bar = keras.utils.Progbar(epochs, unit_name="epoch") if progress else None
        for _ in range(epochs):
            order = rng.permutation(len(images))[:size]
            self._model.fit(
                _scaled(_shifted(images[order], rng, reach)),
                labels[order],
                batch_size=batch_size,
                shuffle=False,
                verbose=0,
            )
            if bar is not None:
                bar.add(1)
        # Features of about unit size, whatever the training made of them.
        raw = self._predict(self._features, images)
        self._scale = 1.0 / max(float(np.sqrt(np.mean(np.square(raw)))), 1e-6)

    def classify(self, images):
        """What the judge sees: int array `(images,)`, or `(images, ..., questions)`."""
        logits = self._split(self._predict(self._model, images))
        seen = np.stack([part.argmax(axis=-1) for part in logits], axis=-1)
        return seen[..., 0] if len(logits) == 1 else seen

    def accuracy(self, images, labels):
        """Fraction of the answers that are as given."""
        return float(np.mean(self.classify(images) == np.asarray(labels)))

    def features(self, images):
        """Features for distances, float array of shape `(images, size)`."""
        return self._predict(self._features, images) * self._scale

    def _predict(self, model, images, batch_size=128):
        # The last batch is filled up, so that one shape is compiled.
        images = np.asarray(images)
        count = len(images)
        devices = backend.rows_per_call()
        batch_size = -(-batch_size // devices) * devices
        filled = -(-count // batch_size) * batch_size
        rows = np.minimum(np.arange(filled), count - 1)
        result = model.predict(_scaled(images[rows]), batch_size=batch_size, verbose=0)
        return result[:count]


class SceneJudge(Judge):
    """Reads which shapes of which colours lie at which places of an image.

    Its labels and readings are cells, as `keras_mdm.metrics.scenes.to_cells` makes
    them: for each of the nine places a colour and a shape, or none.

    Args:
        resolution: int. Height and width of the images, at least 16.
        channels: int.
        seed: int. Defaults to 0.
    """

    _decays = True

    def __init__(self, resolution, channels=3, seed=0):
        inputs = keras.Input((resolution, resolution, channels))
        self._prepare(inputs, (len(COLOURS) + 1, len(SHAPES) + 1), seed)

    def _make(self, inputs, seeded):
        layers = keras.layers
        x = _convolve(inputs, 24, 1 if inputs.shape[1] <= 32 else 2, seeded)
        width = 48
        while x.shape[1] > 8:
            x = _convolve(x, width, 2, seeded)
            width = min(2 * width, 96)
        # Then every point has seen nearly all of the image.
        for _ in range(3):
            x = _convolve(x, 96, 1, seeded)
        # A place gathers points by weights of its own, then all places are read alike:
        # a colour and a shape never seen at a place in training are read there too.
        x = layers.Reshape((x.shape[1] * x.shape[2], 96))(x)
        x = layers.Permute((2, 1))(x)
        maps = 4
        x = layers.Permute((2, 1))(seeded(layers.Dense, maps * NUM_CELLS)(x))
        x = layers.Reshape((NUM_CELLS, maps * 96))(x)
        x = seeded(layers.Dense, 128, "relu")(x)
        logits = seeded(layers.Dense, sum(self._heads))(x)
        return layers.GlobalAveragePooling1D()(x), logits

    def _shift(self, resolution):
        # More would move a shape to the next place.
        return resolution // 64


class ClipJudge(Judge):
    """Reads shape, colour and direction of motion of a clip, as `to_label` has them.

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
    judge.accuracy(generated, wanted)  # of all attributes pooled
    ```
    """

    _decays = True

    def __init__(self, num_frames, resolution, channels=3, seed=0):
        inputs = keras.Input((num_frames, resolution, resolution, channels))
        self._prepare(inputs, tuple(map(len, CLIP_ATTRIBUTES.values())), seed)

    def _make(self, inputs, seeded):
        layers, num_frames = keras.layers, inputs.shape[1]
        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        width = 32
        x = _convolve(x, width, 1 if inputs.shape[2] <= 32 else 2, seeded)
        while x.shape[1] > 8:
            x = _convolve(x, width, 2, seeded)
            width = min(2 * width, 96)
            x = _convolve(x, width, 1, seeded)
        x = _convolve(x, 96, 1, seeded)
        # By windows: on JAX the gradient of a plain maximum was not a number at times.
        seen = layers.Flatten()(layers.MaxPooling2D(x.shape[1])(x))
        place = layers.Flatten()(_convolve(x, 32, 2, seeded))
        place = seeded(layers.Dense, 64, "relu")(place)
        seen, place = (
            ops.reshape(part, (-1, num_frames, part.shape[-1]))
            for part in (seen, place)
        )
        self._frames = keras.Model(inputs, layers.Concatenate()([seen, place]))
        seen = layers.GlobalAveragePooling1D()(seen)
        seen = seeded(layers.Dense, 96, "relu")(seen)
        moved = seeded(layers.Dense, 64, "relu")(layers.Flatten()(place))
        logits = [
            seeded(layers.Dense, size)(part)
            for size, part in zip(self._heads, (seen, seen, moved), strict=True)
        ]
        features = layers.Concatenate()([seen, moved])
        return features, layers.Concatenate()(logits)

    def frame_features(self, images):
        """Features of every frame, float array of shape `(clips, frames, size)`."""
        return self._predict(self._frames, images) * self._scale


def _seeded(seed):
    """A function that makes layers, each with initial weights of its own."""
    seeds = itertools.count(seed * 100)

    def make(layer, *args, **kwargs):
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return layer(*args, kernel_initializer=initializer, **kwargs)

    return make


def _convolve(x, width, strides, seeded):
    """3x3 convolution, batch normalization and ReLU."""
    x = seeded(keras.layers.Conv2D, width, 3, strides, "same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def _scaled(images):
    return images.astype("float32") / 127.5 - 1.0


def _shifted(images, rng, reach):
    """Shifts each image or clip by up to `reach` a side, repeating its edge."""
    height, width = images.shape[-3:-1]
    leading = ((0, 0),) * (images.ndim - 3)
    padding = (*leading, (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, padding, mode="edge")
    shifts = rng.integers(0, 2 * reach + 1, size=(len(images), 2))
    return np.stack(
        [
            image[..., top : top + height, left : left + width, :]
            for image, (top, left) in zip(padded, shifts, strict=True)
        ]
    )
