"""Small networks that read drawn pictures, trained on the real ones on the spot.

`recipes/evaluate.py` asks them what they see in a picture, and takes their features for
the distances: `Judge` reads a class, `SceneJudge` the shapes of a scene. `ClipJudge`,
which reads a clip, is in `clip_judge`.
"""

import keras
import numpy as np

from keras_mdm.metrics.scenes import COLOURS, NUM_CELLS, SHAPES


class Judge:
    """Convolutional classifier of small pictures; the same seed gives the same judge.

    Args:
        resolution: int. Height and width of the pictures.
        channels: int.
        num_classes: int.
        seed: int. Of its weights and of the order of training. Defaults to 0.

    Example:

    ```python
    judge = keras_mdm.metrics.Judge(16, channels=1, num_classes=10)
    judge.fit(images, labels)  # uint8 (pictures, 16, 16, 1), int (pictures,)
    judge.accuracy(drawn, wanted)
    ```
    """

    def __init__(self, resolution, channels, num_classes, seed=0):
        self.num_classes = num_classes
        inputs = keras.Input((resolution, resolution, channels))
        self._prepare(inputs, *self._make(inputs, resolution, seed), seed)

    def _prepare(self, inputs, features, logits, seed):
        self._seed = seed
        self._scale = 1.0
        self._model = keras.Model(inputs, logits)
        self._features = keras.Model(inputs, features)

    def _make(self, inputs, resolution, seed):
        """Features and logits of the network."""
        layers, initializer = keras.layers, initializers(seed)
        x = inputs
        # Down to 4x4 by strides: whatever the resolution, seconds on two cores.
        width, first = 24, True
        while x.shape[1] > 4:
            x = layers.Conv2D(
                width,
                3,
                strides=1 if first and resolution <= 16 else 2,
                padding="same",
                activation="relu",
                kernel_initializer=next(initializer),
            )(x)
            width, first = min(2 * width, 96), False
        x = layers.Flatten()(x)
        features = layers.Dense(64, "relu", kernel_initializer=next(initializer))(x)
        logits = layers.Dense(self.num_classes, kernel_initializer=next(initializer))
        return features, logits(features)

    def _loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def _optimizer(self, steps):
        return keras.optimizers.Adam(2e-3)

    def _reach(self, resolution):
        """Pixels by which training pictures are shifted."""
        return max(1, resolution // 16)

    def fit(self, images, labels, epochs=15, batch_size=64, progress=False):
        """Trains on real pictures, each shifted a little.

        Args:
            images: uint8 array of shape `(pictures, height, width, channels)`.
            labels: int array of shape `(pictures,)`.
            epochs: int. Defaults to 15.
            batch_size: int. Defaults to 64.
            progress: bool. Whether a progress bar shows the epochs. Defaults to
                `False`.
        """
        rng = np.random.default_rng(self._seed)
        labels = np.asarray(labels)
        if len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                "`images` and `labels` must be as many, and at least one. "
                f"Received: {len(images)} images, {len(labels)} labels"
            )
        batch_size = min(batch_size, len(images))
        size = len(images) // batch_size * batch_size
        steps = epochs * size // batch_size
        self._model.compile(optimizer=self._optimizer(steps), loss=self._loss())
        reach = self._reach(images.shape[-2])
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
        """Classes that the judge sees, int array of shape `(pictures,)`."""
        return self._predict(self._model, images).argmax(axis=-1)

    def accuracy(self, images, labels):
        """Share of the pictures that are read as the class given."""
        return float(np.mean(self.classify(images) == np.asarray(labels)))

    def features(self, images):
        """Features for distances, float array of shape `(pictures, size)`."""
        return self._predict(self._features, images) * self._scale

    def _predict(self, model, images, batch_size=128):
        # The last batch is filled up, so that one shape is compiled.
        images = np.asarray(images)
        count = len(images)
        filled = -(-count // batch_size) * batch_size
        rows = np.minimum(np.arange(filled), count - 1)
        result = model.predict(_scaled(images[rows]), batch_size=batch_size, verbose=0)
        return result[:count]


class SceneJudge(Judge):
    """Reads which shapes of which colours lie at which places of a picture.

    Its labels and readings are cells, as `keras_mdm.metrics.scenes.to_cells` makes
    them: for each of the nine places a colour and a shape, or none.

    Args:
        resolution: int. Height and width of the pictures, at least 16.
        channels: int.
        seed: int. Defaults to 0.
    """

    def __init__(self, resolution, channels=3, seed=0):
        super().__init__(resolution, channels, len(COLOURS) + len(SHAPES) + 2, seed)

    def _make(self, inputs, resolution, seed):
        layers, initializer = keras.layers, initializers(seed)
        x = convolve(inputs, 24, 1 if resolution <= 32 else 2, initializer)
        width = 48
        while x.shape[1] > 8:
            x = convolve(x, width, 2, initializer)
            width = min(2 * width, 96)
        # Then every point has seen nearly all of the picture.
        for _ in range(3):
            x = convolve(x, 96, 1, initializer)
        # A place gathers points by weights of its own, then all places are read alike:
        # a colour and a shape never seen at a place in training are read there too.
        x = layers.Reshape((x.shape[1] * x.shape[2], 96))(x)
        x = layers.Permute((2, 1))(x)
        maps = 4
        x = layers.Dense(maps * NUM_CELLS, kernel_initializer=next(initializer))(x)
        x = layers.Permute((2, 1))(x)
        x = layers.Reshape((NUM_CELLS, maps * 96))(x)
        x = layers.Dense(128, "relu", kernel_initializer=next(initializer))(x)
        logits = layers.Dense(self.num_classes, kernel_initializer=next(initializer))
        return layers.GlobalAveragePooling1D()(x), logits(x)

    def _loss(self):
        colours = len(COLOURS) + 1

        def loss(cells, logits):
            cells = keras.ops.cast(cells, "int32")
            parts = (logits[..., :colours], logits[..., colours:])
            losses = [
                keras.losses.sparse_categorical_crossentropy(
                    cells[..., i], part, from_logits=True
                )
                for i, part in enumerate(parts)
            ]
            return sum(losses)

        return loss

    def _optimizer(self, steps):
        return keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, steps)
        )

    def _reach(self, resolution):
        # More would move a shape to the next place.
        return resolution // 64

    def classify(self, images):
        """Cells that the judge sees, int array of shape `(pictures, 9, 2)`."""
        logits = self._predict(self._model, images)
        colours = len(COLOURS) + 1
        parts = logits[..., :colours], logits[..., colours:]
        return np.stack([part.argmax(axis=-1) for part in parts], axis=-1)


def convolve(x, width, strides, initializer):
    """3x3 convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(
        width,
        3,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=next(initializer),
    )(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def initializers(seed):
    """Yields an initialiser for each layer in turn."""
    number = 0
    while True:
        yield keras.initializers.GlorotUniform(seed=seed * 100 + number)
        number += 1


def _scaled(images):
    return images.astype("float32") / 127.5 - 1.0


def _shifted(images, rng, reach):
    """Shifts each picture or clip by up to `reach` a side, repeating its edge."""
    height, width = images.shape[-3:-1]
    leading = ((0, 0),) * (images.ndim - 3)
    padding = (*leading, (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, padding, mode="edge")
    shifts = rng.integers(0, 2 * reach + 1, size=(len(images), 2))
    return np.stack(
        [
            picture[..., top : top + height, left : left + width, :]
            for picture, (top, left) in zip(padded, shifts, strict=True)
        ]
    )
