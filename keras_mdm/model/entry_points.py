"""Where data enters an `MDM`: `fit`, `evaluate` and single steps, after a look at it.

Each checks what it is given and encodes captions (`batches`, `streams`), then hands
over to Keras. `MDM` derives from `EntryPoints`.
"""

import contextlib

import keras

from keras_mdm import backend
from keras_mdm.conditioning import TextConditioner
from keras_mdm.diffusion import losses
from keras_mdm.model import batches, interrupts, streams
from keras_mdm.model.batches import pictures_of
from keras_mdm.model.turns import in_turn


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
            KeyboardInterrupt: after Ctrl-C, when the step has ended. Whatever ends
                `fit`, the model keeps the weights of its last step.
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
        kwargs["callbacks"] = _with_check(kwargs.get("callbacks"))
        with self._steps("fit", trains=True):
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
        self._assert_compile_called("evaluate")
        _check_no_targets(y)
        if not kwargs.get("_use_cached_eval_dataset"):
            x = streams.prepared(x, self.batch_spec)
        kwargs["callbacks"] = _with_check(kwargs.get("callbacks"))
        with self._steps("evaluate"):
            self._evaluated_samples.assign(0)
            return super().evaluate(x, batch_size=batch_size, **kwargs)

    def train_on_batch(self, x, y=None, **kwargs):
        """One training step on one batch; see `keras.Model.train_on_batch`."""
        self._assert_compile_called("train_on_batch")
        _check_no_targets(y)
        x = self.batch_spec.prepare(x, warn=True)
        with self._steps("train_on_batch"):
            return super().train_on_batch(x, **kwargs)

    def test_on_batch(self, x, y=None, **kwargs):
        """Loss of one batch on fixed noise; see `keras.Model.test_on_batch`."""
        self._assert_compile_called("test_on_batch")
        _check_no_targets(y)
        x = self.batch_spec.prepare(x, warn=True)
        with self._steps("test_on_batch"):
            self._evaluated_samples.assign(0)
            return super().test_on_batch(x, **kwargs)

    def predict(self, *args, **kwargs):
        """Not for this model, which draws pictures with `generate`."""
        raise NotImplementedError(
            "`predict` is not for diffusion models: one call of the network draws no "
            "picture. Draw with `mdm.generate(...)`, or call the denoiser itself, "
            "`mdm(inputs)`."
        )

    predict_on_batch = predict

    save = in_turn(keras.Model.save)
    save_weights = in_turn(keras.Model.save_weights)
    get_weights = in_turn(keras.Model.get_weights)
    set_weights = in_turn(keras.Model.set_weights)

    @contextlib.contextmanager
    def _steps(self, name, trains=False):
        """Within it steps run: no signal and no other thread comes between, and the
        variables have the newest values afterwards, whatever happens."""
        with self._turns.taken(name, trains), interrupts.held():
            self.sync_state()
            try:
                yield
            except BaseException:
                self.reattach_state()
                raise

    def make_train_function(self, force=False):
        """Compiles the training step; Keras calls it."""
        with backend.with_compiler_options():
            super().make_train_function(force)

    def make_test_function(self, force=False):
        """Compiles the step of `evaluate`; Keras calls it."""
        with backend.with_compiler_options():
            super().make_test_function(force)


def _with_check(callbacks):
    """Callbacks of the user, then that which stops at an interrupt."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        known = [type(callback) for callback in callbacks.callbacks]
        if interrupts.StopAtInterrupt not in known:
            callbacks.append(interrupts.StopAtInterrupt())
        return callbacks
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    return [*(callbacks or ()), interrupts.StopAtInterrupt()]


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
