"""What every test shares: one compilation cache for the session, and fixed seeds."""

import gc
import importlib.metadata
import importlib.util
import os
import random
import signal
import sys
import tempfile

# Before Keras is imported. Tests build the same tiny networks again and again: with
# the cache each program is compiled once in a session, whatever the test file.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="keras_mdm_jax_cache_")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Workers of pytest-xdist are one to a core: more threads would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# What a shell runs in the background ignores Ctrl-C, and so would every test of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# PyPI's torch brings Triton, and its LLVM aborts beside those of JAX and TensorFlow.
sys.modules.setdefault("triton", None)

# Each program runs for milliseconds; optimizing it takes many times as long. XLA ends
# the process on a flag that it does not know: the last ones, which save a third and a
# tenth, are for versions where they were seen.
xla_flags = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
has_jax = importlib.util.find_spec("jaxlib")
if has_jax and importlib.metadata.version("jaxlib").startswith("0.10."):
    xla_flags.append("--xla_cpu_use_fusion_emitters=false")
    xla_flags.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(xla_flags))

# Tracing makes objects by the million, and looking through them for garbage after each
# 700 took a tenth of the time.
gc.set_threshold(20_000, 20, 20)

# Products of float32 in full. NVIDIA's GPUs would take TF32 for them and TPUs bfloat16,
# whose rounding no test here allows for.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

# The same for TensorFlow, whose rewriting of a graph takes a quarter of the time here.
# What joins functions and drops dead operations stays on: memory would grow.
if os.environ.get("KERAS_BACKEND") == "tensorflow":
    import tensorflow as tf

    off = ["layout_optimizer", "constant_folding", "shape_optimization", "remapping"]
    off += ["arithmetic_optimization", "dependency_optimization", "loop_optimization"]
    tf.config.optimizer.set_experimental_options(dict.fromkeys(off, False))

import numpy as np  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_modifyitems(items):
    """Recipes and long tests first. What comes last is divided among the workers of
    pytest-xdist: one would make the runs of recipes a second time, and wait for the
    other to end a long test."""
    first = "recipes", "test_kill_training", "test_distribution", "test_exact_resume"
    items.sort(key=lambda item: not {item.path.parent.name, item.path.stem} & {*first})


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seeds initializers; `keras.utils.set_random_seed` would import TensorFlow."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="module")
def eager_functions():
    """Functions of TensorFlow run as they stand: for modules whose models take a few
    steps each, which tracing would make take ten times as long."""
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        yield
        return
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
