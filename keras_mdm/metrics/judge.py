"""A small classifier that reads drawn pictures, trained on the real ones on the spot.

`recipes/evaluate.py` asks it which class it sees in a picture, and takes its features
for the distances.
"""

import keras
import numpy as np


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
        self._seed = seed
        self._scale = 1.0
        layers = keras.layers

        def initializer(number):
            return keras.initializers.GlorotUniform(seed=seed * 100 + number)

        inputs = keras.Input((resolution, resolution, channels))
        x = inputs
        # Down to 4x4 by strides: whatever the resolution, seconds on two cores.
        width, number = 24, 0
        while x.shape[1] > 4:
            x = layers.Conv2D(
                width,
                3,
                strides=2 if number or resolution > 16 else 1,
                padding="same",
                activation="relu",
                kernel_initializer=initializer(number),
            )(x)
            width, number = min(2 * width, 96), number + 1
        x = layers.Flatten()(x)
        dense = layers.Dense(64, "relu", kernel_initializer=initializer(number))
        features = dense(x)
        logits = layers.Dense(num_classes, kernel_initializer=initializer(number + 1))(
            features
        )
        self._model = keras.Model(inputs, logits)
        self._features = keras.Model(inputs, features)
        self._model.compile(
            optimizer=keras.optimizers.Adam(2e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    def fit(self, images, labels, epochs=15, batch_size=64):
        """Trains on real pictures, each shifted by up to a sixteenth of its side.

        Args:
            images: uint8 array of shape `(pictures, height, width, channels)`.
            labels: int array of shape `(pictures,)`.
            epochs: int. Defaults to 15.
            batch_size: int. Defaults to 64.
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
        for _ in range(epochs):
            order = rng.permutation(len(images))[:size]
            self._model.fit(
                _scaled(_shifted(images[order], rng)),
                labels[order],
                batch_size=batch_size,
                shuffle=False,
                verbose=0,
            )
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
        """Features for distances, float array of shape `(pictures, 64)`."""
        return self._predict(self._features, images) * self._scale

    def _predict(self, model, images, batch_size=128):
        # The last batch is filled up, so that one shape is compiled.
        images = np.asarray(images)
        count = len(images)
        filled = -(-count // batch_size) * batch_size
        rows = np.minimum(np.arange(filled), count - 1)
        result = model.predict(_scaled(images[rows]), batch_size=batch_size, verbose=0)
        return result[:count]


def _scaled(images):
    return images.astype("float32") / 127.5 - 1.0


def _shifted(images, rng):
    """Shifts each picture up, down and sideways, repeating its edge."""
    height, width = images.shape[1:3]
    reach = max(1, height // 16)
    padding = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, padding, mode="edge")
    shifts = rng.integers(0, 2 * reach + 1, size=(len(images), 2))
    return np.stack(
        [
            picture[top : top + height, left : left + width]
            for picture, (top, left) in zip(padded, shifts, strict=True)
        ]
    )
