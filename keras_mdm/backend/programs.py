"""How runs of sampling are compiled, and how state passes through a step on JAX."""

import keras

from keras_mdm.backend.devices import name


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

        compiled = jax.jit(with_values)
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
