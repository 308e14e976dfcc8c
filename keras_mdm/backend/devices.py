"""Which backend and device computes, and how this process uses its processor.

Called by the other files of this folder, `layers.attention`, recipes and tools.
"""

import contextlib
import ctypes
import os

import keras

# Layers of this many channels keep all cores busy on their own, and reading their
# weights takes longer than reading the pictures.
WIDE = 256


def name():
    """Name of the backend that Keras runs on."""
    return keras.backend.backend()


def on_cpu():
    """Whether computations run on the processor rather than on an accelerator."""
    if name() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    if name() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    import torch

    return not torch.cuda.is_available()


def cores():
    """Number of the processor's cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def prepare_processor(channels=0):
    """Settings of a process that trains or samples on a CPU, where they save time.

    For programs, before they compute anything: TensorFlow fixes its threads then. The
    recipes call it; a library must not decide this for the program that imports it.

    - TensorFlow on two cores computes two operations at a time, on one core each,
      rather than each on both. A forward pass of a single sample takes longer so, steps
      of training and of guided sampling less. Not for networks of 256 channels or
      more, and threads that the program or `TF_NUM_INTRAOP_THREADS` set stay as they
      are.
    - Memory that is freed is kept, where glibc manages it. Otherwise each large tensor
      is mapped and handed back to Linux at every step.

    Args:
        channels: int. The most channels of the networks that will run. Defaults to 0:
            only small ones.

    Example:

    ```python
    import keras_mdm

    keras_mdm.backend.prepare_processor()
    mdm = keras_mdm.MDM.from_preset("mdm_tiny_64")
    ```
    """
    if name() == "tensorflow" and on_cpu() and channels < WIDE:
        _compute_operations_side_by_side()
    _keep_freed_memory()


def _compute_operations_side_by_side():
    import tensorflow as tf

    own = os.environ.get("TF_NUM_INTRAOP_THREADS")
    threading = tf.config.threading
    if own or threading.get_intra_op_parallelism_threads() or cores() != 2:
        return
    # Where something was computed before, threads are as they are.
    with contextlib.suppress(RuntimeError):
        threading.set_intra_op_parallelism_threads(1)


def _keep_freed_memory():
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if name() == "tensorflow":
        import tensorflow as tf

        # TensorFlow lowers the threshold when a process first reads from a generator,
        # which `fit` does even with arrays: so that happens before it is raised.
        list(tf.data.Dataset.from_generator(lambda: iter([0]), tf.int32))
    trim_threshold, mmap_threshold = -1, -3  # Of malloc.h.
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
