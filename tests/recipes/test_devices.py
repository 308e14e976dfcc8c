"""What recipes refuse before anything is computed on several devices."""

import keras
import pytest
from keras_mdm_recipes import devices

from keras_mdm import Stage, backend

pytestmark = pytest.mark.once

ON_JAX = keras.backend.backend() == "jax"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fsdp": True, "data_parallel": True}, "one of --data-parallel and --fsdp"),
        ({"coordinator": "a:1"}, "several processes need .*coordinator='a:1'"),
        ({"process_id": 1}, "several processes need .*process_id=1"),
        ({"fsdp": True, "num_processes": 2}, "given together" if ON_JAX else "--fsdp"),
        ({"fsdp": True, "coordinator": "a"}, "given together" if ON_JAX else "JAX"),
    ],
)
def test_contradictions(options, words):
    with pytest.raises(ValueError, match=words):
        devices.prepare(**options)


@pytest.mark.skipif(ON_JAX, reason="about other backends")
@pytest.mark.parametrize("flag", ["data_parallel", "fsdp"])
def test_other_backends(flag):
    name = keras.backend.backend()
    words = f"--{flag.replace('_', '-')} needs the JAX backend.*KERAS_BACKEND.*{name}"
    with pytest.raises(ValueError, match=words):
        devices.prepare(**{flag: True})


def test_batches_that_devices_can_not_share(monkeypatch):
    monkeypatch.setattr(backend, "rows_per_call", lambda: 8)
    plan = [Stage(8, steps=1, batch_size=16), Stage(16, steps=1, batch_size=30)]
    with pytest.raises(ValueError, match="stage 2: 8 devices .*of 30 alike; 32 would"):
        devices.check_batches(plan)
    devices.check_batches(plan[:1])


def test_processes_that_disagree(monkeypatch):
    mine = {"stage": {"batch_size": [32]}, "run": {"seed": 0}, "pictures": 7}
    other = {"stage": {"batch_size": [16]}, "run": {"seed": 0}, "pictures": 7}
    monkeypatch.setattr(backend, "from_all", lambda what: [what, what])
    devices.check_agreement(mine)
    monkeypatch.setattr(backend, "from_all", lambda what: [what, what, other])
    words = r"process 2 disagrees with process 0 .*batch_size.* was 32 and is 16"
    with pytest.raises(ValueError, match=words):
        devices.check_agreement(mine)
