"""Compiled programs: kept on the disk, and told of with the seconds that they took.

On JAX. TensorFlow keeps no programs (XLA's `--tf_xla_persistent_cache_directory` is an
experiment of its own that must be set before TensorFlow is imported), and does not say
what it compiles: nothing is done there, nor on torch.
"""

import functools
import os
import re
import threading

from keras_mdm.backend.devices import name

# Events of JAX, of all of which a program's seconds are the sum.
_PARTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_HIT = "/jax/compilation_cache/cache_hits"
# Those of single operations take less, and there are hundreds of them.
_MIN_SECONDS = 0.5


def keep_programs(folder):
    """Keeps compiled programs on the disk, so that another process need not compile.

    For programs, before they compute anything. A folder that JAX was told of, as by
    `JAX_COMPILATION_CACHE_DIR`, stays. Programs that compile in less than half a second
    are not kept.

    Args:
        folder: Path of a folder, which need not exist, or `None`: nothing is kept or
            looked up.

    Example:

    ```python
    keras_mdm.backend.keep_programs("~/.cache/keras_mdm")
    ```
    """
    if name() != "jax":
        return
    import jax

    if folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is None:
        folder = os.path.expanduser(folder)
        jax.config.update("jax_compilation_cache_dir", folder)
    # Someone may have set a shorter time; that of JAX itself is longer.
    shortest = min(jax.config.jax_persistent_cache_min_compile_time_secs, _MIN_SECONDS)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)


@functools.cache
def tell_programs(tell):
    """Calls a function for each program that is compiled from now on, once.

    Programs of less than half a second are left out.

    Args:
        tell:  Callable of the program's name, the seconds that it took to trace and to
            compile, and whether it was found among those that are kept.
    """
    if name() != "jax":
        return
    import jax

    seconds, state = {}, threading.local()

    def on_event(event, **_):
        if event == _HIT:
            state.found = True

    def on_duration(event, duration, fun_name="", **_):
        if event not in _PARTS:
            return
        program = re.sub(r"^jit\((.*)\)$", r"\1", fun_name)
        key = (threading.get_ident(), program)
        seconds[key] = seconds.get(key, 0.0) + duration
        if event == _PARTS[-1]:
            found, state.found = getattr(state, "found", False), False
            total = seconds.pop(key)
            if total >= _MIN_SECONDS:
                tell(program, total, found)

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
