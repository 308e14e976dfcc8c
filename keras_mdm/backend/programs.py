"""How runs of sampling are compiled, and how state passes through a step on JAX."""

import keras

from keras_mdm.backend.cpu import xla_options
from keras_mdm.backend.devices import name


def compile_with_weights(function, variables, jit_compile):
    """Compiles a function that reads variables, whose values are an argument.

    Weights that change between calls are seen so, and raw and averaged weights share a
    program. Nothing that the function assigns is kept.

    Args:
        function: Callable of tensors (in nested structures) to tensors.
        variables: List of the variables that `function` reads.
        jit_compile: bool. Whether TensorFlow uses XLA. JAX always does.

    Returns:
        A callable of a list of tensors, which are read in the place of `variables`
        (their own values, or those of moving averages), and then the arguments of
        `function`; with its results. Of variables of its own in place of tensors,
        TensorFlow would trace a program for each list.
    """

    def with_values(current, *args, **kwargs):
        pairs = list(zip(variables, current, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function(*args, **kwargs)

    # What JAX calls the program, in errors, profiles and `tell_programs`.
    with_values.__name__ = getattr(function, "__name__", "sample")
    if name() == "jax":
        import jax

        return jax.jit(with_values, compiler_options=xla_options())
    if name() == "tensorflow":
        import tensorflow as tf

        # Nothing here needs Python control flow turned into graph operations.
        return tf.function(with_values, jit_compile=jit_compile, autograph=False)
    import torch

    return torch.no_grad()(with_values)


def run_stateless(model, state, function, with_optimizer=False):
    """Runs `function` on a JAX training state and returns the changed state.

    Args:
        model: The `keras.Model` whose state it is.
        state: Tuple of lists as in `keras.Model.train_step` on JAX, or `test_step`.
        function: Callable without arguments that reads and assigns variables.
        with_optimizer: bool. Whether optimizer variables are read and metrics
            assigned; optimizer and trainable variables must not be.

    Returns:
        A pair: result of `function`, and the state.
    """
    trainable, non_trainable, *rest = state
    mapping = list(zip(model.trainable_variables, trainable, strict=True))
    mapping += list(zip(model.non_trainable_variables, non_trainable, strict=True))
    if with_optimizer:
        mapping += list(zip(model.optimizer.variables, rest[0], strict=True))
        mapping += list(zip(model.metrics_variables, rest[1], strict=True))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        result = function()
    non_trainable = [scope.get_current_value(v) for v in model.non_trainable_variables]
    if with_optimizer:
        rest[1] = [scope.get_current_value(v) for v in model.metrics_variables]
    return result, (trainable, non_trainable, *rest)
