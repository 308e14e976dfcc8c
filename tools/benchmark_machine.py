"""What `benchmark.py` says of the machine: its peak rate, its memory, its name."""

import contextlib
import pathlib
import platform
import resource
import sys
import time


def matmul_gflops(size, repeat=8):
    """Rate of the fastest of several float32 products of square matrices.

    On a CPU by numpy too, since an operation of TensorFlow may use one core only.
    """
    import numpy as np
    from keras import ops

    from keras_mdm import backend

    numbers = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
    tensor = ops.convert_to_tensor(numbers)
    products = [lambda: ops.matmul(tensor, tensor)]
    if backend.on_cpu():
        products.append(lambda: numbers @ numbers)
    seconds = []
    for product in products:
        product()
        for _ in range(repeat):
            start = time.perf_counter()
            float(product()[0, 0])  # waits for the result
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


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
    from keras_mdm import backend

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {backend.cores()} cores"


def process_peak_bytes():
    """Largest resident memory that the process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
