"""Which parts of a variable's value this process holds. Called by `training.state`.

Bounds are where a part lies in the value: a tuple of (start, end) for each axis.
"""

import itertools

import keras
import numpy as np

from keras_mdm.backend.devices import name
from keras_mdm.backend.processes import number_of_processes, process_number


def whole_bounds(shape):
    """Bounds of all of a value."""
    return tuple((0, side) for side in shape)


def parts_to_write(variables):
    """Copies, in the memory of the host, of what this process must write of variables.

    What all processes write has each number of a value once.

    Args:
        variables: Sequence of Keras variables.

    Returns:
        For each of them, a list of pairs of bounds and numpy array.
    """
    if name() != "jax":
        return [
            [(whole_bounds(v.shape), np.array(keras.ops.convert_to_numpy(v.value)))]
            for v in variables
        ]
    held = [_to_write(variable.value) for variable in variables]
    for shard in itertools.chain(*held):
        shard.data.copy_to_host_async()
    return [
        [(_bounds(shard.index, v.shape), _copy(shard)) for shard in shards]
        for v, shards in zip(variables, held, strict=True)
    ]


def _to_write(value):
    if number_of_processes() > 1 and value.is_fully_addressable and process_number():
        return []  # Each process has the same one.
    return [shard for shard in value.addressable_shards if shard.replica_id == 0]


def _copy(shard):
    # On a CPU the next step may take the memory of what is seen here.
    return (np.array if shard.device.platform == "cpu" else np.asarray)(shard.data)


def bounds_here(variable):
    """Set of the bounds of the parts that devices of this process hold."""
    shape = tuple(variable.shape)
    if name() != "jax":
        return {whole_bounds(shape)}
    places = variable.value.sharding.addressable_devices_indices_map(shape)
    return {_bounds(place, shape) for place in places.values()}


def assign_parts(variable, parts):
    """Gives a variable a value whose parts here are arrays by their bounds."""
    shape = tuple(variable.shape)
    if name() != "jax" or len(variable.value.sharding.device_set) == 1:
        variable.assign(parts[whole_bounds(shape)])
        return
    import jax

    variable.assign(
        jax.make_array_from_callback(
            shape,
            variable.value.sharding,
            lambda place: parts[_bounds(place, shape)],
        )
    )


def _bounds(place, shape):
    return tuple(
        axis.indices(side)[:2] for axis, side in zip(place, shape, strict=True)
    )
