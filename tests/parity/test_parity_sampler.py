"""Sampler runs as recorded: every step, and single updates of given predictions.

`SamplingRun` is driven step by step with the recorded noise. Each step is taken twice:
from our own last picture, where errors pile up, and from the recorded one.
"""

import itertools

import numpy as np
import pytest
from probe import fast, to_numpy, to_tensors
from recorded import PREDICTIONS, Case, cases, to_ours, to_theirs

import keras_mdm
from keras_mdm.diffusion.samplers import get_sampler
from keras_mdm.diffusion.spacing import index_spacing
from keras_mdm.sampling.plan import RunKind, plan
from keras_mdm.sampling.run import SamplingRun
from keras_mdm.sampling.settings import SamplingSettings

THRESHOLDS = {
    "NONE": ("none", 0.0, 1.0),
    "CLIP": ("static", 0.0, 1.0),
    "DYNAMIC": ("dynamic", 0.995, 100.0),
    "DYNAMIC_IF": ("dynamic", 0.95, 1.5),
}


class CompiledNetwork:
    """A network whose methods are compiled once for all runs."""

    def __init__(self, network):
        self._network = network
        variables = network.variables
        self.denoise = fast(network.denoise, variables, repeated=True)
        self.encode_condition = fast(network.encode_condition, variables)

    def __getattr__(self, name):
        return getattr(self._network, name)


class Constant:
    """A network that says what was recorded, whatever it is given."""

    def __init__(self, network, predictions):
        self.levels = network.levels
        self.predictions = predictions

    def denoise(self, *args):
        return self.predictions, None


def _sampling_run(case, network, run, threshold, spacing="index"):
    """Our sampling run of a recorded one, its plan and its options."""
    _, sampler = case.sampler_config(run)
    mdm = keras_mdm.MDM(
        network,
        case.schedule(run),
        prediction=PREDICTIONS[sampler["prediction_type"]],
        ema_momentum=None,
    )
    guidance = float(run.get("guidance", 1))
    kind, percentile, maximum = THRESHOLDS[threshold]
    run_kind = RunKind(
        level=case.resolutions[0],
        guided=guidance != 1,
        interval=False,
        rescaled=False,
        two_stage=False,
        multistep=False,
        noisy=bool(run.get("noise")),
        threshold=kind,
    )
    eta = run["eta"]
    sampler = get_sampler("ddpm" if eta is None else "ddim", eta or 0.0)
    settings = SamplingSettings(num_steps=run["n_infer"], spacing=spacing)
    table = plan(mdm.process, case.resolutions, sampler, settings)
    options = {
        "guidance_scale": guidance,
        "guidance_rescale": 0.0,
        "percentile": percentile,
        "maximum": maximum,
    }
    return SamplingRun(mdm, run_kind), table, options


def _levels(case, key):
    """The recorded inputs of a key, largest resolution first."""
    count = len(case.resolutions)
    return to_tensors([to_ours(case.inputs[f"{key}{i}"]) for i in range(count)])


def _check_plan(case, run, schedule, table):
    """Noise levels that are visited, and what the network is told of them."""
    key, steps = run["name"], run["n_infer"]
    indices = index_spacing(schedule, steps)
    np.testing.assert_array_equal(indices[:-1], case.outputs[f"{key}/t"])
    told = table["timesteps"][:steps]
    np.testing.assert_array_equal(told, case.outputs[f"{key}/model_t"])
    gamma = table["alpha"][-1].astype("float64") ** 2
    case.check(gamma[:steps], f"{key}/gamma")
    case.check(gamma[1 : steps + 1], f"{key}/gamma_next")


def _check_run(case, run, network, compiled):
    _, sampler = case.sampler_config(run)
    threshold = sampler.get("threshold_function", "CLIP")
    ours, table, options = _sampling_run(case, network, run, threshold)
    _check_plan(case, run, ours.process.schedule, table)
    ours.network = compiled
    batch = len(case.inputs["noise0"])
    prepared, _ = ours.prepare(
        to_tensors(np.zeros(batch, "int32")),
        to_tensors(case.features("cond", "cond_mask")),
        to_tensors(case.features("uncond", "uncond_mask")),
    )
    table, options = to_tensors(table), to_tensors(options)
    x = recorded = _levels(case, "noise")
    for i in range(run["n_infer"]):
        noises = _levels(case, f"step{i}_noise") if run.get("noise") else None

        def step(x, i=i, noises=noises):
            return ours.step(
                i, x, None, noises, run["n_infer"], prepared, table, options
            )

        given, given_x0 = step(recorded)
        x, x0 = step(x)
        recorded = []
        for level in range(len(case.resolutions)):
            for kind, own, forced in (
                ("x0", x0[level], given_x0[level]),
                ("x", x[level], given[level]),
            ):
                key = f"{run['name']}/{kind}_{level}"
                expected = case.outputs[key][i]
                own, forced = to_theirs(to_numpy(own)), to_theirs(to_numpy(forced))
                # The last x is an x0, so both have the floor of x0.
                case.check(own, key, f"x0_{level}", expected=expected)
                case.check(forced, key, "forced", expected=expected)
            recorded.append(to_ours(expected))
        recorded = to_tensors(recorded)
    final = to_theirs(to_numpy(ours.pictures(x)[0]))
    case.check(final, f"{run['name']}/final", f"{run['name']}/final")


def _check_single(case, network):
    """One update from a given noisy picture, prediction and noise."""
    x_t, noises = _levels(case, "ss_x_t"), _levels(case, "ss_noise")
    single = case.config["single_step"]
    run = {"diffusion": {}, "noise": True, "n_infer": 1}
    for (t, s), eta, threshold, prediction in itertools.product(
        single["pairs"],
        single["etas"],
        single["thresholds"],
        single["prediction_types"],
    ):
        visited = np.array([t, s, 0][: 3 if s else 2])
        sampler = {"sampler_config": {"prediction_type": prediction}}
        steps = len(visited) - 1
        run = {**run, "eta": eta, "diffusion": sampler, "n_infer": steps}
        ours, table, options = _sampling_run(
            case, network, run, threshold, lambda *_, visited=visited: visited
        )
        ours.network = Constant(network, _levels(case, "ss_pred"))
        nothing = {"condition": {"encoded": None, "features": {}}, "known": None}
        x, x0 = ours.step(
            0, x_t, None, noises, steps, nothing, to_tensors(table), to_tensors(options)
        )
        key = f"single/{threshold}/t{t}_s{s}/eta_{eta}/{prediction}"
        for i in range(len(case.resolutions)):
            case.check(to_theirs(to_numpy(x0[i])), f"{key}/x0_{i}", "single")
            case.check(to_theirs(to_numpy(x[i])), f"{key}/x_{i}", "single")


@pytest.mark.parametrize("name", cases("sample"))
def test_parity_sampler(name):
    case = Case(name)
    network = case.network()
    compiled = CompiledNetwork(network)
    for run in case.runs:
        _check_run(case, run, network, compiled)
    if "single_step" in case.config:
        _check_single(case, network)
