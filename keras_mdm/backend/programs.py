"""How runs of sampling are compiled, and what surrounds a step of Keras."""

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


def run_step(model, step, args, prepare, end=None):
    """Runs a step of Keras' trainer on prepared data.

    Args:
        model: `keras.Model`.
        step: Its `train_step` or `test_step`, as Keras has them.
        args: What Keras calls that with: the data, on JAX after the state.
        prepare: Callable that makes the data of the step of the data.
        end: Optional callable without arguments, called after the step.

    Returns:
        What `step` returns. Of variables that `prepare` and `end` assign, the values
        are in the state.
    """
    if name() != "jax":
        logs = step(prepare(*args))
        if end is not None:
            end()
        return logs
    state, data = args
    data, state = _run_stateless(model, state, prepare, data)
    logs, state = step(state, data)
    if end is not None:
        _, state = _run_stateless(model, state, end)
    return logs, state


def _run_stateless(model, state, function, *args):
    """The result of a function that reads and assigns variables, and the new state."""
    kinds = [model.trainable_variables, model.non_trainable_variables]
    kinds += [model.optimizer.variables] if len(state) == 4 else []  # Of training.
    kinds.append(model.metrics_variables)
    variables = [v for kind in kinds for v in kind]
    values = [value for kind in state for value in kind]
    pairs = list(zip(variables, values, strict=True))
    with keras.StatelessScope(state_mapping=pairs) as scope:
        result = function(*args)
    return result, tuple([scope.get_current_value(v) for v in kind] for kind in kinds)
