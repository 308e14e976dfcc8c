"""Exponential moving average of a network's weights, as part of the model."""

import contextlib
import types
import warnings

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.checks import check_flags, check_number
from keras_mdm.layers.initializers import HostConstant


class ExponentialMovingAverage(keras.layers.Layer):
    """Moving average of variables, kept as non-trainable weights.

    Each level of a nest counts its own updates: one that begins to be trained late
    begins its average then, whatever the others have seen. Values that variables are
    given by hand or from a file reach their averages by `follow`.

    Keras' own optimizer average is not used: it replaces the raw weights when `fit`
    ends, and breaks the second `fit` on JAX.

    Args:
        variables: List of the variables to average. The list is fixed here, because
            `trainable_variables` changes when layers are frozen.
        momentum: float in [0, 1). Share of the old average that is kept.
        warmup: bool. Whether the momentum of a level's update n is at most
            `(1 + n) / (10 + n)`, so that early averages forget the initial weights.
        levels: Optional list of int, one for each variable: the level it belongs to,
            counted from 0. Defaults to `None`: all belong to one.
        name: str. Defaults to `"ema"`.
    """

    def __init__(self, variables, momentum, warmup=True, levels=None, name="ema"):
        super().__init__(name=name, trainable=False, dtype="float32")
        check_number(0, below=1, ema_momentum=momentum)
        check_flags(ema_warmup=warmup)
        self.momentum = momentum
        self.warmup = warmup
        # The namespace hides the lists from Keras' tracking of sublayers' variables.
        self._hidden = types.SimpleNamespace(
            sources=list(variables), levels=tuple(levels or [0] * len(variables))
        )
        self.build()
        self._assign(zip(self.averages, self.sources, strict=True))
        # Sources are noted later: what is loaded first would be kept twice in memory.
        self._hidden.seen_sources = None
        self._hidden.seen_averages = backend.snapshot(self.averages)
        self._hidden.seen_updates = ops.convert_to_numpy(self.num_updates.value)

    def build(self, input_shape=None):
        self.num_updates = self.add_weight(
            shape=(max(self.levels) + 1,),
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

    @property
    def levels(self):
        """The level of each of `sources`."""
        return self._hidden.levels

    def reset(self, variables=None):
        """Sets the averages to the current values, of all or of some variables.

        Levels that have one of them count their updates from 0 again.
        """
        wanted = None if variables is None else {id(v) for v in variables}
        chosen = [
            index
            for index, source in enumerate(self.sources)
            if wanted is None or id(source) in wanted
        ]
        if wanted is None:
            # Or else what is replaced would be kept in memory until all is.
            self._hidden.seen_sources = self._hidden.seen_averages = None
        self._restart(chosen)
        self.note(None if wanted is None else chosen)

    def update(self, variables=None, moved=True, levels=None, values=None):
        """Moves the averages towards the current values.

        Args:
            variables: Optional list of the variables that may have changed. Defaults
                to all.
            moved: bool or scalar bool tensor. Whether the optimizer really stepped,
                which it does not within an accumulation of gradients.
            levels: Optional collection of the levels that are trained. Those that are
                not count no update. Defaults to all.
            values: Optional dict of a variable's `id` to what its average becomes, of
                those that the optimizer averages itself.
        """
        moved = ops.cast(moved, "float32")
        count = self.num_updates.shape[0]
        trained = [int(levels is None or level in levels) for level in range(count)]
        trained = ops.convert_to_tensor(trained, "int32")
        rates = self.rates(ops.cast(self.num_updates, "float32"), trained) * moved
        rates = [rates[level] for level in range(count)]
        wanted = None if variables is None else {id(v) for v in variables}
        for average, source, level in zip(
            self.averages, self.sources, self.levels, strict=True
        ):
            if values and id(source) in values:
                value = ops.cast(values[id(source)], "float32")
                average.assign(average + (value - average) * moved)
            elif wanted is None or id(source) in wanted:
                value = ops.cast(source.value, "float32")
                average.assign(average + (value - average) * rates[level])
        self.num_updates.assign(self.num_updates + trained * ops.cast(moved, "int32"))

    def rates(self, counts, trained):
        """Shares of the current values in the averages after the next update.

        Args:
            counts: float32 tensor of shape `(levels,)`. Updates of each level.
            trained: int32 tensor of shape `(levels,)`. 1 for levels that are trained.

        Returns:
            float32 tensor of shape `(levels,)`.
        """
        momentum = ops.full_like(counts, self.momentum)
        if self.warmup:
            momentum = ops.minimum(momentum, (1.0 + counts) / (10.0 + counts))
        return 1.0 - momentum

    def follow(self):
        """Sets averages to what their variables were given outside of training.

        Such as those of a file that the network has loaded. Averages that were given
        values too, and those of levels that were trained since `note`, stay.
        """
        hidden = self._hidden
        updates = ops.convert_to_numpy(self.num_updates.value)
        idle = updates == hidden.seen_updates
        changed = [True] * len(self.sources)
        if hidden.seen_sources is not None:
            changed = backend.changed_since(hidden.seen_sources, self.sources)
        if idle.all() and not any(changed):
            return
        averages = backend.changed_since(hidden.seen_averages, self.averages)
        given = [
            index
            for index, level in enumerate(self.levels)
            if idle[level] and changed[index] and not averages[index]
        ]
        trained = [self.sources[i].path for i in given if updates[self.levels[i]] > 0]
        if trained:
            warnings.warn(
                f"{len(trained)} weights of the network, such as '{trained[0]}', were "
                "changed outside of training after their moving average had been "
                "trained: the average takes their new values and begins anew. Calling "
                "`reset_ema()` after such a change says that this is meant.",
                stacklevel=3,
            )
        self._restart(given)
        self.note()

    def note(self, indices=None):
        """Notes that averages and variables belong together as they are now.

        Args:
            indices: Optional list of int. The variables it is noted of; defaults to
                all.
        """
        hidden = self._hidden
        updates = ops.convert_to_numpy(self.num_updates.value)
        if indices is None:
            seen = backend.snapshot(self.sources), backend.snapshot(self.averages)
            hidden.seen_sources, hidden.seen_averages = seen
            hidden.seen_updates = updates
            return
        hidden.seen_updates = hidden.seen_updates.copy()
        for index in indices:
            level = self.levels[index]
            hidden.seen_updates[level] = updates[level]
            (hidden.seen_averages[index],) = backend.snapshot([self.averages[index]])
            if hidden.seen_sources is not None:
                (hidden.seen_sources[index],) = backend.snapshot([self.sources[index]])

    def in_place_of(self, variables):
        """Those variables, each that has an average replaced by it.

        Args:
            variables: List of variables.

        Returns:
            List of variables, as long.
        """
        averages = {
            id(source): average
            for source, average in zip(self.sources, self.averages, strict=True)
        }
        return [averages.get(id(variable), variable) for variable in variables]

    @contextlib.contextmanager
    def in_place(self):
        """Within it, and in this thread alone, variables read as their averages.

        Nothing is assigned, and what is assigned within it is lost.
        """
        pairs = zip(self.sources, self.averages, strict=True)
        with keras.StatelessScope([(source, a.value) for source, a in pairs]):
            yield

    def _restart(self, indices):
        self._assign((self.averages[i], self.sources[i]) for i in indices)
        updates = ops.convert_to_numpy(self.num_updates.value).copy()
        updates[[self.levels[i] for i in indices]] = 0
        self.num_updates.assign(updates)

    def _assign(self, pairs):
        for average, source in pairs:
            # By way of the host: on JAX a plain assignment would share one buffer, and
            # a copy on the device is compiled for each shape.
            average.assign(backend.to_numpy(source))
