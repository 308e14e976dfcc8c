"""Keras' trainers, so that weights survive and batches of any size have a program.

The JAX trainer takes the values out of the variables, keeps them in a local variable of
`fit`, and donates their memory to each step: an exception anywhere in between would
lose them. The TensorFlow trainer traces a step for sizes it does not know as soon as a
batch has another size than the first. Used by `MDM` and, for its data, by `fitting`.
"""

import itertools
import os

import keras

from keras_mdm.backend.devices import name
from keras_mdm.backend.keras_internals import steps_taken
from keras_mdm.backend.sharding import whole_weights

_KINDS = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def keeps_weights(cls):
    """Decorates a `keras.Model` whose variables shall survive an exception in any step.

    At every moment `_jax_state`, which Keras fills after a step alone, has the newest
    values; what a callback has set a variable to meanwhile comes into it with the next
    step. The first step of a batch of a new shape may find too little memory when
    its values are already given away: until it has run, a copy of them is held in the
    memory of the host. Layers compute with `whole_weights`.
    """

    def _get_jax_state(self, purge_model_variables=False, **kinds):
        state = super(cls, self)._get_jax_state(**kinds)
        found = [kind for kind in _KINDS if kinds.get(kind)]
        self._jax_state = dict(zip(found, state, strict=True))
        self._jax_state_synced = False
        emptied = {}
        if purge_model_variables:
            emptied = {kind: _variables(self, kind) for kind in found}
            self._purge_model_variables(**kinds)
        # Past Keras, for which they would be variables of the model once more.
        object.__setattr__(self, "_emptied", emptied)
        return state

    def jax_state_sync(self):
        _take_set(self)
        super(cls, self).jax_state_sync()

    def stateless_call(self, trainable_variables, *args, **kwargs):
        values = whole_weights(trainable_variables)
        return super(cls, self).stateless_call(values, *args, **kwargs)

    def _make_function(self, step_function, *args, **kwargs):
        if name() == "jax":
            step_function = _kept(self, step_function)
        return super(cls, self)._make_function(step_function, *args, **kwargs)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super(cls, self).make_train_function(force=True)
            self.train_function = _step_of_each_shape(
                self.train_function,
                lambda: self._make_function(self.train_step),
                self.steps_per_execution,
            )

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super(cls, self).make_test_function(force=True)
            self.test_function = _step_of_each_shape(
                self.test_function,
                lambda: self._make_function(self.test_step),
                self.steps_per_execution,
            )

    cls._get_jax_state = _get_jax_state
    cls.jax_state_sync = jax_state_sync
    cls.stateless_call = stateless_call
    cls._make_function = _make_function
    cls.make_train_function = make_train_function
    cls.make_test_function = make_test_function
    return cls


def sync_weights(model):
    """Gives the variables their newest values, in the middle of `fit` too.

    Args:
        model: `keras.Model` that `keeps_weights`.
    """
    if name() == "jax":
        model.jax_state_sync()


def newest(model, variables):
    """The newest values of variables, in the middle of `fit` too; waits for the step.

    Args:
        model: `keras.Model` that `keeps_weights`.
        variables: List of variables of the model or its optimizer. Of several
            processes, each must hold their whole values.

    Returns:
        List of numpy arrays.
    """
    values = {}
    if name() == "jax" and model._jax_state and not model._jax_state_synced:
        _take_set(model)
        for kind, found in model._jax_state.items():
            known = _variables(model, kind)
            values |= {id(v): x for v, x in zip(known, found, strict=True)}
    return [keras.ops.convert_to_numpy(values.get(id(v), v)) for v in variables]


def _variables(model, kind):
    """The variables whose values are one kind of `_jax_state`."""
    owner = model.optimizer if kind == "optimizer_variables" else model
    return getattr(owner, kind.replace("optimizer_", ""))


def _take_set(model):
    """Takes over values that variables were set to since Keras emptied them.

    Returns:
        bool. Whether there are any.
    """
    found = False
    if not getattr(model, "_jax_state", None) or model._jax_state_synced:
        return found
    for kind, variables in model._emptied.items():
        if all(variable._value is None for variable in variables):
            continue
        values = zip(variables, model._jax_state[kind], strict=True)
        model._jax_state[kind] = [
            x if v._value is None else v._value for v, x in values
        ]
        for variable in variables:
            variable._value = None
        found = True
    return found


def learning_rate(model):
    """The learning rate of a model's optimizer, in the middle of `fit` too."""
    optimizer = model.optimizer
    count = steps_taken(optimizer)
    (step,) = newest(model, [count])
    with keras.StatelessScope([(count, keras.ops.convert_to_tensor(step))]):
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _kept(model, step):
    """A step that leaves the newest values in `model._jax_state`, however it ends."""
    import jax

    known = set()

    def kept_step(state, data):
        if _take_set(model):
            state = tuple(map(list, model._jax_state.values()))
        arrays = keras.tree.flatten(data)
        shapes = tuple((tuple(a.shape), str(a.dtype)) for a in arrays if a is not None)
        copy = None if shapes in known else _host_copy(state)
        try:
            logs, state = step(state, data)
            if shapes not in known:
                # An error of the device is told no sooner.
                jax.block_until_ready((logs, state))
        except BaseException as error:
            if _is_lost(state):
                _restore(model, state, copy, error)
            raise
        model._jax_state = dict(zip(model._jax_state, state, strict=True))
        known.add(shapes)
        return logs, state

    return kept_step


def _is_lost(state):
    """Whether values were given to a step that failed, or are what it left."""
    import jax

    try:
        jax.block_until_ready(state)
    except (RuntimeError, ValueError):
        return True
    return any(value.is_deleted() for value in keras.tree.flatten(state))


def _restore(model, state, copy, error):
    import jax

    if copy is None:
        model._jax_state = None
        error.add_note(
            "The step failed after it had taken over the memory of the weights, and "
            "they are lost: load them again, from a preset or with `resume=True`."
        )
        return
    model._jax_state = {
        kind: [
            jax.device_put(value, lost.sharding)
            for value, lost in zip(values, old, strict=True)
        ]
        for kind, values, old in zip(model._jax_state, copy, state, strict=True)
    }


def _host_copy(state):
    """The values as numpy arrays; `None` if the host's memory has no room for them."""
    import numpy as np

    values = keras.tree.flatten(state)
    if not all(value.is_fully_addressable for value in values):
        return None
    if sum(value.nbytes for value in values) > _free_memory() / 2:
        return None
    return keras.tree.map_structure(lambda value: np.array(value), state)


def _free_memory():
    """Bytes of memory that nothing uses; without limit where nobody tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _step_of_each_shape(function, make, count):
    """A step function of Keras with a program for each shape of batch on TensorFlow.

    Args:
        function: What Keras made for `fit` or `evaluate`.
        make: Callable that makes another one.
        count: int. Steps of one call.
    """
    if name() != "tensorflow":
        return function
    functions = {}

    def run(iterator):
        logs = None
        for batch in itertools.islice(iterator, count):
            leaves = keras.tree.flatten(batch)
            shapes = tuple(None if leaf is None else leaf.shape for leaf in leaves)
            if shapes not in functions:
                functions[shapes] = make() if functions else function
            logs = functions[shapes](iter([batch]))
        if logs is None:
            raise StopIteration
        return logs

    return run


def host_data(batches):
    """Batches, one pass an iteration, as what Keras hands to steps on TensorFlow as it
    is.

    A `tf.data.Dataset` of them would declare their shapes unknown, so that mixed
    batches could not be cut, and hide the errors of a batch in errors of its own.
    """
    import tensorflow as tf

    class HostData(tf.distribute.DistributedDataset):
        def __iter__(self):
            return iter(batches)

        @property
        def element_spec(self):
            raise NotImplementedError("the shapes of batches are known one by one.")

    return HostData()
