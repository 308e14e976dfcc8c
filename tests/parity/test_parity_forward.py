"""Predictions, inner activations and gradients of the networks as recorded."""

import pytest
from probe import Probe, wave
from recorded import Case, cases, to_ours, to_theirs


def _inputs(case, run):
    """What a run was given, by our names."""
    mask = "lm_mask" if run.get("mask", True) else None
    inputs = {
        "images": [
            to_ours(case.inputs[f"x_t{i}"]) for i in range(len(case.resolutions))
        ],
        "timesteps": case.inputs["times"].astype("int32"),
        **case.features(mask=mask),
    }
    for name in run.get("micros", []):
        inputs[name] = case.inputs[f"micro_{name}"]
    return inputs


@pytest.mark.parametrize("name", cases("forward"))
def test_parity_forward(name):
    case = Case(name)
    for run in case.runs:
        network = case.network(run.get("config"))
        inputs = _inputs(case, run)
        prefix = f"{run['name']}/act/"
        modules = [
            key.removeprefix(prefix) for key in case.outputs if key.startswith(prefix)
        ]
        probe = Probe(network, modules)
        if run.get("grads"):
            cotangents = [wave(image.shape) for image in inputs["images"]]
            outputs, seen, found = probe.pull(inputs, cotangents)
            case.check_gradients(found, run["name"])
        else:
            outputs, seen = probe.forward(inputs)
        assert set(modules) == set(seen)
        for module in modules:
            expected = case.outputs[prefix + module]
            # Of large activations the first row alone was kept.
            actual = to_theirs(seen[module])[: len(expected)]
            case.check(actual, prefix + module, "act")
        for i, output in enumerate(outputs):
            case.check(to_theirs(output), f"{run['name']}/out{i}")
