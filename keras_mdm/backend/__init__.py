"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
Called by the files of `layers`, the files of `model`, `metrics.judge`, the recipes and
`tools/benchmark.py`.
"""

from keras_mdm.backend.arithmetic import (
    fused_adam,
    half_sum_of_squares,
    move_towards,
)
from keras_mdm.backend.batches import belongs_to, map_captions, with_known_shapes
from keras_mdm.backend.convolutions import (
    convolves_slowly_in,
    filter_gradient_by_products,
    slices_are_views,
    winograd_pays,
)
from keras_mdm.backend.devices import (
    cores,
    fused_attention_pays,
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
from keras_mdm.backend.training_state import KeptState

__all__ = [
    "KeptState",
    "belongs_to",
    "compile_with_weights",
    "compiler_options",
    "convolves_slowly_in",
    "cores",
    "filter_gradient_by_products",
    "fused_adam",
    "fused_attention_pays",
    "half_sum_of_squares",
    "in_halves",
    "map_captions",
    "move_towards",
    "name",
    "not_before",
    "on_cpu",
    "prepare_processor",
    "run_stateless",
    "slices_are_views",
    "winograd_pays",
    "with_compiler_options",
    "with_known_shapes",
]
