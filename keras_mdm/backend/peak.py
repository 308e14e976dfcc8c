"""How fast a device multiplies at best, which the speed of training is judged by."""

import functools
import re
import time

import keras
import numpy as np

from keras_mdm.backend.devices import device_kind, on_cpu

# Words of a device's name: dense 10^12 operations a second by its maker's data sheet,
# in bfloat16 (or float16), accumulated in float32, and of float32 products as XLA makes
# them unless told otherwise: in TF32 on NVIDIA, in one pass of bfloat16 on a TPU.
_TERAFLOPS = {
    "h100": (989, 494.5),
    "h100 pcie": (756, 378),
    "h100 nvl": (835, 417.5),
    "h200": (989, 494.5),
    "gh200": (989, 494.5),
    "b200": (2250, 1125),
    "a100": (312, 156),
    "a40": (149.7, 74.8),
    "l4": (121, 60),
    "l40": (181, 90.5),
    "l40s": (362, 183),
    "rtx 3090": (71, 35.6),
    "rtx 4090": (165.2, 82.6),
    "rtx 5090": (209.5, 104.8),
    "rtx 6000 ada": (364.2, 182.1),
    "tpu v4": (275, 275),
    "tpu v5 lite": (197, 197),
    "tpu v5p": (459, 459),
    "tpu v5": (459, 459),
    "tpu v6 lite": (918, 918),
}
# Of a part of a device, or a slower kind, the name has one of these words too.
_OTHERS = {"mig", "laptop", "ti", "d"}
_MEASURED_SIZE = {True: 1024, False: 8192}  # By whether it is a CPU.


def known_peak(kind, dtype):
    """Peak of a device by its name.

    Args:
        kind: str, such as `"NVIDIA H100 80GB HBM3"` or `"TPU v5 lite"`.
        dtype: str. That of the products.

    Returns:
        FLOPs a second, or `None` if it is not in the table.
    """
    words = set(re.findall(r"[a-z0-9]+", kind.lower()))
    found = [key for key in _TERAFLOPS if words.issuperset(key.split())]
    if not found or words & _OTHERS or dtype not in ("bfloat16", "float16", "float32"):
        return None
    best = max(found, key=lambda key: len(key.split()))
    return _TERAFLOPS[best][dtype == "float32"] * 1e12


def measured_peak(dtype, size=None, repeat=8):
    """Rate of the fastest of several products of square matrices.

    On a CPU by numpy too, since an operation of TensorFlow may use one core only.

    Args:
        dtype: str.
        size: int. Rows of a matrix. Defaults to what takes a device some milliseconds.
        repeat: int.

    Returns:
        FLOPs a second.
    """
    size = size or _MEASURED_SIZE[on_cpu()]
    numbers = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
    tensor = keras.ops.convert_to_tensor(numbers, dtype)
    products = [lambda: keras.ops.matmul(tensor, tensor)]
    if on_cpu() and dtype == "float32":
        products.append(lambda: numbers @ numbers)
    seconds = []
    for product in products:
        product()
        for _ in range(repeat):
            start = time.perf_counter()
            float(product()[0, 0])  # Waits for the result.
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


@functools.cache
def peak_flops(dtype):
    """Peak of one device of this process; what must be measured is measured once.

    Args:
        dtype: str. That of products, such as `"bfloat16"`.

    Returns:
        A pair: FLOPs a second, and whether they were measured, as of no known device.
    """
    known = known_peak(device_kind(), dtype)
    return (measured_peak(dtype), True) if known is None else (known, False)
