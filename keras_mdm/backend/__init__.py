"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
"""

from keras_mdm.backend.attention import attention_kernel
from keras_mdm.backend.batches import belongs_to, host_data
from keras_mdm.backend.cpu import in_halves, prepare_cpu
from keras_mdm.backend.devices import cores, name, on_cpu
from keras_mdm.backend.keras_internals import has_stepped, steps_taken, sublayers
from keras_mdm.backend.processes import (
    connect,
    from_all,
    is_here,
    number_of_devices,
    number_of_processes,
    process_number,
    to_numpy,
    wait_for_all,
    whole_values,
)
from keras_mdm.backend.programs import compile_with_weights, run_stateless
from keras_mdm.backend.serialization import serialize
from keras_mdm.backend.sharding import (
    check_devices,
    divide_rows,
    parts_of_a_batch,
    rows_per_call,
)
from keras_mdm.backend.snapshots import changed_since, snapshot
from keras_mdm.backend.trainer import keeps_weights, sync_weights

__all__ = [
    "attention_kernel",
    "belongs_to",
    "changed_since",
    "check_devices",
    "compile_with_weights",
    "connect",
    "cores",
    "divide_rows",
    "from_all",
    "has_stepped",
    "host_data",
    "is_here",
    "in_halves",
    "keeps_weights",
    "name",
    "number_of_devices",
    "number_of_processes",
    "on_cpu",
    "parts_of_a_batch",
    "prepare_cpu",
    "process_number",
    "rows_per_call",
    "run_stateless",
    "serialize",
    "snapshot",
    "steps_taken",
    "sublayers",
    "sync_weights",
    "to_numpy",
    "wait_for_all",
    "whole_values",
]
