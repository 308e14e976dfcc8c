"""What only helps small networks on a CPU: the one place for it.

With threads and halves, a training step of `mdm_tiny_64` on TensorFlow takes a fifth
less time on two cores, a guided sampling step a sixth less; with the options, one on
JAX a sixth less. Called by `MDM`, `sampling.run`, `programs` and the recipes.
"""

import contextlib
import functools
import os

import keras

from keras_mdm.backend.devices import cores, name, on_cpu

# Of XLA. YNNPACK is kept for products of matrices alone: its convolutions leave cores
# idle.
_XLA_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}

# Elements of a batch, here two RGB pictures of 64 pixels. Halves of smaller ones save
# less time than the larger graph takes to compile.
_WORTH_HALVING = 2 * 64 * 64 * 3


def prepare_cpu():
    """Lets TensorFlow on two cores compute two operations at a time, one on each.

    For programs, before they compute anything: TensorFlow fixes its threads then. The
    recipes call it; a library must not decide this for the program that imports it.
    Threads that the program or `TF_NUM_INTRAOP_THREADS` set stay as they are.

    Example:

    ```python
    import keras_mdm

    keras_mdm.backend.prepare_cpu()
    mdm = keras_mdm.MDM.from_preset("mdm_tiny_64")
    ```
    """
    if name() != "tensorflow" or not on_cpu() or cores() != 2:
        return
    import tensorflow as tf

    own = os.environ.get("TF_NUM_INTRAOP_THREADS")
    if own or tf.config.threading.get_intra_op_parallelism_threads():
        return
    # Where something was computed before, threads are as they are.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


@functools.cache
def xla_options():
    """Options for `jax.jit`; `None` elsewhere, or if this version of XLA has none."""
    if name() != "jax" or not on_cpu():
        return None
    import jax

    try:
        jax.jit(lambda x: x, compiler_options=_XLA_OPTIONS)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return _XLA_OPTIONS


def in_halves(function, inputs, jit_compile):
    """Applies a function to a batch, in halves where these run at the same time.

    TensorFlow on a CPU gives each half of the batch its own cores, which waste less
    time waiting for each other than those that share every operation.

    Args:
        function: Callable of tensors (in nested structures) to tensors, whose rows do
            not depend on each other.
        inputs: Tuple of its arguments.
        jit_compile: bool. Whether TensorFlow uses XLA, which computes one operation
            after the other.

    Returns:
        The results of `function`.
    """
    if jit_compile or not _halves_pay(keras.tree.flatten(inputs)):
        return function(*inputs)
    import tensorflow as tf

    # Both halves call one graph, which is traced and optimized once.
    traced = tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )

    def half(index):
        return traced(
            *keras.tree.map_structure(
                lambda tensor: None if tensor is None else tf.split(tensor, 2)[index],
                inputs,
            )
        )

    return keras.tree.map_structure(
        lambda *tensors: tf.concat(tensors, 0), half(0), half(1)
    )


def _halves_pay(tensors):
    """Whether a graph is being made for a CPU, and the batch of tensors is even."""
    if name() != "tensorflow" or not on_cpu():
        return False
    import tensorflow as tf

    shapes = [tensor.shape for tensor in tensors if tensor is not None]
    return (
        tf.inside_function()
        and all(shape.is_fully_defined() for shape in shapes)
        # Inner levels may have more rows; those of an outer one are then the first.
        and len({shape[0] for shape in shapes}) == 1
        and shapes[0][0] % 2 == 0
        and sum(shape.num_elements() for shape in shapes) >= _WORTH_HALVING
    )
