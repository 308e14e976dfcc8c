"""Tiny models, batches and comparisons for the behaviour tests.

Compiling is what costs in this suite. So networks here have 8 channels, one residual
block a level and no attention; and where only what surrounds a network is tested, it
has two convolutions a level.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
from keras import ops

import keras_mdm
from keras_mdm.layers import Conv3x3, TimestepEmbedding, standardize
from keras_mdm.levels import first

CLASSES = 3


@keras.saving.register_keras_serializable("keras_mdm_tests")
class LeanNetwork(keras_mdm.Denoiser):
    """A level of a nest with a convolution before and one behind what is inside."""

    image_channels = 1
    feature_channels = embedding_size = 8

    def __init__(self, resolution, inner=None, conditioner=None, dtype=None, name=None):
        name = name or f"lean_{resolution}"
        super().__init__({"resolution": resolution}, inner, conditioner, dtype, name)
        self.conv_in = Conv3x3(1, 8, dtype=dtype, name="conv_in")
        self.time_embedding = TimestepEmbedding(8, dtype=dtype, name="time_embedding")
        self.conv_out = Conv3x3(8, 1, zero=True, dtype="float32", name="conv_out")
        self.build()

    def encode_condition(self, features, drop=None):
        if self.inner is not None:
            return self.inner.encode_condition(features, drop)
        if self.own_conditioner is None:
            return None
        tokens, mask = self.own_conditioner(features, drop=drop)
        embedding = ops.mean(tokens, axis=1)
        return {"embedding": embedding, "tokens": standardize(tokens), "mask": mask}

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outer_features=None,
        training=False,
    ):
        image, rows = images[0], images[0].shape[0]
        embedding = self.time_embedding(first(timesteps, rows))
        if condition is not None:
            embedding = embedding + first(condition["embedding"], rows)
        x = self.conv_in(ops.cast(image, self.compute_dtype))
        if outer_features is not None:
            x = x + outer_features
        x, predictions = ops.silu(x + embedding[:, None, None]), []
        if self.inner is not None:
            missing = images[1].shape[0] - rows if rows else 0
            below = ops.average_pool(x, 2, 2, data_format="channels_last")
            below = ops.pad(below, [(0, missing), (0, 0), (0, 0), (0, 0)])
            inside = (images[1:], timesteps, condition, features, below, training)
            predictions, below = self.inner.denoise(*inside)
            below = ops.repeat(ops.repeat(first(below, rows), 2, axis=1), 2, axis=2)
            x = x + below
        prediction = self.conv_out(ops.cast(x, "float32"))
        return [prediction, *predictions], x


def lean_nest(levels=2, classes=CLASSES, resolution=8):
    """A nest of `levels` lean networks whose smallest has `resolution` pixels."""
    network = None
    for level in range(levels):
        conditioner = keras_mdm.ClassLabels(classes, size=8) if classes else None
        inside = {"inner": network} if level else {"conditioner": conditioner}
        network = LeanNetwork(resolution << level, **inside)
    return network


def tiny_unet(resolution=8, classes=CLASSES, channels=(8,), **options):
    """A `UNet` without attention; `classes=0` makes it unconditional."""
    options = {
        "num_residual_blocks": 1,
        "groups": 8,
        "mid_blocks": False,
        "image_channels": 1,
        **options,
    }
    if classes:
        options["conditioner"] = keras_mdm.ClassLabels(classes, size=8)
    return keras_mdm.UNet(resolution, channels, **options)


def tiny_nest(levels=2, classes=CLASSES, resolution=8, **options):
    """A nest of `levels` networks whose smallest has `resolution` pixels."""
    network = tiny_unet(resolution, classes, **options)
    shared = {k: v for k, v in options.items() if k in ("remat", "dtype")}
    for _ in range(levels - 1):
        network = keras_mdm.NestedUNet(network, (8, 8), 1, groups=8, **shared)
    return network


def tiny_mdm(levels=2, classes=CLASSES, resolution=8, network=None, **options):
    """An `MDM` of a tiny nest, by default without moving average."""
    options = {"ema_momentum": None, "seed": 0, **options}
    network = network or lean_nest(levels, classes, resolution)
    return keras_mdm.MDM(network, **options)


def trainer(network=None, optimizer=None, compile_options=None, **options):
    """A compiled tiny `MDM` of 8 and 4 pixels with a fast moving average.

    Tests that keep to these options and to batches of 4 share one compiled step.
    """
    network = network or lean_nest(2, resolution=4)
    options = {"ema_momentum": 0.5, "ema_warmup": False, **options}
    mdm = tiny_mdm(network=network, **options)
    mdm.compile(optimizer or keras.optimizers.SGD(0.01), **(compile_options or {}))
    return mdm


def uncompiled():
    """`compile` options for tests of what a step does, not of how it is compiled.

    Without XLA, eager steps are the quick ones; with it, compiled ones.
    """
    return {"run_eagerly": keras.backend.backend() != "jax"}


def randomize(network, scale=0.2, seed=0):
    """Sets every weight at random: a fresh network predicts zero whatever it sees."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        middle = float(variable.path.endswith("gamma"))
        variable.assign(rng.normal(middle, scale, variable.shape).astype("float32"))
    return network


def batch_of(size, resolution=16, channels=1, classes=CLASSES, seed=0):
    """A batch dict of random uint8 pictures and labels."""
    rng = np.random.default_rng(seed)
    batch = {
        "images": rng.integers(
            0, 256, (size, resolution, resolution, channels), dtype="uint8"
        )
    }
    if classes:
        batch["labels"] = rng.integers(0, classes, size).astype("int32")
    return batch


def values_of(variables):
    """Copies of variables as numpy arrays."""
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def equal_values(first, second):
    """Whether two lists of arrays are bit-equal."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def to_numpy(structure):
    """The tensors of a structure as numpy arrays."""
    return keras.tree.map_structure(
        lambda t: np.array(keras.ops.convert_to_numpy(t)), structure
    )


@contextlib.contextmanager
def counting(owner, name):
    """Counts the calls of a method; yields a list that grows by one for each."""
    original = getattr(owner, name)
    calls = []

    def counted(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    try:
        yield calls
    finally:
        setattr(owner, name, original)


def other_backend():
    """A backend that is installed and is not the one of this session, or `None`."""
    here = keras.backend.backend()
    for name in ("jax", "tensorflow"):
        if name != here and importlib.util.find_spec(name):
            return name
    return None


def run_python(code, backend=None, stdin=None):
    """Runs code in a new interpreter, from the folder of the tests.

    Args:
        code: str.
        backend: str. Defaults to that of this session.
        stdin: Optional str. What the code reads from standard input.

    Returns:
        What it printed.
    """
    paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment["KERAS_BACKEND"] = backend or keras.backend.backend()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def compute(function, *args):
    """Result of a function of tensors as numpy arrays, as one program on JAX.

    One by one, JAX compiles each operation of each shape.
    """
    if keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)
    return to_numpy(function(*args))


def gradient_of(function, x):
    """Gradient of a scalar function of one tensor."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(function))(keras.ops.convert_to_tensor(x))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    x = keras.ops.convert_to_tensor(x).detach().requires_grad_(True)
    function(x).backward()
    return x.grad
