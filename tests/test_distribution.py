"""Several devices and processes: what is computed equals that of one device.

The devices are virtual ones of the CPU, the processes share this machine.
"""

import os
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mdm import distribution
from keras_mdm.training import state, state_file

FOLDER = os.path.dirname(__file__)
# The package beside these tests, also where another copy is installed.
PATHS = os.pathsep.join([FOLDER, os.path.dirname(FOLDER)])
ON_JAX = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone")


def _start(*arguments):
    command = [sys.executable, os.path.join(FOLDER, "devices_program.py")]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _read(output, *processes):
    for process in processes:
        text, _ = process.communicate(timeout=400)
        assert process.returncode == 0, text[-3000:]
    with np.load(f"{output}.npz") as file:
        return dict(file)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _two_processes(kind, output, resumed):
    arguments = (4, kind, output, resumed, f"127.0.0.1:{_free_port()}", 2)
    return [_start(*arguments, number) for number in range(2)]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Results of one device, which goes on with the state of two processes.

    These were killed while they wrote another one.
    """
    folder = tmp_path_factory.mktemp("devices")
    output = folder / "two"
    first, second = _two_processes("fsdp", output, f"{output}.state")
    told, _ = second.communicate(timeout=400)
    assert second.returncode == -signal.SIGKILL, told[-3000:]
    first.kill()
    told, _ = first.communicate()
    assert first.returncode == -signal.SIGKILL, told[-3000:]
    results = {
        "two": _read(output, *_two_processes("fsdp", output, f"{output}.state")),
        "one": _read(
            folder / "one", _start(1, "one", folder / "one", f"{output}.state")
        ),
    }
    return folder, results


def _check(found, expected):
    for key in set(expected) - {"shares"}:
        np.testing.assert_allclose(
            found[key], expected[key], rtol=1e-5, atol=1e-5, err_msg=key
        )
    assert len(expected["losses"]) == 20 and len(expected["resumed_losses"]) == 7
    assert np.ptp(expected["pictures"]) > 0.5 and np.ptp(expected["losses"]) > 0.01


@ON_JAX
def test_two_processes_fully_sharded(one_device):
    folder, results = one_device
    found, expected = results["two"], results["one"]
    _check(found, expected)
    assert len(found["shares"]) > 20 and set(found["shares"]) == {1 / 8}
    assert set(expected["shares"]) == {1.0}
    # The run of two processes, which was stopped, goes on as if it had not been, on two
    # processes and on one device.
    np.testing.assert_allclose(
        expected["resumed_weights"], expected["weights"], atol=1e-5
    )
    np.testing.assert_allclose(
        expected["resumed_losses"], expected["losses"][13:], 1e-5
    )
    for run in (found, expected):
        np.testing.assert_array_equal(run["loaded"], run["resumed_averages"])
    # The state in which they were killed is passed over, in both processes.
    *states, killed = state.listed(folder / "two.state")
    assert (killed.key, killed.numbers, killed.count) == ((1, 0, 6), (0,), 2)
    assert [files.count for files in states] == [2, 2, 2]
    for run in (found, expected):
        assert tuple(run["chosen"]) == states[-1].key == (1, 0, 5)
    # Each process has written what it holds, and nothing that the other holds.
    sizes = []
    for path in states[-1].paths:
        with state_file.opened(path) as (_, arrays):
            sizes.append(sum(array.nbytes for _, array in arrays))
    (alone,) = state.listed(folder / "one.copy")[-1:]
    assert alone.count == 1
    with state_file.opened(alone.path(0)) as (_, arrays):
        assert sum(sizes) == sum(array.nbytes for _, array in arrays)
    assert min(sizes) > 0.3 * sum(sizes)


@ON_JAX
@pytest.mark.parametrize(
    ("kind", "share"),
    [("data", 1.0), pytest.param("fsdp", 1 / 8, marks=pytest.mark.slow)],
)
def test_eight_devices(one_device, kind, share):
    """Which go on with the state of two processes."""
    folder, results = one_device
    output = folder / kind
    found = _read(output, _start(8, kind, output, folder / "two.state"))
    _check(found, results["one"])
    assert set(found["shares"]) == {share}


@ON_JAX
@pytest.mark.slow  # Each kind runs once here: this one on eight devices, above.
def test_two_processes_data_parallel(one_device):
    folder, results = one_device
    output = folder / "two_data"
    found = _read(output, *_two_processes("data", output, folder / "two.state"))
    _check(found, results["one"])
    assert set(found["shares"]) == {1.0}


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), []),
        ((7,), [None]),
        ((8,), ["batch"]),
        ((3, 3, 16, 32), [None, None, None, "batch"]),
        ((3, 3, 32, 32), [None, None, None, "batch"]),
        ((3, 3, 40, 36), [None, None, "batch", None]),
        ((9, 7), [None, None]),
    ],
)
def test_the_largest_axis_is_divided(shape, axes):
    assert distribution.sharded_axes(shape, 8, "batch", min_size=8) == axes


def test_small_variables_are_whole():
    assert distribution.sharded_axes((), 8, "batch", min_size=1) == []
    assert distribution.sharded_axes((255, 256), 8, "batch") == [None, None]
    assert distribution.sharded_axes((256, 256), 8, "batch") == [None, "batch"]


@ON_JAX
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("10.0.0.1", 2, 0), "`coordinator` must be 'host:port'.*'10.0.0.1'"),
        (("10.0.0.1:x", 2, 0), "`coordinator` must be 'host:port'"),
        (("10.0.0.1:70000", 2, 0), "`coordinator` must be 'host:port'"),
        (("10.0.0.1:1234", 2, 2), "`process_id` must be from 0 .*process_id=2"),
        (("10.0.0.1:1234", "2", 1), "whole numbers.*num_processes='2'"),
        (("10.0.0.1:1234", None, None), "are given together"),
        ((None, 2, 1), "are given together"),
    ],
)
def test_connect_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        distribution.connect(*arguments)


@ON_JAX
def test_a_coordinator_that_does_not_answer():
    address = f"127.0.0.1:{_free_port()}"
    with pytest.raises(ValueError, match=f"no coordinator answers at '{address}'"):
        distribution.connect(address, 2, 1, timeout=1)


ATTENDS = """
import functools, os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, keras, numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from keras_mdm.backend import attention

make = splash_attention_kernel.make_splash_mha
interpreted = functools.partial(make, interpret=True)
splash_attention_kernel.make_splash_mha = interpreted
distribution = keras.distribution.DataParallel()
keras.distribution.set_distribution(distribution)
jax.default_backend = lambda: "tpu"
rng = np.random.default_rng(0)
query, key, value = rng.normal(size=(3, 8, 128, 1, 64)).astype("float32")
mask = rng.random((8, 128)) < 0.5
rows = distribution.get_data_layout(query.shape).backend_layout
arguments = [jax.device_put(x, rows) for x in (query, key, value)]
for keep in (None, mask):
    kernel = attention.attention_kernel(query, key)
    program = jax.jit(kernel).lower(*arguments, keep).compile()
    result = program(*arguments, keep)
    assert result.sharding.is_equivalent_to(rows, 4), result.sharding
    assert "all-gather" not in program.as_text()
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / 8
    if keep is not None:
        scores = np.where(keep[:, None, None], scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", scores, value)
    np.testing.assert_allclose(result, expected, atol=1e-5)
assert attention.attention_kernel(query[:6], key[:6]) is None
"""


@ON_JAX
def test_each_device_attends_to_its_rows():
    """By the kernel for TPUs, which XLA can't divide."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": PATHS}
    subprocess.run(
        [sys.executable, "-c", ATTENDS], env=environment, check=True, timeout=120
    )


WHOLE = """
import jax, keras, keras_mdm
from keras_mdm import backend
jax.config.update("jax_num_cpu_devices", 4)
keras.distribution.set_distribution(keras_mdm.distribution.FullySharded(min_size=1))
network = keras_mdm.UNet(8, (32,), 1)
mdm = keras_mdm.MDM(network)
weights = [v.value for v in mdm.trainable_variables]
assert not all(w.sharding.is_fully_replicated for w in weights)
others = [v.value for v in mdm.non_trainable_variables]
images = keras.ops.ones((4, 8, 8, 3))
inputs = {"images": [images], "timesteps": keras.ops.zeros(4, "int32")}
call = lambda weights: mdm.stateless_call(weights, others, inputs)[0]
traced = jax.make_jaxpr(call)(weights)
found = [e for e in traced.jaxpr.eqns if e.primitive.name == "sharding_constraint"]
read = {id(v) for e in found for v in e.invars}
assert read == {id(v) for v in traced.jaxpr.invars}
assert all(e.params["sharding"].is_fully_replicated for e in found)
"""


@ON_JAX
def test_layers_compute_with_whole_weights():
    """Or a TPU's compiler divides what layers compute by channels."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": PATHS}
    subprocess.run(
        [sys.executable, "-c", WHOLE], env=environment, check=True, timeout=120
    )


JOINS = """
import sys, time
from keras_mdm import distribution
distribution.connect(sys.argv[1], 2, int(sys.argv[2]), timeout=10)
print("joined", flush=True)
time.sleep(300)
"""


@ON_JAX
@pytest.mark.parametrize("dead", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_dies_ends_the_other(dead):
    address = f"127.0.0.1:{_free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINS, address, str(number)],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": PATHS},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "joined\n"
        processes[dead].kill()
        text, _ = processes[1 - dead].communicate(timeout=60)
        assert processes[1 - dead].returncode != 0
        assert "Terminating process" in text
    finally:
        for process in processes:
            process.kill()


@ON_JAX
@pytest.mark.parametrize("devices", [[], ["cpu:99"], ["gpu:0", "cpu:0"]])
def test_devices_that_are_not_there(devices):
    with pytest.raises(ValueError, match="`devices` must be some of .*cpu:0"):
        distribution.FullySharded(devices)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="about other backends")
def test_other_backends():
    with pytest.raises(ValueError, match="`FullySharded` needs the JAX backend"):
        distribution.FullySharded()
    with pytest.raises(ValueError, match="`connect` needs the JAX backend"):
        distribution.connect("10.0.0.1:1234", 2, 0)
