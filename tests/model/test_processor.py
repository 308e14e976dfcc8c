"""What `keras_mdm.backend` does for speed on a CPU, and that it changes no result."""

import sys

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    randomize,
    run_python,
    tiny_mdm,
    tiny_nest,
    trainer,
    values_of,
)

from keras_mdm import backend
from keras_mdm.backend import devices, programs

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow alone is told")

# === A batch in halves ===


@pytest.fixture
def rows(monkeypatch):
    """List that grows by the rows of the batch whenever the network is traced."""
    found, original = [], backend.in_halves

    def spy(function, inputs, jit_compile, channels):
        def noted(*args):
            found.append(keras.tree.flatten(args)[0].shape[0])
            return function(*args)

        return original(noted, inputs, jit_compile, channels)

    monkeypatch.setattr(backend, "in_halves", spy)
    return found


def whole_and_halved(compute, rows, monkeypatch):
    """Results of a batch that is too small for halves and of one that is not.

    Returns:
        A list of two triples: what `compute` returned, and the rows that were traced.
    """
    found = []
    for least in (10**9, 0):
        monkeypatch.setattr(programs, "_WORTH_HALVING", least)
        rows.clear()
        found.append((compute(), list(rows)))
    return found


@pytest.mark.parametrize(
    "options, traced, halves",
    [
        ({"labels": [2], "guidance_scale": 2.5}, [2], [1]),
        ({"labels": [0, 2], "guidance_scale": 2.5, "negative_labels": 1}, [4], [2]),
        ({"labels": [0, 1, 2], "guidance_scale": 1.0}, [3], [3]),
        (
            {"labels": [0, 1], "guidance_scale": 2.5, "guidance_interval": (0, 0.5)},
            [4, 2],
            [2, 1],
        ),
    ],
    ids=["guided", "negative", "odd", "interval"],
)
def test_halves_draw_the_same_pictures(options, traced, halves, rows, monkeypatch):
    network = randomize(tiny_nest(2, resolution=4))

    def draw():
        mdm = tiny_mdm(network=network)
        return mdm.generate(seed=5, num_steps=3, output="float", **options)

    (one, before), (other, after) = whole_and_halved(draw, rows, monkeypatch)
    if keras.backend.backend() == "torch":  # Every step calls the network anew.
        before, after = (
            sorted(set(counts), reverse=True) for counts in (before, after)
        )
    assert before == traced and after == (halves if ON_TENSORFLOW else traced)
    np.testing.assert_allclose(one, other, atol=2e-5)
    assert one.std() > 0.1


@on_tensorflow
@pytest.mark.parametrize("options", [{}, {"remat": True}], ids=["plain", "remat"])
def test_halves_train_the_same_weights(options, rows, monkeypatch):
    start = randomize(tiny_nest(2, resolution=4)).get_weights()

    def train():
        network = tiny_nest(2, resolution=4, **options)
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
def test_halves_are_evaluated_with_the_averages(rows, monkeypatch):
    network = randomize(tiny_nest(2, resolution=4))
    averages = [average * 0.7 for average in network.get_weights()]

    def evaluate():
        mdm = trainer(network)
        for average, value in zip(mdm.ema.averages, averages, strict=True):
            average.assign(value)
        return mdm.evaluate(batch_of(4, 8), batch_size=4, verbose=0)

    (one, before), (other, after) = whole_and_halved(evaluate, rows, monkeypatch)
    assert set(before) == {4} and set(after) == {2}
    assert other == pytest.approx(one, rel=1e-5)
    network.set_weights(averages)
    assert evaluate() == pytest.approx(one, rel=1e-5)


@on_tensorflow
def test_wide_networks_stay_whole(rows, monkeypatch):
    monkeypatch.setattr(programs, "_WORTH_HALVING", 0)
    mdm = trainer(randomize(tiny_nest(2, resolution=4)))
    monkeypatch.setattr(programs, "WIDE", mdm.network.widest)
    mdm.train_on_batch(batch_of(4, 8))
    mdm.generate(labels=[0, 2], guidance_scale=2.5, seed=0, num_steps=2)
    assert set(rows) == {4}


@on_tensorflow
def test_mixed_batches_stay_whole(rows, monkeypatch):
    """The rows of an outer doll are the first ones of the batch."""
    monkeypatch.setattr(programs, "_WORTH_HALVING", 0)
    network = randomize(tiny_nest(2, resolution=4))
    mdm = trainer(network, compile_options={"mixed_resolution": {8: 1, 4: 1}})
    start = network.get_weights()
    mdm.train_on_batch(batch_of(4, 8))
    assert set(rows) == {4}
    assert not equal_values(start, network.get_weights())


# === The process ===

THREADS = """
import os
os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
from keras_mdm.backend import devices
import tensorflow as tf

devices.cores = lambda: 2
{before}
devices.prepare_processor()
print(tf.config.threading.get_intra_op_parallelism_threads())
"""


@on_tensorflow
def test_an_operation_gets_one_of_two_cores():
    assert int(run_python(THREADS.format(before=""))) == 1
    too_late = "tf.zeros(1) + 1"
    assert int(run_python(THREADS.format(before=too_late))) == 0


@on_tensorflow
@pytest.mark.parametrize(
    "cores, environment, program, channels, told",
    [
        (2, None, 0, 128, [1]),
        (8, None, 0, 128, []),
        (2, "2", 0, 128, []),
        (2, None, 3, 128, []),
        (2, None, 0, 256, []),
    ],
)
def test_threads_of_others_stay(
    cores, environment, program, channels, told, monkeypatch
):
    import tensorflow as tf

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", environment)
    found, threading = [], tf.config.threading
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(devices, "_keep_freed_memory", lambda: None)
    for name, function in (
        ("get_intra_op_parallelism_threads", lambda: program),
        ("set_intra_op_parallelism_threads", found.append),
    ):
        monkeypatch.setattr(threading, name, function)
    backend.prepare_processor(channels)
    assert found == told


MEMORY = """
import pathlib
import keras
import numpy as np
from keras_mdm import backend

def resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

if {prepared}:
    backend.prepare_processor()
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(loss="mse")
pair = np.ones((4, 1)), np.ones((4, 1))
model.fit((pair for _ in range(2)), verbose=0)
large = [np.ones(1 << 18) for _ in range(100)]  # 200 MiB
before = resident()
large = None
print((before - resident()) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory of Linux")
def test_freed_memory_is_kept():
    """Also after `fit` on a generator, where TensorFlow sets how much of it is kept."""
    assert int(run_python(MEMORY.format(prepared=False))) > 150
    assert int(run_python(MEMORY.format(prepared=True))) < 20
