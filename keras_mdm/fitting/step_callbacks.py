"""Callbacks that let the device run ahead: they read losses now and then.

Keras turns the losses of each step into numbers as soon as a callback asks for the end
of a step. That waits for the step, so that the next batch is read while the device has
nothing to do.
"""

import contextlib

import keras
from keras import callbacks as keras_callbacks

from keras_mdm.fitting import interrupts
from keras_mdm.fitting.clock import StepClock


class StepCallback(keras_callbacks.Callback):
    """A callback whose `on_train_batch_end` is given tensors, which it reads seldom.

    Attributes:
        clock: The `StepClock` of `fit`, or `None` where callbacks are called otherwise.
        places: The `Places` of the data of `fit`, or `None`.
    """

    clock = places = None


class StepCallbackList(keras_callbacks.CallbackList):
    """Gives tensors to each `StepCallback`, and numbers to others that ask for them."""

    def __init__(self, callbacks, clock, places=None, **params):
        super().__init__(callbacks, **params)
        self.clock = clock
        self._batch = -1
        self._others = []
        for callback in self.callbacks:
            if isinstance(callback, StepCallback):
                callback.clock, callback.places = clock, places
            elif _asks_for_steps(callback):
                self._others.append(callback)

    def on_epoch_begin(self, epoch, logs=None):
        self._batch = -1
        self.clock.begin_epoch()
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        logs = logs or {}
        # With `steps_per_execution`, `batch` is the last of several.
        self.clock.note(batch - self._batch, next(iter(logs.values()), None))
        self._batch = batch
        for callback in self.callbacks:
            if isinstance(callback, StepCallback):
                callback.on_train_batch_end(batch, logs)
        if self._others:
            numbers = {key: float(value) for key, value in logs.items()}
            for callback in self._others:
                callback.on_train_batch_end(batch, numbers)


def _asks_for_steps(callback):
    default = keras_callbacks.Callback
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(default, name)
        for name in ("on_train_batch_end", "on_batch_end")
    )


@contextlib.contextmanager
def listed(callbacks, data, **params):
    """Callbacks as `keras.Model.fit` takes them, with the check for interrupts.

    Args:
        callbacks: As given to `fit`.
        data: `PreparedData`, whose reading is timed for callbacks that want it.
        **params: `model`, `epochs`, `steps` and `verbose`.

    Yields:
        A list, or a `StepCallbackList` if there is a `StepCallback`.
    """
    checked = interrupts.with_check(callbacks)
    given = keras.tree.flatten(callbacks)
    if isinstance(checked, keras_callbacks.CallbackList) or not any(
        isinstance(callback, StepCallback) for callback in given
    ):
        yield checked
        return
    clock = data.clock = StepClock(*data.first)
    try:
        yield StepCallbackList(
            checked,
            clock,
            data.places,
            add_history=True,
            add_progbar=params["verbose"] != 0,
            **params,
        )
    finally:
        data.clock = None
        clock.close()
