"""Several processes, each with its own devices, that run one program on JAX.

Each of them does all that a single one would, in the same order; what they read and
write differs. Called by `distribution`, `files`, `fitting`, `sampling` and the recipes.
"""

import contextlib
import itertools
import json
import random
import socket
import time

import keras

from keras_mdm.backend.devices import name

_calls = itertools.count()
# Seconds of silence after which another process is taken for dead, at most.
_LONGEST_SILENCE = 100


def number_of_processes():
    """How many processes run this program together."""
    if name() != "jax":
        return 1
    import jax

    return jax.process_count()


def process_number():
    """The number of this process; the first, 0, writes files for all."""
    if name() != "jax":
        return 0
    import jax

    return jax.process_index()


def number_of_devices():
    """How many devices all processes have together; on other backends 1 is used."""
    if name() != "jax":
        return 1
    import jax

    return jax.device_count()


def connect(coordinator, num_processes, process_id, timeout):
    """Joins the processes of a program; see `keras_mdm.distribution.connect`."""
    import jax

    if process_id:
        _wait_for(coordinator, timeout)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=min(timeout, _LONGEST_SILENCE),
        )
    except (RuntimeError, ValueError) as error:
        given = (
            f"coordinator={coordinator!r}, num_processes={num_processes}, "
            f"process_id={process_id}"
        )
        if coordinator is None:
            given += ", which this machine's cluster does not tell: give all three"
        raise ValueError(
            "the processes were not joined, which must happen before anything is "
            f"computed, and within {timeout} s. Received: {given}. Cause: {error}"
        ) from error
    # Keras draws the seeds of weights from it: all processes must make the same ones.
    random.seed(from_all(random.getrandbits(63))[0])


def _wait_for(address, timeout):
    """Waits until somebody answers at an address: JAX would end the process."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), 5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"no coordinator answers at {address!r} within {timeout} s: process"
                    " 0 must run there, and its port be reachable. Received: "
                    f"coordinator={address!r} ({error})"
                ) from error
        time.sleep(0.2)


def from_all(value):
    """JSON values of all processes, a list in their order; each gives its own.

    They go through the coordinator, not the devices, which may still be computing.
    """
    if number_of_processes() == 1:
        return [value]
    # Public functions of JAX go through the devices.
    from jax._src import distributed

    client, place = distributed.global_state.client, f"keras_mdm/{next(_calls)}"
    client.key_value_set(f"{place}/{process_number():08}", json.dumps(value))
    # A process that has died ends the others long before.
    client.wait_at_barrier(place, 24 * 3600 * 1000)
    found = sorted(client.key_value_dir_get(place))
    client.wait_at_barrier(f"{place}/read", 24 * 3600 * 1000)
    client.key_value_delete(f"{place}/{process_number():08}")
    return [json.loads(text) for _, text in found]


def wait_for_all():
    """Waits until all processes are here, such as for a file that the first writes."""
    from_all(None)


def is_here(variable):
    """Whether this process has all of a variable's value, not parts of it alone."""
    return number_of_processes() == 1 or variable.value.is_fully_replicated


def to_numpy(value):
    """A tensor or variable as a numpy array, whichever processes hold its parts.

    All processes must call it, in the same order.
    """
    value = getattr(value, "value", value)
    if number_of_processes() > 1 and not value.is_fully_replicated:
        from jax.experimental.multihost_utils import process_allgather

        value = process_allgather(value, tiled=True)
    return keras.ops.convert_to_numpy(value)


@contextlib.contextmanager
def whole_values(variables):
    """Within it variables read as arrays that this process can write to a file.

    Args:
        variables: List of variables, parts of which other processes may hold.
    """
    if number_of_processes() == 1:
        yield
        return
    pairs = [(v, keras.ops.convert_to_tensor(to_numpy(v))) for v in variables]
    with keras.StatelessScope(pairs):
        yield
