"""Where data enters an `MDM`: `fit`, `evaluate` and single steps, after a look at it.

Each checks what it is given and encodes captions (`fit_arguments`, `streams`,
`batches`), then hands over to Keras. `MDM` derives from `EntryPoints`.
"""

import contextlib
import dataclasses

import keras

from keras_mdm import backend
from keras_mdm.conditioning import TextConditioner
from keras_mdm.model import batches, fit_arguments, interrupts
from keras_mdm.model.finite import check_finite
from keras_mdm.model.turns import in_turn, reading


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
            parts=backend.parts_of_a_batch(),
            optional=tuple(
                {name for doll in network.dolls for name in doll.micro_conditioning}
            ),
        )

    @property
    def _training_spec(self):
        """`batch_spec` of batches that a training step divides among resolutions."""
        return dataclasses.replace(self.batch_spec, mixed_shares=self._mixed_shares)

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

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains the model; see `keras.Model.fit`.

        Every batch is checked before a step sees it. The error of a wrong one has its
        number, counted from 0; the weights are then those of the batches before it.

        Args:
            x: Data set of batch dicts `{"images": ..., "labels": ...}`: a grain or
                tf.data data set, a PyDataset, a torch DataLoader, a generator, a list,
                or a dict of arrays.
                Pictures have the size `mdm.resolution`; where that has frames, batches
                have `videos` instead. A model on text takes
                `captions`, strings that are encoded on the way to the step. A data set
                may yield `(batch, None, sample_weight)`.
            y: Must be `None`: targets are made here.
            batch_size: int. Only for a dict of arrays, 32 by default. Entries that are
                left over, fewer than a batch, take no part in an epoch.
            epochs, verbose, callbacks: As in Keras.
            validation_split: float. Only for a dict of arrays: share of the last
                entries that are validated on.
            validation_data: Data as `x`, or a tuple `(data, None, sample_weight)`.
            shuffle: bool. Whether arrays, and the batches of a PyDataset, have another
                order in each epoch.
            class_weight: Must be `None`; see `sample_weight`.
            sample_weight: Array of shape `(entries,)`: weight of each entry's loss.
                Only for a dict of arrays.
            initial_epoch: As in Keras.
            steps_per_epoch: int. Needed for data without end.
            validation_steps, validation_freq: As in Keras.
            validation_batch_size: int. Only for arrays. Defaults to `batch_size`.

        Returns:
            A `History` with `loss` and `loss_{resolution}` for each resolution.

        Raises:
            ValueError: if an argument or a batch does not fit the model.
            KeyboardInterrupt: after Ctrl-C, when the step has ended. Whatever ends
                `fit`, the model keeps the weights of its last step.
        """
        self._assert_compile_called("fit")
        backend.refuse_replicas(self)
        fit_arguments.check_no_class_weight(class_weight)
        fit_arguments.check_fit(
            epochs,
            initial_epoch,
            shuffle,
            validation_freq,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        x, sample_weight = fit_arguments.unpack("x", x, y, sample_weight)
        spec = self._training_spec
        if validation_split and validation_data is None:
            x, sample_weight, validation_data = fit_arguments.split(
                x, sample_weight, validation_split, spec
            )
        passes = epochs - initial_epoch
        if validation_data is not None:
            data, weights = fit_arguments.unpack("validation_data", validation_data)
            if isinstance(data, dict):
                validation_batch_size = validation_batch_size or batch_size
            if isinstance(validation_freq, int):
                validations = passes // validation_freq
            else:
                validations = len(validation_freq)
            validation_data = fit_arguments.prepare(
                data,
                self.batch_spec,
                "validation data",
                weights,
                validation_batch_size,
                validation_steps,
                validations,
                prefix="validation_",
            )
        x = fit_arguments.prepare(
            x,
            spec,
            "training data",
            sample_weight,
            batch_size,
            steps_per_epoch,
            passes,
            shuffle=shuffle,
            drop_remainder=True,
        )
        with self._steps("fit", trains=True):
            return super().fit(
                x,
                epochs=epochs,
                verbose=verbose,
                callbacks=_with_check(callbacks),
                validation_data=validation_data,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """Loss of the averaged weights on fixed noise and timesteps.

        They depend on a sample's place in the data set alone, so two evaluations of
        one model agree, whatever the size of their batches; see
        `keras.Model.evaluate`.

        Args:
            x: Data as for `fit`; of arrays, every entry takes part.
            y: Must be `None`.
            batch_size: int. Only for a dict of arrays.
            verbose: As in Keras.
            sample_weight: Array of shape `(entries,)`. Only for a dict of arrays.
            steps: int. Needed for data without end.
            callbacks, return_dict: As in Keras.

        Returns:
            Loss, then the loss of each resolution; with `return_dict=True` a dict.
        """
        self._assert_compile_called("evaluate")
        backend.refuse_replicas(self)
        # `fit` has prepared its validation data.
        if not kwargs.get("_use_cached_eval_dataset"):
            fit_arguments.check_counts(batch_size=batch_size, steps=steps)
            x, sample_weight = fit_arguments.unpack("x", x, y, sample_weight)
            x = fit_arguments.prepare(
                x, self.batch_spec, "evaluation data", sample_weight, batch_size, steps
            )
        with self._steps("evaluate"):
            self._evaluated_samples.assign(0)
            return super().evaluate(
                x,
                verbose=verbose,
                steps=steps,
                callbacks=_with_check(callbacks),
                return_dict=return_dict,
                **kwargs,
            )

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False
    ):
        """One training step on one batch; see `keras.Model.train_on_batch`."""
        self._assert_compile_called("train_on_batch")
        backend.refuse_replicas(self)
        fit_arguments.check_no_class_weight(class_weight)
        data = fit_arguments.unpack("x", x, y, sample_weight)
        spec = self._training_spec
        x, _, weight = spec.prepare_element((data[0], None, data[1]), warn=True)
        spec.check_size(len(batches.pictures_of(x)))
        with self._steps("train_on_batch"):
            return super().train_on_batch(
                x, sample_weight=weight, return_dict=return_dict
            )

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss of one batch on fixed noise; see `keras.Model.test_on_batch`."""
        self._assert_compile_called("test_on_batch")
        backend.refuse_replicas(self)
        data = fit_arguments.unpack("x", x, y, sample_weight)
        spec = self.batch_spec
        x, _, weight = spec.prepare_element((data[0], None, data[1]), warn=True)
        spec.check_size(len(batches.pictures_of(x)))
        with self._steps("test_on_batch"):
            self._evaluated_samples.assign(0)
            return super().test_on_batch(
                x, sample_weight=weight, return_dict=return_dict
            )

    def predict(self, *args, **kwargs):
        """Not for this model, which draws pictures with `generate`."""
        raise NotImplementedError(
            "`predict` is not for diffusion models: one call of the network draws no "
            "picture. Draw with `mdm.generate(...)`, or call the denoiser itself, "
            "`mdm(inputs)`."
        )

    predict_on_batch = predict

    get_weights = reading(keras.Model.get_weights)
    set_weights = in_turn(keras.Model.set_weights)

    @reading
    def save(self, filepath, *args, **kwargs):
        """Saves the whole model, unless a weight is NaN; see `keras.Model.save`."""
        self._check_weights(filepath)
        return super().save(filepath, *args, **kwargs)

    @reading
    def save_weights(self, filepath, *args, **kwargs):
        """Saves all weights, unless one is NaN; see `keras.Model.save_weights`."""
        self._check_weights(filepath)
        return super().save_weights(filepath, *args, **kwargs)

    @contextlib.contextmanager
    def _steps(self, name, trains=False):
        """Within it steps run: no signal and no other thread comes between, and the
        variables have the newest values afterwards, whatever happens.

        The average tells weights that are set by hand before or after from training.
        """
        with self._turns.taken(name, trains), interrupts.held():
            self.sync_state()
            if self.ema is not None:
                self.ema.follow()
            try:
                yield
            except BaseException:
                self.reattach_state()
                # Where a device has failed, the weights may be lost.
                with contextlib.suppress(TypeError, RuntimeError):
                    self._note_average()
                raise
            self._note_average()

    def _note_average(self):
        if self.ema is not None:
            self.ema.note()

    def _check_weights(self, filepath):
        if self.ema is not None:
            self.ema.follow()
        check_finite(self.weights, filepath)

    def make_train_function(self, force=False):
        """Compiles the training step; Keras calls it."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force=True)
        self.train_function = backend.step_of_each_shape(
            self.train_function,
            lambda: self._make_function(self.train_step),
            self.steps_per_execution,
        )

    def make_test_function(self, force=False):
        """Compiles the step of `evaluate`; Keras calls it."""
        if self.test_function is not None and not force:
            return
        super().make_test_function(force=True)
        self.test_function = backend.step_of_each_shape(
            self.test_function,
            lambda: self._make_function(self.test_step),
            self.steps_per_execution,
        )


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
