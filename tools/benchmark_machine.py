"""What `benchmark.py` says of the machine: its peak rate, its memory, its name."""

import contextlib
import os
import pathlib
import platform
import resource
import sys
import time


def matmul_gflops(size, repeat=8):
    """Rate of the fastest of several float32 products of square matrices."""
    import numpy as np
    from keras import ops

    numbers = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
    a = ops.convert_to_tensor(numbers)
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        product = ops.matmul(a, a)
        float(product[0, 0])  # waits for the result
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def accelerator():
    """Name and peak memory (bytes or `None`) of the accelerator; `None` on a CPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "cpu":
            return None
        stats = device.memory_stats() or {}
        return device.device_kind, stats.get("peak_bytes_in_use")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if not devices:
            return None
        name = tf.config.experimental.get_device_details(devices[0])["device_name"]
        return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def processor():
    """Name of the CPU and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return f"{name}, {cores} cores"


def process_peak_bytes():
    """Largest resident memory that the process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
