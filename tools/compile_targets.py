"""Accelerators that programs are compiled for without one. For `compile_for.py`."""

import dataclasses
import importlib.util
import os
import pathlib
import sys


@dataclasses.dataclass(frozen=True)
class Card:
    """An accelerator.

    Attributes:
        kind: str. Its name, as the device itself says it.
        gibibytes: float. Its memory.
    """

    kind: str
    gibibytes: float

    @property
    def teraflops(self):
        """Peak in bfloat16 without sparsity, 10^12 operations a second."""
        from keras_mdm.backend import known_peak

        return known_peak(self.kind, "bfloat16") / 1e12


@dataclasses.dataclass(frozen=True)
class Tpu(Card):
    """A generation of TPUs, each one of which is a `Card`.

    Attributes:
        topologies: dict of number of chips to the name that libtpu has for them.
        gigahertz: float. Its clock, which turns the compiler's cycles into time.
    """

    topologies: dict
    gigahertz: float


TPUS = {
    "tpu-v4": Tpu(
        "TPU v4",
        32,
        {1: "v4:2x2x1", 4: "v4:2x2x1", 8: "v4:2x2x2", 32: "v4:2x4x4"},
        1.05,
    ),
    "tpu-v5e": Tpu(
        "TPU v5 lite",
        16,
        {
            1: "v5e:2x2",
            4: "v5e:2x2",
            8: "v5e:2x4",
            16: "v5e:4x4",
            64: "v5e:8x8",
            256: "v5e:16x16",
        },
        1.5,
    ),
    "tpu-v5p": Tpu(
        "TPU v5p",
        95,
        {1: "v5p:2x2x1", 4: "v5p:2x2x1", 8: "v5p:2x2x2", 64: "v5p:4x4x4"},
        1.75,
    ),
    "tpu-v6e": Tpu(
        "TPU v6 lite",
        32,
        {
            1: "v6e:2x2",
            4: "v6e:2x2",
            8: "v6e:2x4",
            16: "v6e:4x4",
            64: "v6e:8x8",
            256: "v6e:16x16",
        },
        1.75,
    ),
}
H100 = "h100"
CARDS = {
    H100: Card("NVIDIA H100", 79),
    "a100": Card("NVIDIA A100", 80),
    "l40s": Card("NVIDIA L40S", 45),
    "rtx4090": Card("NVIDIA GeForce RTX 4090", 24),
}

# What XLA knows of an H100 when it runs on one, as the text of its protocol buffer.
_H100_TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  ecc_enabled: true
  name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def prepare_process(device, compiles):
    """Sets this process up for a device that it does not have; before JAX is imported.

    Args:
        device: str. `"h100"` or a key of `TPUS`.
        compiles: bool. Whether the device's own compiler will be asked.
    """
    os.environ.update(
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        CUDA_VISIBLE_DEVICES="",
        TPU_SKIP_MDS_QUERY="1",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TF_CPP_MIN_LOG_LEVEL="3",
        TPU_MIN_LOG_LEVEL="3",
    )
    if device == H100 or not compiles:
        return
    library = importlib.util.find_spec("libtpu")
    if library is None:
        sys.exit(
            "error: the compiler of TPUs is not installed. Install the version that "
            "`jax[tpu]` of your jax names, such as for jax 0.10.2:\n"
            '  pip install --no-deps "libtpu==0.0.42.*"'
        )
    folder = pathlib.Path(library.origin).parent
    os.environ["TPU_LIBRARY_PATH"] = str(folder / "libtpu.so")


def pretend(device):
    """Lets the package and JAX take the roads of a device that is not there."""
    import jax

    jax.default_backend = lambda: "gpu" if device == H100 else "tpu"
    if device != H100:
        return
    import jax._src.cudnn.fused_attention_stablehlo as fused

    fused.check_compute_capability = lambda wanted: float(wanted) <= 9.0
    fused.is_cuda_compute_capability_equal = lambda wanted: wanted == "9.0"
    fused.check_cudnn_version = lambda: 91000


def divide_batches(devices):
    """Lets the package take the roads of several devices, once the model is made."""
    import types

    import keras
    from jax.sharding import Mesh

    mesh = types.SimpleNamespace(backend_mesh=Mesh(devices, ("batch",)))
    found = types.SimpleNamespace(device_mesh=mesh, batch_dim_name="batch")
    keras.distribution.distribution = lambda: found


def find_devices(device, count):
    """JAX's devices of a topology of so many chips, which only the compiler knows."""
    from jax.experimental import topologies

    if device == H100:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=_H100_TARGET, topology="1x1x1"
        )
    else:
        known = TPUS[device].topologies
        if count not in known:
            sys.exit(f"error: --devices of {device} must be one of {sorted(known)}.")
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=known[count]
        )
    return topology.devices[:count]
