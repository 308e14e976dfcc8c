"""What `backend.cpu` does for speed changes no result."""

import keras
import numpy as np
import pytest
from helpers import batch_of, randomize, tiny_mdm, tiny_nest, trainer, values_of

from keras_mdm import backend
from keras_mdm.backend import cpu

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow alone is told")


@pytest.fixture
def rows(monkeypatch):
    """List that grows by the rows of the batch whenever the network is traced."""
    found, original = [], backend.in_halves

    def spy(function, inputs, jit_compile):
        def noted(*args):
            found.append(keras.tree.flatten(args)[0].shape[0])
            return function(*args)

        return original(noted, inputs, jit_compile)

    monkeypatch.setattr(backend, "in_halves", spy)
    return found


def whole_and_halved(compute, rows, monkeypatch):
    """Results and traced rows of a batch too small for halves, and of halves."""
    found = []
    for least in (10**9, 0):
        monkeypatch.setattr(cpu, "_WORTH_HALVING", least)
        rows.clear()
        found.append((compute(), list(rows)))
    return found


@pytest.mark.parametrize(
    "options, traced, halves",
    [
        ({"labels": [0, 2], "guidance_scale": 2.5, "negative_labels": 1}, [4], [2]),
        ({"labels": [0, 1, 2], "guidance_scale": 1.0}, [3], [3]),
    ],
    ids=["negative", "odd"],
)
def test_halves_draw_the_same_pictures(options, traced, halves, rows, monkeypatch):
    network = randomize(tiny_nest(2, resolution=4))

    def draw():
        mdm = tiny_mdm(network=network)
        return mdm.generate(seed=5, num_steps=3, output="float", **options)

    (one, before), (other, after) = whole_and_halved(draw, rows, monkeypatch)
    assert before == traced and after == (halves if ON_TENSORFLOW else traced)
    np.testing.assert_allclose(one, other, atol=2e-5)
    assert one.std() > 0.1


@on_tensorflow
def test_halves_train_the_same_weights(rows, monkeypatch):
    start = randomize(tiny_nest(2, resolution=4)).get_weights()

    def train():
        network = tiny_nest(2, resolution=4)
        network.set_weights(start)
        mdm = trainer(network)
        for seed in range(2):
            mdm.train_on_batch(batch_of(4, 8, seed=seed))
        return values_of(network.variables)

    (one, before), (other, after) = whole_and_halved(train, rows, monkeypatch)
    assert set(before) == {4} and set(after) == {2}
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    moved = [not np.array_equal(a, b) for a, b in zip(start, other, strict=True)]
    assert np.mean(moved) > 0.8


@on_tensorflow
def test_mixed_batches_stay_whole(rows, monkeypatch):
    """The rows of an outer network are the first ones of the batch."""
    monkeypatch.setattr(cpu, "_WORTH_HALVING", 0)
    network = randomize(tiny_nest(2, resolution=4))
    mdm = trainer(network, compile_options={"mixed_resolution": {8: 1, 4: 1}})
    mdm.train_on_batch(batch_of(4, 8))
    assert set(rows) == {4}


@on_tensorflow
@pytest.mark.parametrize(
    "cores, environment, program, told",
    [(2, None, 0, [1]), (8, None, 0, []), (2, "2", 0, []), (2, None, 3, [])],
)
def test_threads_of_others_stay(cores, environment, program, told, monkeypatch):
    import tensorflow as tf

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", environment)
    found, threading = [], tf.config.threading
    monkeypatch.setattr(cpu, "cores", lambda: cores)
    for name, function in (
        ("get_intra_op_parallelism_threads", lambda: program),
        ("set_intra_op_parallelism_threads", found.append),
    ):
        monkeypatch.setattr(threading, name, function)
    backend.prepare_cpu()
    assert found == told


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="options of XLA for JAX")
def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    cpu.xla_options.cache_clear()
    monkeypatch.setattr(cpu, "_XLA_OPTIONS", {"xla_no_such_option": True})
    try:
        assert cpu.xla_options() is None
    finally:
        cpu.xla_options.cache_clear()
