"""The few lines that differ from backend to backend, in one place.

Everything else in the package is written with `keras.ops` and runs on every backend.
Called by `layers.attention`, the files of `model`, `metrics.judge`, the recipes and
`tools/benchmark.py`.
"""

import contextlib
import ctypes
import functools
import os

import keras

# Of XLA on a CPU. Its convolutions by YNNPACK leave cores idle: without them a training
# step took 13 to 28 % less time on two cores. The highest levels of optimisation cost
# seconds and gain nothing here.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_backend_optimization_level": 1,
}

# Elements of a batch, here two RGB pictures of 64 pixels. Halves of smaller ones save
# less time than the larger graph takes to compile.
_WORTH_HALVING = 2 * 64 * 64 * 3


def name():
    """Name of the backend that Keras runs on."""
    return keras.backend.backend()


def on_cpu():
    """Whether computations run on the processor rather than on an accelerator."""
    if name() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    if name() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    import torch

    return not torch.cuda.is_available()


def cores():
    """Number of the processor's cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def fused_attention_pays():
    """Whether `ops.dot_product_attention` beats an einsum on this device.

    On JAX' CPU backend it is 3.5 times slower.
    """
    return name() == "torch" or (name() == "jax" and not on_cpu())


def prepare_processor():
    """Settings of a process that trains or samples on a CPU, where they save time.

    For programs, before they compute anything: TensorFlow fixes its threads then. The
    recipes call it; a library must not decide this for the program that imports it.

    - TensorFlow on two cores computes two operations at a time, on one core each,
      rather than each on both. A forward pass of a single sample takes longer so, steps
      of training and of guided sampling less. Threads that the program or
      `TF_NUM_INTRAOP_THREADS` set stay as they are.
    - Memory that is freed is kept, where glibc manages it. Otherwise each large tensor
      is mapped and handed back to Linux at every step.

    Example:

    ```python
    import keras_mdm

    keras_mdm.backend.prepare_processor()
    mdm = keras_mdm.MDM.from_preset("mdm_tiny_64")
    ```
    """
    if name() == "tensorflow" and on_cpu():
        _compute_operations_side_by_side()
    _keep_freed_memory()


def _compute_operations_side_by_side():
    import tensorflow as tf

    own = os.environ.get("TF_NUM_INTRAOP_THREADS")
    threading = tf.config.threading
    if own or threading.get_intra_op_parallelism_threads() or cores() != 2:
        return
    # Where something was computed before, threads are as they are.
    with contextlib.suppress(RuntimeError):
        threading.set_intra_op_parallelism_threads(1)


def _keep_freed_memory():
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if name() == "tensorflow":
        import tensorflow as tf

        # TensorFlow lowers the threshold when a process first reads from a generator,
        # which `fit` does even with arrays: so that happens before it is raised.
        list(tf.data.Dataset.from_generator(lambda: iter([0]), tf.int32))
    trim_threshold, mmap_threshold = -1, -3  # Of malloc.h.
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)


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
        # Inner dolls may have more rows; those of an outer one are then the first ones.
        and len({shape[0] for shape in shapes}) == 1
        and shapes[0][0] % 2 == 0
        and sum(shape.num_elements() for shape in shapes) >= _WORTH_HALVING
    )


def with_known_shapes(data, example):
    """Data whose batches TensorFlow knows the shape of before it traces a step.

    Keras declares the batch size of grain data sets, PyDatasets and generators unknown
    to TensorFlow, so mixed batches could not be cut and XLA would compile each size.

    Args:
        data: Iterable of batches, all of the shapes of `example`.
        example: One batch: nested structure of arrays.

    Returns:
        A `tf.data.Dataset` on TensorFlow, `data` on the other backends.
    """
    if name() != "tensorflow":
        return data
    import tensorflow as tf

    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), example
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(data), output_signature=signature
    )
    if hasattr(data, "__len__"):
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(data)))
    return dataset.prefetch(2)


def fused_adam():
    """Adam's update of one weight as one operation, or `None` if there is none.

    Returns:
        `None`, or a callable of the weight, both moments, the powers of both betas, the
        learning rate, the betas, epsilon and the gradient.
    """
    if name() != "tensorflow":
        return None
    import tensorflow as tf

    def handle(variable):
        # Keras hands over the weight as TensorFlow's variable, moments as its own.
        return (variable if hasattr(variable, "handle") else variable.value).handle

    def update(weight, first, second, powers, rate, betas, epsilon, gradient):
        tf.raw_ops.ResourceApplyAdam(
            var=handle(weight),
            m=handle(first),
            v=handle(second),
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=betas[0],
            beta2=betas[1],
            epsilon=epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    return update


def half_sum_of_squares(x):
    """Half the sum of squares of a float tensor's elements, in one pass over it."""
    if name() != "tensorflow":
        return 0.5 * keras.ops.sum(keras.ops.square(x))
    import tensorflow as tf

    return tf.nn.l2_loss(x)


def move_towards(variable, value, share):
    """Moves a variable a share of the way to a value, in few passes over memory."""
    if name() != "tensorflow":
        variable.assign(variable + (value - variable) * share)
        return
    import tensorflow as tf

    tf.raw_ops.ResourceApplyGradientDescent(
        var=variable.value.handle, alpha=share, delta=variable.value - value
    )


def belongs_to(value, package):
    """Whether a value's class, or one that it derives from, is a package's."""
    return any(c.__module__.split(".")[0] == package for c in type(value).__mro__)


def map_captions(data, prepare, example):
    """A tf.data data set whose batches go through `prepare` on the host.

    Args:
        data: `tf.data.Dataset` of batch dicts with `captions`, or of tuples that begin
            with one.
        prepare: Callable from a dict of numpy arrays to one without `captions`.
        example: The first batch.

    Returns:
        A `tf.data.Dataset`.
    """
    import tensorflow as tf

    names = sorted(example)
    result = prepare({name: example[name].numpy() for name in names})
    kept = sorted(result)

    def encode(batch):
        def on_host(*arrays):
            found = prepare(dict(zip(names, arrays, strict=True)))
            return [found[name] for name in kept]

        values = tf.numpy_function(
            on_host,
            [batch[name] for name in names],
            [result[name].dtype for name in kept],
        )
        for name, value in zip(kept, values, strict=True):
            # Entries of the batch keep what tf.data knows of their shape.
            pictures = batch["videos" if "videos" in batch else "images"]
            known = pictures.shape[:1].concatenate(result[name].shape[1:])
            value.set_shape(batch[name].shape if name in batch else known)
        return dict(zip(kept, values, strict=True))

    def map_element(*element):
        encoded = encode(element[0])
        return (encoded, *element[1:]) if len(element) > 1 else encoded

    return data.map(map_element, num_parallel_calls=tf.data.AUTOTUNE)


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
