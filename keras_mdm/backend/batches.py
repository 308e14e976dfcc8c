"""What Keras asks of data and steps on TensorFlow, so that both backends train alike.

Called by `model.streams` and `model.entry_points`.
"""

import itertools

import keras

from keras_mdm.backend.devices import name


def belongs_to(value, package):
    """Whether a value's class, or one that it derives from, is a package's."""
    return any(c.__module__.split(".")[0] == package for c in type(value).__mro__)


def parts_of_a_batch():
    """Into how many equal parts `keras.distribution` divides a process' batch."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    import jax

    mesh = distribution.device_mesh
    parts = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
    return max(1, parts // jax.process_count())


def host_data(batches):
    """Batches of numpy arrays as what Keras hands to steps on TensorFlow as it is.

    A `tf.data.Dataset` of them would declare their shapes unknown, so that mixed
    batches could not be cut, and hide the errors of a batch in errors of its own.

    Args:
        batches: Iterable, one pass an iteration.

    Returns:
        A `tf.distribute.DistributedDataset`.
    """
    import tensorflow as tf

    class HostData(tf.distribute.DistributedDataset):
        def __iter__(self):
            return iter(batches)

        @property
        def element_spec(self):
            raise NotImplementedError("the shapes of batches are known one by one.")

    return HostData()


def step_of_each_shape(function, make, count):
    """A step function of Keras that knows the shapes of its batches on TensorFlow.

    Keras' own is traced for sizes that it does not know as soon as a batch has another
    size than the first. This one has a program for each, as on JAX.

    Args:
        function: What Keras made for `fit` or `evaluate`.
        make: Callable that makes another one.
        count: int. Steps of one call.

    Returns:
        A callable of an iterator of batches.
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


def refuse_replicas(model):
    """Raises a `ValueError` if TensorFlow would train a model on several devices."""
    if name() != "tensorflow":
        return
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"a `tf.distribute.{type(strategy).__name__}` of "
            f"{strategy.num_replicas_in_sync} replicas would add up the losses of its "
            "replicas and draw the same noise on each: to train on several devices, "
            "choose the JAX backend (KERAS_BACKEND=jax) and `keras.distribution`."
        )
