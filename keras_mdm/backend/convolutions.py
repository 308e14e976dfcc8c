"""Which way of computing a 3x3 convolution is the fastest here.

Measured on two cores with AVX-512 and without it. Called by `layers.convolution`.
"""

import functools
import pathlib

from keras_mdm.backend.devices import WIDE, name, on_cpu


def filter_gradient_by_products(channels, dtype):
    """Whether products of matrices beat the backend's gradient of a 3x3 filter.

    They are up to twice as fast with wide filters. With narrow ones JAX is slower, and
    TensorFlow gains less time than it takes to compile. With AVX-512 TensorFlow's own
    gradient is as fast as a product.

    Args:
        channels: int. The smaller one of the filter's inputs and outputs.
        dtype: str. That of the picture and the filter.
    """
    if name() not in ("jax", "tensorflow") or not on_cpu():
        return False
    if name() == "jax":
        return channels >= WIDE
    return dtype == "float32" and channels >= 64 and not _has_avx512()


def winograd_pays(what, pixels, channels, dtype):
    """Whether Winograd's algorithm beats the backend's own 3x3 convolution.

    TensorFlow's convolutions of 256 channels and more took 1.3 to 5 times as long, nine
    products for the gradient of a filter 1.2 to 2.6 times; with AVX-512 up to twice as
    long. Smaller pictures are not worth the transformation of the filter. XLA gains in
    gradients of filters alone.

    Args:
        what: str. `"convolution"`, which is also the gradient of its input, or
            `"filter_gradient"`.
        pixels: int. Pixels of a picture.
        channels: int. The smaller one of the filter's inputs and outputs.
        dtype: str. That of the picture and the filter; sums of Winograd's kind need
            float32.
    """
    least = {
        ("tensorflow", "convolution"): 16 * 16,
        ("tensorflow", "filter_gradient"): 16 * 16,
        ("jax", "filter_gradient"): 32 * 32,
    }.get((name(), what))
    if least is None or dtype != "float32" or not on_cpu():
        return False
    return pixels >= least and channels >= 128


def convolves_slowly_in(dtype):
    """Whether convolutions in a dtype take far longer than in float32.

    TensorFlow has none in bfloat16 that are made for CPUs without AVX-512: training
    took ten times as long.
    """
    if dtype != "bfloat16" or name() != "tensorflow":
        return False
    return on_cpu() and not _has_avx512()


@functools.cache
def _has_avx512():
    """Whether this is an x86 processor with AVX-512; known under Linux alone."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return "avx512f" in next(flags, "").split()


def slices_are_views():
    """Whether a range of rows of a matrix is read where it lies, without a copy."""
    return name() == "tensorflow"
