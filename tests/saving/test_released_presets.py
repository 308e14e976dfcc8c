"""Presets of the published models: their parts, and their parameters one by one."""

import keras
import numpy as np
import pytest
from released import RELEASED

import keras_mdm
from keras_mdm.convert.ml_mdm import (
    named_variables,
    network_from_config,
    official_shape,
)

pytestmark = pytest.mark.once

# Parameters and tensors as counted in the official implementation, and steps and eta
# of its demo.
MODELS = {
    "64": (461_359_107, 713, 50, 0.0),
    "256": (476_613_958, 889, 100, 0.0),
    "1024": (480_970_057, 1063, 250, 1.0),
}
BUILTIN = keras_mdm.MDM.builtin_presets()


def _options(name):
    return BUILTIN[f"mdm_flickr_{name}"]["config"]["config"]


def _shapes(make):
    """Official names and shapes of a network, and its options, without its numbers."""
    with keras.StatelessScope(initialize_variables=False):
        network = make()
        shapes = {
            name: official_shape(variable, layout)
            for name, variable, layout in named_variables(network)
        }
    # Otherwise Keras fills the variables after the next scope.
    keras.utils.clear_session()
    return shapes, network.get_config()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_networks(name):
    released = RELEASED[name]
    shapes, options = _shapes(
        lambda: keras.saving.deserialize_keras_object(_options(name)["network"])
    )
    expected, expected_options = _shapes(
        lambda: network_from_config(
            released["unet_config"], released["px"], released["lm_dim"]
        )
    )
    parameters, tensors, _, _ = MODELS[name]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert len(shapes) == tensors
    assert shapes == expected
    assert options == expected_options


@pytest.mark.parametrize("name", sorted(MODELS))
def test_options(name):
    options = _options(name)
    _, _, steps, eta = MODELS[name]
    assert options["sampling"] == {
        "sampler": "ddim",
        "num_steps": steps,
        "spacing": "index",
        "eta": eta,
        "guidance_scale": 7.5,
        "threshold": "dynamic",
        "dynamic_percentile": 0.95,
        "dynamic_maximum": 1.5,
    }
    # SNR / 4 at 256 pixels; SNR / 256 and SNR / 16 at 1024.
    schedule = keras_mdm.NoiseSchedule(**options["schedule"])
    ratio = int(name) / 64
    power = {"64": 0, "256": 1, "1024": 2}[name]
    plain, shifted = (schedule.alphas_cumprod(r)[400] for r in (1, ratio))
    divided = plain / (1 - plain) / (shifted / (1 - shifted))
    np.testing.assert_allclose(divided, ratio**power, rtol=1e-4)
    assert (options["prediction"], options["loss_target"]) == ("v", "epsilon")
