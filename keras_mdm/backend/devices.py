"""Which backend and device computes. Called by the other files of this folder."""

import os

import keras


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


def device_kind():
    """Name of the first device that computes, such as `"NVIDIA H100 80GB HBM3"`."""
    if name() == "jax":
        import jax

        return jax.local_devices()[0].device_kind
    if on_cpu():
        return "cpu"
    if name() == "tensorflow":
        import tensorflow as tf

        device = tf.config.list_physical_devices("GPU")[0]
        return tf.config.experimental.get_device_details(device)["device_name"]
    import torch

    return torch.cuda.get_device_name()


def cores():
    """Number of the processor's cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()
