"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
Called by the files of `layers`, the files of `model`, `metrics.judge`, the recipes and
`tools/benchmark.py`.
"""

from keras_mdm.backend.arithmetic import (
    fused_adam,
    move_towards,
    sum_of_squares,
)
from keras_mdm.backend.attention import attention_kernel
from keras_mdm.backend.batches import (
    belongs_to,
    host_data,
    parts_of_a_batch,
    refuse_replicas,
    step_of_each_shape,
)
from keras_mdm.backend.convolutions import (
    convolves_slowly_in,
    filter_gradient_by_products,
    slices_are_views,
    winograd_pays,
)
from keras_mdm.backend.devices import (
    cores,
    name,
    on_cpu,
    prepare_processor,
)
from keras_mdm.backend.programs import (
    compile_with_weights,
    compiler_options,
    in_halves,
    not_before,
    run_stateless,
    with_compiler_options,
)
from keras_mdm.backend.snapshots import changed_since, snapshot
from keras_mdm.backend.training_state import KeptState

__all__ = [
    "KeptState",
    "attention_kernel",
    "belongs_to",
    "changed_since",
    "compile_with_weights",
    "compiler_options",
    "convolves_slowly_in",
    "cores",
    "filter_gradient_by_products",
    "fused_adam",
    "host_data",
    "in_halves",
    "move_towards",
    "name",
    "not_before",
    "on_cpu",
    "parts_of_a_batch",
    "prepare_processor",
    "refuse_replicas",
    "run_stateless",
    "slices_are_views",
    "snapshot",
    "sum_of_squares",
    "step_of_each_shape",
    "winograd_pays",
    "with_compiler_options",
]
