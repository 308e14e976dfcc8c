"""Predictions, inner activations and gradients of the networks as recorded."""

import pytest
from probe import Probe, wave
from recorded import Case, cases, to_clips, to_theirs


def _inputs(case, run, network):
    """What a run was given, by our names."""
    mask = "lm_mask" if run.get("mask", True) else None
    inputs = {
        "images": [
            to_clips(case.inputs[f"x_t{i}"], part.frames)
            for i, part in enumerate(network.networks)
        ],
        "timesteps": case.inputs["times"].astype("int32"),
        **case.features(mask=mask),
    }
    for name in run.get("micros", []):
        inputs[name] = case.inputs[f"micro_{name}"]
    return inputs


def _tiled_modules(network):
    """Frames of the modules whose frames were recorded as tiles, by name."""
    return {
        f"{'inner_unet.' * depth}{name}": part.inner.frames
        for depth, part in enumerate(network.networks[:-1])
        for name in ("in_adapter", "out_adapter")
        if part.inner.frames > 1
    }


@pytest.mark.parametrize("name", cases("forward"))
def test_parity_forward(name):
    case = Case(name)
    for run in case.runs:
        network = case.network(run.get("config"))
        inputs = _inputs(case, run, network)
        prefix = f"{run['name']}/act/"
        modules = [
            key.removeprefix(prefix) for key in case.outputs if key.startswith(prefix)
        ]
        probe = Probe(network, modules)
        if run.get("grads"):
            cotangents = [
                to_clips(wave(case.inputs[f"x_t{i}"].shape), part.frames)
                for i, part in enumerate(network.networks)
            ]
            outputs, seen, found = probe.pull(inputs, cotangents)
            case.check_gradients(found, run["name"])
        else:
            outputs, seen = probe.forward(inputs)
        assert set(modules) == set(seen)
        tiled = _tiled_modules(network)
        for module in modules:
            expected = case.outputs[prefix + module]
            # Of large activations the first row alone was kept.
            actual = seen[module]
            if module in tiled:
                actual = actual.reshape(-1, tiled[module], *actual.shape[1:])
            actual = to_theirs(actual)[: len(expected)]
            case.check(actual, prefix + module, "act")
        for i, output in enumerate(outputs):
            case.check(to_theirs(output), f"{run['name']}/out{i}")
