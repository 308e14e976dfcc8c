"""What `benchmark.py` says of the machine: its peak rate, its memory, its name."""

import contextlib
import pathlib
import platform
import resource
import sys


def matmul_gflops(size=None):
    """Rate of the fastest of several float32 products of square matrices."""
    from keras_mdm import backend

    size = size or (2048 if backend.on_cpu() else 8192)
    return backend.measured_peak("float32", size) / 1e9


def accelerator():
    """Name and peak memory (bytes or `None`) of the accelerator; `None` on a CPU."""
    from keras_mdm import backend

    if backend.on_cpu():
        return None
    if backend.name() == "jax":
        import jax

        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    elif backend.name() == "tensorflow":
        import tensorflow as tf

        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        import torch

        peak = torch.cuda.max_memory_allocated()
    return backend.device_kind(), peak


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
