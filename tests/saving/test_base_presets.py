"""The presets for one card: how large they are, and the process they learn."""

import keras
import numpy as np
import pytest

import keras_mdm

LEVELS = {
    "mdm_base_64": (64,),
    "mdm_base_256": (256, 64),
    "mdm_base_256_text": (256, 64),
    "mdm_base_128v": ("16x128", "16x64", 64),
}


@pytest.mark.parametrize("name", LEVELS)
def test_sizes(name):
    config = keras_mdm.MDM.builtin_presets()[name]["config"]["config"]
    with keras.StatelessScope(initialize_variables=False):
        network = keras.saving.deserialize_keras_object(config["network"])
        count = network.count_params()
    # Otherwise Keras fills the variables after the next scope.
    keras.utils.clear_session()
    assert network.levels == LEVELS[name]
    assert 30e6 <= count <= 150e6
    innermost = network.innermost
    assert {width % 128 for part in network.networks for width in _widths(part)} == {0}
    heads = {
        width // innermost.num_heads
        for width, layers in zip(
            innermost.channels, innermost.num_attention_layers, strict=True
        )
        if layers
    }
    assert heads <= {64, 128}
    # A kernel for TPUs takes blocks of 128 tokens, one for GPUs even lengths.
    length = getattr(network.conditioner, "max_tokens", 128)
    assert innermost.level_shape(2) == (1, 16) and length % 128 == 0


def _widths(network):
    return getattr(network, "channels", ())


@pytest.mark.parametrize("name", LEVELS)
def test_the_process_is_that_of_jit(name):
    """JiT's timesteps at 256 pixels, and its guidance but for the noisiest tenth."""
    config = keras_mdm.MDM.builtin_presets()[name]["config"]["config"]
    assert (config["prediction"], config["loss_target"]) == ("x0", "v")
    assert config["sampling"]["guidance_interval"] == [0.0, 0.9]
    schedule = keras_mdm.NoiseSchedule(**config["schedule"])
    timesteps = keras.saving.deserialize_keras_object(config["timesteps"])
    median = float(keras.ops.convert_to_numpy(timesteps(np.float32(0.5))))
    alpha, sigma = schedule.levels(schedule.ratio(256, 64))
    at = np.arange(len(alpha)) / schedule.num_timesteps
    noise = np.interp(median, at, sigma) / np.interp(median, at, alpha)
    # The logit of its time, in which 1 is clean, has the mean -0.8.
    assert np.log(noise) == pytest.approx(0.8, abs=0.02)
