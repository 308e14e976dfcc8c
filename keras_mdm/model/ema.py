"""Exponential moving average of a network's weights, as part of the model."""

import types

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.layers.initializers import HostConstant


class ExponentialMovingAverage(keras.layers.Layer):
    """Moving average of variables, kept as non-trainable weights.

    Keras' own optimizer average is not used: it replaces the raw weights when `fit`
    ends, and breaks the second `fit` on JAX.

    Args:
        variables: List of the variables to average. The list is fixed here, because
            `trainable_variables` changes when layers are frozen.
        momentum: float in [0, 1). Share of the old average that is kept.
        warmup: bool. Whether the momentum of update n is at most
            `(1 + n) / (10 + n)`, so that early averages forget the initial weights.
    """

    def __init__(self, variables, momentum, warmup=True):
        super().__init__(name="ema", trainable=False, dtype="float32")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(
                "`ema_momentum` must be at least 0 and below 1, or None for no "
                f"moving average. Received: ema_momentum={momentum}"
            )
        self.momentum = momentum
        self.warmup = warmup
        # The namespace hides the list from Keras' tracking of sublayers' variables.
        self._hidden = types.SimpleNamespace(sources=list(variables))
        self.build()
        self.reset()

    def build(self, input_shape=None):
        self.num_updates = self.add_weight(
            shape=(),
            dtype="int32",
            initializer=HostConstant(0.0),
            trainable=False,
            name="num_updates",
        )
        self.averages = [
            self.add_weight(
                shape=source.shape,
                initializer=HostConstant(0.0),
                trainable=False,
                # Torch takes no dot in a name.
                name=source.path.replace("/", "__"),
            )
            for source in self.sources
        ]

    @property
    def sources(self):
        """The averaged variables, in the order of `averages`."""
        return self._hidden.sources

    def reset(self, variables=None):
        """Sets the averages to the current values, of all or of some variables."""
        wanted = None if variables is None else {id(v) for v in variables}
        for average, source in zip(self.averages, self.sources, strict=True):
            if wanted is None or id(source) in wanted:
                # By way of the host: on JAX a plain assignment would share one
                # buffer, and a copy on the device is compiled for each shape.
                average.assign(ops.convert_to_numpy(source.value))

    def update(self, variables=None, moved=True):
        """Moves the averages towards the current values.

        Args:
            variables: Optional list of the variables that may have changed. Defaults
                to all.
            moved: bool or scalar bool tensor. Whether the optimizer really stepped,
                which it does not within an accumulation of gradients.
        """
        moved = ops.cast(moved, "float32")
        count = ops.cast(self.num_updates, "float32")
        momentum = self.momentum
        if self.warmup:
            momentum = ops.minimum(momentum, (1.0 + count) / (10.0 + count))
        rate = (1.0 - momentum) * moved
        wanted = None if variables is None else {id(v) for v in variables}
        for average, source in zip(self.averages, self.sources, strict=True):
            if wanted is None or id(source) in wanted:
                backend.move_towards(average, ops.cast(source.value, "float32"), rate)
        self.num_updates.assign(self.num_updates + ops.cast(moved, "int32"))
