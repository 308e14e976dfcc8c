"""Official parameter names, and what happens to weights that do not fit."""

import json

import numpy as np
import pytest
from probe import to_numpy
from recorded import Case, cases, folder

from keras_mdm.convert.ml_mdm import (
    TO_TORCH,
    UNUSED,
    assign_weights,
    named_variables,
)


def _shapes(network):
    return {
        name: TO_TORCH[layout](np.empty(tuple(variable.shape), "bool")).shape
        for name, variable, layout in named_variables(network)
    }


def _used(names):
    return {name for name in names if not set(UNUSED) & set(name.split("."))}


@pytest.mark.parametrize("name", cases("forward"))
def test_parity_parameter_names(name):
    case = Case(name)
    official = {key: array.shape for key, array in case.weights.items()}
    everything = folder().parent / "state_dicts.json"
    if everything.exists():
        listed = json.loads(everything.read_text())[name]
        assert official == {key: tuple(shape) for key, shape in listed.items()}
    network = case.network()
    shapes = _shapes(network)
    assert shapes == {key: official[key] for key in _used(official)}
    assert len(network.variables) == len(shapes)


@pytest.mark.parametrize("name", cases("forward"))
def test_parity_weights_come_back(name):
    case = Case(name)
    for key, variable, layout in named_variables(case.network()):
        found = TO_TORCH[layout](to_numpy(variable.value))
        np.testing.assert_array_equal(found, case.weights[key], err_msg=key)


def test_weights_that_do_not_fit_are_named_and_not_assigned():
    case = Case("unet_one_level_64")
    network = case.network()
    before = [to_numpy(variable.value) for variable in network.variables]
    wrong = {key: array + 1.0 for key, array in case.weights.items()}
    del wrong["conv_in.bias"]
    wrong["conv_in.offset"] = np.zeros(3)
    wrong["norm_out.weight"] = np.zeros(7)
    wrong["temb_layer1.weight"] = wrong["temb_layer1.weight"].T
    with pytest.raises(ValueError) as caught:
        assign_weights(network, wrong)
    message = str(caught.value)
    assert "missing: conv_in.bias" in message
    assert "unexpected: conv_in.offset" in message
    assert "shape of norm_out.weight: (7,), expected (64,)" in message
    assert "shape of temb_layer1.weight" in message
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable.value), value)


def test_unused_official_parameters_are_ignored():
    case = Case("unet_one_level_64")
    extra = {"interp_layer1.weight": np.zeros((4, 4)), **case.weights}
    assign_weights(case.network(), extra)
