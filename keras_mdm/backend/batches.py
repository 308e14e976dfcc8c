"""How batches reach a step, and on how many devices. Called by `fitting`."""

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
