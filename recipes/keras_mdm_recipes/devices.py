"""On which devices and hosts a recipe computes; called when the backend is chosen."""

import os
import sys


def prepare(
    data_parallel=False,
    fsdp=False,
    coordinator=None,
    num_processes=None,
    process_id=None,
    connect_timeout=300,
):
    """Joins other processes, and divides what follows among all devices.

    Of several processes the first alone prints to the standard output.

    Args: see `settings.Devices`.

    Returns:
        A pair: the number of this process, and how many there are.

    Raises:
        ValueError: if the settings contradict each other, or the other processes were
            not there in time.
    """
    import keras

    from keras_mdm import backend, distribution

    cluster = (coordinator, num_processes, process_id)
    several = any(value is not None for value in cluster)
    if fsdp and data_parallel:
        raise ValueError("give one of --data-parallel and --fsdp: the second has both.")
    if several and not (fsdp or data_parallel):
        raise ValueError(
            "several processes need --data-parallel or --fsdp, which say what they "
            f"share. Received: coordinator={coordinator!r}, "
            f"num_processes={num_processes}, process_id={process_id}"
        )
    if fsdp or data_parallel:
        distribution.require_jax("--fsdp" if fsdp else "--data-parallel")
    process, processes = 0, 1
    if several:
        if coordinator == "auto":
            cluster = (None, *cluster[1:])
        print(
            f"Waiting for all processes at {coordinator}, at most {connect_timeout} s.",
            flush=True,
        )
        process, processes = distribution.connect(*cluster, connect_timeout)
    if process:
        sys.stdout = open(os.devnull, "w")
    if fsdp:
        keras.distribution.set_distribution(distribution.FullySharded())
    elif data_parallel:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    elif backend.number_of_devices() > 1:
        print(
            f"{backend.number_of_devices()} devices are there and one is used: "
            "--data-parallel uses all.",
            flush=True,
        )
    return process, processes


def check_batches(plan):
    """Raises a `ValueError` if the devices can't share a stage's batches alike."""
    from keras_mdm import backend

    parts = backend.rows_per_call()
    for number, stage in enumerate(plan, 1):
        if stage.batch_size % parts:
            near = max(parts, round(stage.batch_size / parts) * parts)
            raise ValueError(
                f"stage {number}: {parts} devices can't share a batch of "
                f"{stage.batch_size} alike; {near} would do. Received: "
                f"stage.batch_size={stage.batch_size}"
            )


def check_agreement(what):
    """Raises a `ValueError` in all processes unless a dict is the same in them."""
    from keras_mdm import backend
    from keras_mdm.training.settings import differences

    first, *others = backend.from_all(what)
    for number, other in enumerate(others, 1):
        found = list(differences(first, other))
        if found:
            raise ValueError(
                f"process {number} disagrees with process 0 (was: there, is: here): "
                + "; ".join(found[:8])
            )
