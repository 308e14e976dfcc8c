"""Noise levels, step lists, sinusoids and thresholds as recorded."""

import numpy as np
import pytest
from probe import to_numpy, to_tensors
from recorded import SCHEDULES, Case, cases, to_ours, to_theirs
from test_parity_sampler import THRESHOLDS

from keras_mdm import NoiseSchedule
from keras_mdm.diffusion import Process
from keras_mdm.diffusion.guidance import threshold
from keras_mdm.diffusion.spacing import visited_timesteps
from keras_mdm.layers.embeddings import sinusoidal_embedding
from keras_mdm.training import StageLearningRate


def _check_schedule(case, official, count):
    key = f"{official}/{count}"
    schedule = NoiseSchedule(SCHEDULES[official], count)
    gamma = schedule.alphas_cumprod()
    case.check(gamma, f"{key}/gammas")
    assert gamma[0] == 1.0
    process = Process((64,), schedule, "epsilon", weighting="vdm")
    weights = process.tables[64]["weight"]
    # Entry 0 is never used: the recorded table is read at the timestep plus one.
    recorded = case.outputs[f"{key}/vdm_loss_weights"][1:]
    # Those of the official code are divided by the mean of each batch. Relative: some
    # are a thousand times larger than others.
    np.testing.assert_allclose(weights, recorded / recorded.mean(), rtol=1e-4)
    for power in case.config["powers"]:
        shifted = NoiseSchedule(SCHEDULES[official], count, shift_power=power)
        for ratio in case.config["ratios"]:
            case.check(
                shifted.alphas_cumprod(ratio), f"{key}/shift_r{ratio}_p{power}", "shift"
            )


def _check_steps(case, count, steps):
    schedule = NoiseSchedule(num_timesteps=count)
    if steps > count:
        # The official list then repeats levels, and begins above the highest one.
        with pytest.raises(ValueError, match="num_steps"):
            visited_timesteps(schedule, steps, "index")
        return
    found = visited_timesteps(schedule, steps, "index")
    np.testing.assert_array_equal(found, case.outputs[f"timesteps/{count}/{steps}"])


@pytest.mark.parametrize("name", cases("schedules"))
def test_parity_schedules(name):
    case = Case(name)
    for count in case.config["n_steps"]:
        for official in case.config["types"]:
            _check_schedule(case, official, count)
        for steps in case.config["infer_steps"]:
            _check_steps(case, count, steps)


@pytest.mark.parametrize("name", cases("schedules"))
def test_parity_sinusoids(name):
    case = Case(name)
    size = case.config["temporal_dim"] // 4
    prefix = f"time_embedding/dim{case.config['temporal_dim']}/t"
    for key in (key for key in case.outputs if key.startswith(prefix)):
        value = np.array([int(key.removeprefix(prefix))], "int32")
        found = to_numpy(sinusoidal_embedding(to_tensors(value), size))[0]
        case.check(found, key, "sinusoid")


@pytest.mark.parametrize("name", cases("schedules"))
def test_parity_thresholds(name):
    case = Case(name)
    x0 = to_tensors(to_ours(case.outputs["threshold/input"]))
    for official, (kind, percentile, maximum) in THRESHOLDS.items():
        for scale in (1, 4):
            found = threshold(kind, x0 * scale, percentile, maximum) / scale
            key = f"threshold/{official}/scale{scale}"
            case.check(to_theirs(to_numpy(found)), key, "single")


@pytest.mark.parametrize("name", cases("schedules"))
def test_parity_warmup(name):
    case = Case(name)
    for warmup_steps, count in case.config["lr"]:
        recorded = case.outputs[f"lr/warmup{warmup_steps}"]
        schedule = StageLearningRate(1.0, warmup_steps)
        found = [float(to_numpy(schedule(step))) for step in range(count)]
        np.testing.assert_allclose(found, recorded / recorded[-1], rtol=1e-6)
