"""Several devices and hosts, on JAX: what `keras.distribution` lacks for this package.

`keras.distribution.DataParallel` keeps a copy of the model on every device, and is all
that a model needs that fits one of them. `FullySharded` divides the model's state too.
`connect` joins the processes of several hosts.
"""

import math

import keras

from keras_mdm import backend


class FullySharded(keras.distribution.DataParallel):
    """Data parallelism with the model's state divided among the devices too (FSDP).

    Each weight, its moving average and what the optimizer keeps of it are divided along
    one axis, so that each device holds its part; the whole weight is there while a
    layer computes with it. Batches are divided as by `DataParallel`.

    Args:
        devices: Optional list of str such as `"gpu:0"`. Defaults to all devices of all
            processes.
        min_size: int. Variables of fewer elements are whole on each device: dividing
            them would cost more time than it saves memory. Defaults to 2**16.

    Raises:
        ValueError: on another backend than JAX, or if a device is not there.

    Example:

    ```python
    keras.distribution.set_distribution(keras_mdm.distribution.FullySharded())
    mdm = keras_mdm.MDM.from_preset("mdm_s256")  # After the line above.
    ```

    Reference:
        - [Rajbhandari et al., 2020](https://arxiv.org/abs/1910.02054)
    """

    def __init__(self, devices=None, min_size=2**16):
        require_jax("`FullySharded`")
        known = keras.distribution.list_devices()
        if devices is not None and not (devices and set(devices) <= set(known)):
            raise ValueError(
                f"`devices` must be some of {known}. Received: devices={devices}"
            )
        # Each process reads its own part of the data; see `MDM.fit`.
        super().__init__(devices=devices, auto_shard_dataset=False)
        self.min_size = min_size

    def get_variable_layout(self, variable):
        if getattr(variable, "_layout", None) is not None:
            return variable._layout
        parts = self.device_mesh.devices.size
        axes = sharded_axes(variable.shape, parts, self.batch_dim_name, self.min_size)
        return keras.distribution.TensorLayout(axes, self.device_mesh)


def sharded_axes(shape, parts, axis_name, min_size=2**16):
    """Along which axis a variable is divided: its largest that can be.

    Args:
        shape: Tuple of int.
        parts: int. Number of devices.
        axis_name: str. The mesh's axis of devices.
        min_size: int. Variables of fewer elements are not divided.

    Returns:
        List with `axis_name` for that axis and `None` for the others.
    """
    axes = [None] * len(shape)
    sizes = [size if size % parts == 0 else 0 for size in shape]
    if math.prod(shape) >= min_size and any(sizes):
        # Of equal ones the last: a kernel's outputs.
        axes[len(sizes) - 1 - sizes[::-1].index(max(sizes))] = axis_name
    return axes


def connect(coordinator=None, num_processes=None, process_id=None, timeout=300):
    """Joins the processes of several hosts, before anything is computed.

    Every process runs the same program. `keras.distribution` then has the devices of
    all of them, and each process gives `MDM.fit` its own part of every batch: with n
    processes, `data.make_dataset(..., batch_size // n, shard=(process, n))`.

    Args:
        coordinator: str. `"host:port"` of process 0. Where the cluster tells (TPU pods,
            SLURM, Open MPI), it and the two below may be `None`.
        num_processes: int.
        process_id: int. The number of this process, from 0.
        timeout: int. Seconds until processes that do not find each other give up. All
            end where one was silent for as long, or for 100 seconds. Defaults to 300.

    Returns:
        A pair: the number of this process, and how many there are.

    Raises:
        ValueError: if an argument is wrong, or not all processes came in time.
    """
    require_jax("`connect`")
    given = (coordinator, num_processes, process_id)
    if any(g is None for g in given) and any(g is not None for g in given):
        raise ValueError(
            "`coordinator`, `num_processes` and `process_id` are given together, or "
            f"none of them where the cluster tells. Received: coordinator={coordinator}"
            f", num_processes={num_processes}, process_id={process_id}"
        )
    if coordinator is not None:
        host, _, port = str(coordinator).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(
                "`coordinator` must be 'host:port' of process 0, such as "
                f"'10.0.0.1:1234'. Received: coordinator={coordinator!r}"
            )
        numbers = (process_id, num_processes)
        whole = all(isinstance(number, int) for number in numbers)
        if not whole or not 0 <= process_id < num_processes:
            raise ValueError(
                "`process_id` must be from 0 to num_processes - 1, both whole numbers. "
                f"Received: process_id={process_id!r}, num_processes={num_processes!r}"
            )
    backend.connect(coordinator, num_processes, process_id, timeout)
    return backend.process_number(), backend.number_of_processes()


def require_jax(what):
    """Raises a `ValueError` unless the backend is JAX, which several devices take."""
    if backend.name() != "jax":
        raise ValueError(
            f"{what} needs the JAX backend: set KERAS_BACKEND=jax. Several devices on "
            f"{backend.name()} are not supported."
        )
