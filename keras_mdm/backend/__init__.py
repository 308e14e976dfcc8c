"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
"""

from keras_mdm.backend.attention import attention_kernel
from keras_mdm.backend.compilation import keep_programs, tell_programs
from keras_mdm.backend.cpu import in_halves, prepare_cpu
from keras_mdm.backend.devices import cores, device_kind, name, on_cpu
from keras_mdm.backend.keras_internals import (
    has_stepped,
    inner_optimizer,
    is_schedule_free,
    schedule_free_averages,
    steps_taken,
    sublayers,
)
from keras_mdm.backend.parts import (
    assign_parts,
    bounds_here,
    parts_to_write,
    whole_bounds,
)
from keras_mdm.backend.peak import known_peak, measured_peak, peak_flops
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
from keras_mdm.backend.programs import compile_with_weights, run_step
from keras_mdm.backend.serialization import check_classes, deserialize, serialize
from keras_mdm.backend.sharding import (
    check_devices,
    divide_rows,
    parts_of_a_batch,
    rows_per_call,
)
from keras_mdm.backend.snapshots import changed_since, snapshot
from keras_mdm.backend.trainer import (
    host_data,
    keeps_weights,
    learning_rate,
    newest,
    sync_weights,
)
