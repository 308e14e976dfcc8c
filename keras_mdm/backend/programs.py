"""How steps of training and runs of sampling are compiled and what runs side by side.

Called by the files of `model` and by `metrics.judge`.
"""

import contextlib
import functools
import os

import keras

from keras_mdm.backend.devices import WIDE, name, on_cpu

# Of XLA on a CPU. YNNPACK is kept for products of matrices alone: its convolutions
# leave cores idle, and without them a training step took 13 to 28 % less time on two
# cores. The highest levels of optimisation cost seconds and gain nothing here.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "xla_backend_optimization_level": 1,
}

# Elements of a batch, here two RGB pictures of 64 pixels. Halves of smaller ones save
# less time than the larger graph takes to compile.
_WORTH_HALVING = 2 * 64 * 64 * 3


@functools.cache
def compiler_options():
    """Options for `jax.jit` on a CPU; `None` on other backends and devices.

    Those that `XLA_FLAGS` sets or that this version of XLA does not know are left out.
    """
    if name() != "jax" or not on_cpu():
        return None
    import jax

    def is_known(option):
        try:
            jax.jit(lambda x: x, compiler_options=option)(0.0)
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {
        key: value
        for key, value in _CPU_OPTIONS.items()
        if key not in os.environ.get("XLA_FLAGS", "") and is_known({key: value})
    }


@contextlib.contextmanager
def with_compiler_options():
    """Lets Keras compile steps of training with `compiler_options` inside it.

    It has no way to ask for that. Steps are as correct, and slower, without.
    """
    options = compiler_options()
    if not options:
        yield
        return
    import jax
    from keras.src.backend.jax import trainer

    own = getattr(trainer, "jit", None)
    if own is not jax.jit:
        yield
        return
    trainer.jit = functools.partial(own, compiler_options=options)
    try:
        yield
    finally:
        trainer.jit = own


def compile_with_weights(function, variables, substitutes, jit_compile, dtypes=None):
    """Compiles a function that reads variables, for many calls.

    The current values of `substitutes` are used at each call, so weights that change
    between calls are seen; nothing that the function assigns is kept.

    Args:
        function: Callable of tensors (in nested structures) to tensors.
        variables: List of the variables that `function` reads.
        substitutes: List of variables that lend their values to `variables`: the
            same ones, or moving averages of them.
        jit_compile: bool. Whether TensorFlow uses XLA. JAX always does.
        dtypes: Optional list of str. The dtype that each value is given before
            `function` runs, which saves loops inside it from casting weights at every
            turn. Defaults to those that `variables` have.

    Returns:
        A callable with the arguments and results of `function`.
    """
    dtypes = dtypes or [variable.dtype for variable in variables]

    def with_values(values, *args):
        with keras.StatelessScope() as scope:
            for variable, value, dtype in zip(variables, values, dtypes, strict=True):
                # The scope's own `state_mapping` would cast back.
                scope.add_update((variable, keras.ops.cast(value, dtype)))
            return function(*args)

    if name() == "jax":
        import jax

        compiled = jax.jit(with_values, compiler_options=compiler_options())
        return lambda *args: compiled([s.value for s in substitutes], *args)

    def with_current_values(*args):
        return with_values([s.value for s in substitutes], *args)

    if name() == "tensorflow":
        import tensorflow as tf

        # Nothing here needs Python control flow turned into graph operations.
        return tf.function(
            with_current_values, jit_compile=jit_compile, autograph=False
        )

    import torch

    return torch.no_grad()(with_current_values)


def run_stateless(model, state, function, with_optimizer=False):
    """Runs `function` on a JAX training state and returns the changed state.

    Args:
        model: The `keras.Model` whose state it is.
        state: Tuple of lists as in `keras.Model.train_step` on JAX, or `test_step`.
        function: Callable without arguments that reads and assigns variables.
        with_optimizer: bool. Whether optimizer variables are read; they and the
            trainable variables must not be assigned.

    Returns:
        A pair: result of `function`, and the state.
    """
    trainable, non_trainable, *rest = state
    mapping = list(zip(model.trainable_variables, trainable, strict=True))
    mapping += list(zip(model.non_trainable_variables, non_trainable, strict=True))
    if with_optimizer:
        mapping += list(zip(model.optimizer.variables, rest[0], strict=True))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        result = function()
    non_trainable = [scope.get_current_value(v) for v in model.non_trainable_variables]
    return result, (trainable, non_trainable, *rest)


def not_before(other, value):
    """`value`, for computations that shall wait for another tensor.

    TensorFlow computes whatever it can, and keeps in memory what is made early and what
    two places have in common. XLA finds an order of its own.
    """
    if name() != "tensorflow":
        return value
    import tensorflow as tf

    with tf.control_dependencies([other]):
        return tf.identity(value)


def in_halves(function, inputs, jit_compile, channels):
    """Applies a function to a batch, in halves where these run at the same time.

    TensorFlow on a CPU gives each half of the batch its own cores, which waste less
    time waiting for each other than those that share every operation. Wide networks
    would read their weights twice instead.

    Args:
        function: Callable of tensors (in nested structures) to tensors, whose rows do
            not depend on each other.
        inputs: Tuple of its arguments.
        jit_compile: bool. Whether TensorFlow uses XLA, which computes one operation
            after the other.
        channels: int. The most channels that a network in `function` has.

    Returns:
        The results of `function`.
    """
    if jit_compile or channels >= WIDE or not _halves_pay(keras.tree.flatten(inputs)):
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
        # Inner dolls may have more rows; those of an outer one are then the first ones.
        and len({shape[0] for shape in shapes}) == 1
        and shapes[0][0] % 2 == 0
        and sum(shape.num_elements() for shape in shapes) >= _WORTH_HALVING
    )
