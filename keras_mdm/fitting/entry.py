"""Where data enters an `MDM`: `fit`, `evaluate` and single steps, after a look at it.

Each checks its arguments and every batch (`arguments`, `streams`, `batches`), then
hands over to Keras. Bound to `MDM` as its methods.
"""

import contextlib

import keras

from keras_mdm import backend
from keras_mdm.checks import check_flags, check_whole
from keras_mdm.fitting import arguments, interrupts, step_callbacks


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
            or a dict of arrays. Pictures have the size `mdm.resolution`; where that
            has frames, batches have `videos` instead. A model on text takes
            `captions`, strings that are encoded on the way to the step. A data set
            may yield `(batch, None, sample_weight)`.
        y: Must be `None`: targets are made here.
        batch_size: int. Only for a dict of arrays, 32 by default. Entries that are
            left over, fewer than a batch, take no part in an epoch.
        validation_split: float. Only for a dict of arrays: fraction of the last
            entries that are validated on.
        validation_data: Data as `x`, or a tuple `(data, None, sample_weight)`.
        shuffle: bool. Whether arrays, and the batches of a PyDataset, have another
            order in each epoch.
        class_weight: Must be `None`; see `sample_weight`.
        sample_weight: Array of shape `(entries,)`: weight of each entry's loss.
            Only for a dict of arrays.
        steps_per_epoch: int. Needed for data without end.
        validation_batch_size: int. Only for arrays. Defaults to `batch_size`.
        epochs, verbose, callbacks, initial_epoch, validation_steps,
            validation_freq: As in Keras.

    Returns:
        A `History` with `loss` and `loss_{resolution}` for each resolution.

    Raises:
        ValueError: if an argument or a batch does not fit the model.
        KeyboardInterrupt: after Ctrl-C, when the step has ended. Whatever ends
            `fit`, the model keeps the weights of its last step.
    """
    _check_compiled(self, "fit", trains=True)
    arguments.check_no_class_weight(class_weight)
    check_whole(0, epochs=epochs, initial_epoch=initial_epoch)
    arguments.check_counts(
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        validation_steps=validation_steps,
        validation_batch_size=validation_batch_size,
    )
    check_flags(shuffle=shuffle)
    passes = max(epochs - initial_epoch, 0)
    if isinstance(validation_freq, list | tuple):
        validations = len(validation_freq)
    else:
        check_whole(validation_freq=validation_freq)
        validations = passes // validation_freq
    x, sample_weight = arguments.unpack("x", x, y, sample_weight)
    if validation_split and validation_data is None:
        x, sample_weight, validation_data = arguments.split(
            x, sample_weight, validation_split, self.batch_spec
        )
    if validation_data is not None:
        validation, weights = arguments.unpack("validation_data", validation_data)
        if validation_batch_size is None and isinstance(validation, dict):
            validation_batch_size = batch_size
        validation_data = arguments.prepare(
            validation,
            self.batch_spec,
            "validation data",
            weights,
            validation_batch_size,
            validation_steps,
            validations,
        )
    x = arguments.prepare(
        x,
        self.batch_spec.divided(self.mixed_fractions),
        "training data",
        sample_weight,
        batch_size,
        steps_per_epoch,
        passes,
        shuffle,
    )
    listed = step_callbacks.listed(
        callbacks,
        x,
        model=self,
        epochs=epochs,
        steps=steps_per_epoch or x.num_batches,
        verbose=verbose,
    )
    with _steps(self, "fit", trains=True), listed as callbacks:
        return keras.Model.fit(
            self,
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
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
        sample_weight: Array of shape `(entries,)`. Only for a dict of arrays.
        steps: int. Needed for data without end.
        verbose, callbacks, return_dict: As in Keras.

    Returns:
        Loss, then the loss of each resolution; with `return_dict=True` a dict.
    """
    _check_compiled(self, "evaluate")
    # `fit` has prepared its validation data.
    if not kwargs.get("_use_cached_eval_dataset"):
        arguments.check_counts(batch_size=batch_size, steps=steps)
        x, sample_weight = arguments.unpack("x", x, y, sample_weight)
        x = arguments.prepare(
            x, self.batch_spec, "evaluation data", sample_weight, batch_size, steps
        )
    with _steps(self, "evaluate"):
        self.evaluated_samples.assign(0)
        return keras.Model.evaluate(
            self,
            x,
            verbose=verbose,
            steps=steps,
            callbacks=interrupts.with_check(callbacks),
            return_dict=return_dict,
            **kwargs,
        )


def train_on_batch(
    self, x, y=None, sample_weight=None, class_weight=None, return_dict=False
):
    """One training step on one batch; see `keras.Model.train_on_batch`."""
    _check_compiled(self, "train_on_batch", trains=True)
    arguments.check_no_class_weight(class_weight)
    spec = self.batch_spec.divided(self.mixed_fractions)
    x, weight = arguments.prepare_batch(x, y, sample_weight, spec)
    with _steps(self, "train_on_batch"):
        return keras.Model.train_on_batch(
            self, x, sample_weight=weight, return_dict=return_dict
        )


def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
    """Loss of one batch on fixed noise; see `keras.Model.test_on_batch`."""
    _check_compiled(self, "test_on_batch")
    x, weight = arguments.prepare_batch(x, y, sample_weight, self.batch_spec)
    with _steps(self, "test_on_batch"):
        self.evaluated_samples.assign(0)
        return keras.Model.test_on_batch(
            self, x, sample_weight=weight, return_dict=return_dict
        )


def predict(self, *args, **kwargs):
    """Not for this model, which draws pictures with `generate`."""
    raise NotImplementedError(
        "`predict` is not for diffusion models: one call of the network draws no "
        "picture. Draw with `mdm.generate(...)`, or call the denoiser itself, "
        "`mdm(inputs)`."
    )


def export(self, *args, **kwargs):
    """Not for this model, whose pictures take many calls of the network."""
    raise NotImplementedError(
        "`export` is not for diffusion models: one call of the network draws no "
        "picture. Save the model with `mdm.save_to_preset(...)` or `mdm.save(...)`."
    )


def _check_compiled(self, method, trains=False):
    backend.check_devices(self)
    if not self.compiled:
        raise ValueError(
            f"`{method}` needs a compiled model: call `mdm.compile(...)` before."
        )
    changed = self._compiled_for ^ {v.path for v in self.trainable_variables}
    if trains and changed:
        raise ValueError(
            f"{len(changed)} weights were frozen or made trainable after `compile`, "
            f"such as {min(changed)!r}, and its optimizer does not know of it: call "
            f"`mdm.compile(...)` again before `{method}`."
        )


@contextlib.contextmanager
def _steps(self, name, trains=False):
    """Within it steps run: no signal and no other thread comes between, and the
    variables have the newest values afterwards, whatever happens.

    The average tells weights that are set by hand before or after from training.
    """
    with self.turns.taken(name, trains), interrupts.held():
        backend.sync_weights(self)
        for average in self.all_averages():
            average.follow()
        try:
            yield
        except BaseException:
            backend.sync_weights(self)
            # Where a device has failed, the weights may be lost.
            with contextlib.suppress(TypeError, RuntimeError):
                _note_averages(self)
            raise
        _note_averages(self)


def _note_averages(self):
    for average in self.all_averages():
        average.note()
