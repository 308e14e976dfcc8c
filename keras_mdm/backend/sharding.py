"""How tensors are divided among devices by `keras.distribution`, on JAX alone.

Called by `fitting` for training batches, and by `sampling` for pictures to draw.
"""

import keras

from keras_mdm.backend.devices import name
from keras_mdm.backend.processes import number_of_processes


def check_devices(model):
    """Raises a `ValueError` if a model can't be trained on the devices asked for."""
    distribution = keras.distribution.distribution()
    if name() == "jax":
        if distribution is not None and model.variables:
            devices = set(distribution.device_mesh.backend_mesh.devices.flat)
            if model.variables[0].value.sharding.device_set != devices:
                raise ValueError(
                    "the model was made before the devices were chosen: call "
                    "`keras.distribution.set_distribution(...)` first, then make the "
                    "model."
                )
        return
    asked = None
    if distribution is not None:
        asked = f"`keras.distribution.{type(distribution).__name__}`"
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        # It would add up the losses of replicas and draw the same noise on each.
        asked = f"a `tf.distribute.{type(strategy).__name__}`"
    if asked:
        raise ValueError(
            f"{asked} asks for several devices, which need the JAX backend: set "
            "KERAS_BACKEND=jax and use `keras.distribution`. Received: the backend "
            f"{name()}"
        )


def batch_mesh():
    """JAX's mesh of the devices, and the name of its axis that divides batches.

    `None` if there is one device alone.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return distribution.device_mesh.backend_mesh, distribution.batch_dim_name


def parts_of_a_batch():
    """Into how many equal parts this process divides its batches."""
    divided = batch_mesh()
    if divided is None:
        return 1
    mesh, axis = divided
    return max(1, mesh.shape[axis] // number_of_processes())


def rows_per_call():
    """How many devices share a batch of all processes: its rows are a multiple."""
    return parts_of_a_batch() * number_of_processes()


def divide_rows(array):
    """A numpy array whose rows are given to the devices, each its part.

    Args:
        array: Numpy array; the same one in every process. Its number of rows is a
            multiple of `rows_per_call`.

    Returns:
        Tensor.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return keras.ops.convert_to_tensor(array)
    import jax

    sharding = distribution.get_data_layout(array.shape).backend_layout
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def whole_weights(values):
    """Tensors of weights as layers compute with them: whole on each device.

    Left to itself a TPU's compiler divides activations as the weights are, by channels,
    and keeps more of them than division saves. `keras.distribution.ModelParallel` asks
    for that.
    """
    distribution = keras.distribution.distribution()
    divided = batch_mesh()
    if divided is None or isinstance(distribution, keras.distribution.ModelParallel):
        return values
    import jax

    whole = jax.sharding.NamedSharding(divided[0], jax.sharding.PartitionSpec())
    return [jax.lax.with_sharding_constraint(value, whole) for value in values]
