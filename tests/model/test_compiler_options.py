"""What XLA is told on a CPU, wherever this package lets it compile."""

import keras
import numpy as np
import pytest
from helpers import batch_of, trainer

from keras_mdm import backend
from keras_mdm.backend import programs
from keras_mdm.metrics import Judge

LEVEL = "xla_backend_optimization_level"
LIBRARY = "xla_cpu_experimental_ynn_fusion_type"

on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX alone takes options"
)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    backend.compiler_options.cache_clear()
    yield
    backend.compiler_options.cache_clear()


@pytest.fixture
def asked(monkeypatch):
    """List of the options of each `jax.jit`."""
    import jax

    found, jit = [], jax.jit

    def spy(function, *, compiler_options=None, **kwargs):
        found.append(compiler_options)
        return jit(function, compiler_options=compiler_options, **kwargs)

    monkeypatch.setattr(jax, "jit", spy)
    monkeypatch.setattr("keras.src.backend.jax.trainer.jit", spy)
    return found


@on_jax
def test_flags_of_the_user_and_unknown_options_are_left_out(monkeypatch):
    assert backend.compiler_options()[LEVEL] == 1
    monkeypatch.setenv("XLA_FLAGS", f"--{LEVEL}=3")
    monkeypatch.setitem(programs._CPU_OPTIONS, "xla_no_such_option", 1)
    backend.compiler_options.cache_clear()
    assert set(backend.compiler_options()) <= {LIBRARY}


@on_jax
def test_training_evaluation_and_sampling_use_them(asked):
    options = backend.compiler_options()
    asked.clear()
    mdm, data = trainer(), batch_of(4, 8)
    mdm.train_on_batch(data)
    assert asked == [options]
    mdm.test_on_batch(data)
    mdm.generate(labels=[0], num_steps=1)
    assert asked == [options] * len(asked) and len(asked) > 2


@on_jax
def test_a_judge_uses_them(asked):
    """It compiles one step for all epochs, as `fit` does."""
    options = backend.compiler_options()
    judge, images = Judge(8, 1, num_classes=2), np.zeros((4, 8, 8, 1), "uint8")
    asked.clear()
    judge.fit(images, [0, 1, 0, 1], epochs=2, batch_size=4)
    assert asked[0] == options and asked.count(options) == 1


@on_jax
def test_other_models_do_not(asked):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    trainer().make_train_function()
    asked.clear()
    model.train_on_batch(np.zeros((4, 2)), np.zeros((4, 1)))
    assert asked[0] is None


@on_jax
def test_a_keras_that_compiles_otherwise_keeps_its_way(monkeypatch):
    monkeypatch.setattr("keras.src.backend.jax.trainer.jit", print)
    with backend.with_compiler_options():
        assert keras.src.backend.jax.trainer.jit is print


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX takes options")
def test_other_backends_have_none():
    assert backend.compiler_options() is None
