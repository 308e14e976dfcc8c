"""Where data enters an `MDM`: `fit`, `evaluate` and single steps, after a look at it.

Each checks what it is given and encodes captions (`batches`, `streams`), then hands
over to Keras. `MDM` derives from `EntryPoints`.
"""

import contextlib

from keras_mdm import backend
from keras_mdm.conditioning import TextConditioner
from keras_mdm.diffusion import losses
from keras_mdm.model import batches, streams
from keras_mdm.model.batches import pictures_of
from keras_mdm.model.finite import check_finite


class EntryPoints:
    """The methods of `keras.Model` that take data, for `MDM`."""

    @property
    def batch_spec(self):
        """What batches of `fit` and `evaluate` must look like; see `BatchSpec`."""
        network = self.active_network
        conditioner = network.conditioner
        return batches.BatchSpec(
            resolution=network.level,
            channels=network.image_channels,
            features=tuple(getattr(conditioner, "feature_names", ())),
            num_classes=getattr(conditioner, "num_classes", None),
            text=conditioner if isinstance(conditioner, TextConditioner) else None,
            optional=tuple(
                {name for doll in network.dolls for name in doll.micro_conditioning}
            ),
        )

    @property
    def text_encoder(self):
        """Encoder of texts for a model on embeddings; see `TextEmbeddings.encoder`.

        It is no part of the model: it is not trained, not saved, and must be set again
        after loading. `None` if there is none.
        """
        return getattr(self.network.conditioner, "encoder", None)

    @text_encoder.setter
    def text_encoder(self, encoder):
        conditioner = self.network.conditioner
        if not hasattr(conditioner, "encoder"):
            raise ValueError(
                "`text_encoder` is for models whose conditioner is `TextEmbeddings`. "
                f"This one has {type(conditioner).__name__}."
            )
        conditioner.encoder = encoder

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """Trains the model; see `keras.Model.fit`.

        Args:
            x: Data set of batch dicts `{"images": ..., "labels": ...}`: a grain or
                tf.data data set, a PyDataset, a generator, or a dict of arrays.
                Pictures have the size `mdm.resolution`; where that has frames, batches
                have `videos` instead. A model on text takes
                `captions`, strings that are encoded on the way to the step.
            y: Must be `None`: targets are made here.
            batch_size: int. Only for a dict of arrays.
            **kwargs: Arguments of `keras.Model.fit`.

        Returns:
            A `History` with `loss` and `loss_{resolution}` for each resolution.

        Raises:
            ValueError: if a batch does not fit the model, before the first step.
        """
        self._assert_compile_called("fit")
        _check_no_targets(y)
        x = streams.prepared(x, self.batch_spec)
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = _prepared_validation(
                kwargs["validation_data"], self.batch_spec
            )
        if isinstance(x, dict):
            size = len(pictures_of(x))
            batch_size = min(batch_size or 32, size)
            if self._mixed_shares is not None:
                losses.mixed_batch_sizes(self._mixed_shares, batch_size)
            x = streams.ArrayBatches(x, batch_size, kwargs.get("shuffle", True))
            # Keras would mix the batches even of data that are not to be shuffled.
            kwargs["shuffle"] = False
            x = backend.with_known_shapes(x, x[0][0])
            batch_size = None
        with self._average_noted():
            return super().fit(x, batch_size=batch_size, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """Loss of the averaged weights on fixed noise and timesteps.

        They depend on a sample's place in the data set alone, so two evaluations of
        one model agree; see `keras.Model.evaluate`.

        Args:
            x: Data as for `fit`.
            y: Must be `None`.
            batch_size: int. Only for a dict of arrays.
            **kwargs: Arguments of `keras.Model.evaluate`.

        Returns:
            Loss, then the loss of each resolution; with `return_dict=True` a dict.
        """
        _check_no_targets(y)
        if not kwargs.get("_use_cached_eval_dataset"):
            x = streams.prepared(x, self.batch_spec)
        self._evaluated_samples.assign(0)
        with self._average_noted():
            return super().evaluate(x, batch_size=batch_size, **kwargs)

    def train_on_batch(self, x, y=None, **kwargs):
        """One training step on one batch; see `keras.Model.train_on_batch`."""
        self._assert_compile_called("train_on_batch")
        _check_no_targets(y)
        x = self.batch_spec.prepare(x, warn=True)
        with self._average_noted():
            return super().train_on_batch(x, **kwargs)

    def test_on_batch(self, x, y=None, **kwargs):
        """Loss of one batch on fixed noise; see `keras.Model.test_on_batch`."""
        _check_no_targets(y)
        x = self.batch_spec.prepare(x, warn=True)
        self._evaluated_samples.assign(0)
        with self._average_noted():
            return super().test_on_batch(x, **kwargs)

    @contextlib.contextmanager
    def _average_noted(self):
        """Tells weights that are given by hand before or after it from training."""
        if self.ema is None:
            yield
            return
        self.ema.follow()
        try:
            yield
        except BaseException:
            # On JAX an exception within a step may have taken the weights with it.
            with contextlib.suppress(TypeError):
                self.ema.note()
            raise
        self.ema.note()

    def save(self, filepath, *args, **kwargs):
        """Saves the whole model, unless a weight is NaN; see `keras.Model.save`."""
        self._check_weights(filepath)
        return super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        """Saves all weights, unless one is NaN; see `keras.Model.save_weights`."""
        self._check_weights(filepath)
        return super().save_weights(filepath, *args, **kwargs)

    def _check_weights(self, filepath):
        if self.ema is not None:
            self.ema.follow()
        check_finite(self.weights, filepath)

    def make_train_function(self, force=False):
        """Compiles the training step; Keras calls it."""
        with backend.with_compiler_options():
            super().make_train_function(force)

    def make_test_function(self, force=False):
        """Compiles the step of `evaluate`; Keras calls it."""
        with backend.with_compiler_options():
            super().make_test_function(force)


def _check_no_targets(y):
    if y is not None:
        raise ValueError(
            "`y` must be None: MDM makes its own targets from the pictures in `x`. "
            f"Received: y of type {type(y).__name__}"
        )


def _prepared_validation(data, spec):
    if isinstance(data, tuple):
        return (streams.prepared(data[0], spec), *data[1:])
    return streams.prepared(data, spec)
