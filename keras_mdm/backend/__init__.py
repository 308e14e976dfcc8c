"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
"""

from keras_mdm.backend.attention import attention_kernel
from keras_mdm.backend.batches import (
    belongs_to,
    host_data,
    parts_of_a_batch,
    refuse_replicas,
    step_of_each_shape,
)
from keras_mdm.backend.devices import cores, name, on_cpu
from keras_mdm.backend.programs import compile_with_weights, run_stateless
from keras_mdm.backend.snapshots import changed_since, snapshot
from keras_mdm.backend.training_state import KeptState

__all__ = [
    "KeptState",
    "attention_kernel",
    "belongs_to",
    "changed_since",
    "compile_with_weights",
    "cores",
    "host_data",
    "name",
    "on_cpu",
    "parts_of_a_batch",
    "refuse_replicas",
    "run_stateless",
    "snapshot",
    "step_of_each_shape",
]
