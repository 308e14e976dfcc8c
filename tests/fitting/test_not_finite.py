"""NaN and infinity: never saved, and no argument of a call."""

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    lean_nest,
    tiny_mdm,
    tiny_unet,
    trainer,
    uncompiled,
)

import keras_mdm
from keras_mdm import Stage
from keras_mdm.diffusion.losses import mixed_fractions
from keras_mdm.sampling.settings import SamplingSettings
from keras_mdm.saving.bundled import write_bundled_weights
from keras_mdm.training import StageLearningRate, state

NAN, INFINITE = float("nan"), float("inf")


def _spoil(variable, value):
    spoiled = np.array(keras.ops.convert_to_numpy(variable.value))
    spoiled.flat[-1] = value
    variable.assign(spoiled)


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WRITERS = {
    "preset": lambda mdm, folder: mdm.save_to_preset(folder / "p", overwrite=True),
    "raw preset": lambda mdm, folder: mdm.save_to_preset(
        folder / "p", use_ema=False, overwrite=True
    ),
    "bundled": lambda mdm, folder: write_bundled_weights(mdm, folder / "x.npz"),
    "state": lambda mdm, folder: state.take_state(mdm, folder, {"stage": 0})(),
    "weights": lambda mdm, folder: mdm.save_weights(folder / "m.weights.h5"),
    "model": lambda mdm, folder: mdm.save(folder / "m.keras"),
}


@pytest.mark.parametrize("value", [NAN, -INFINITE])
@pytest.mark.parametrize("writer", WRITERS)
def test_weights_are_not_written(writer, value, tmp_path):
    """What was written before stays."""
    mdm = trainer()
    write = WRITERS[writer]
    write(mdm, tmp_path)
    before = _files(tmp_path)
    _spoil(mdm.network.weights[-1], value)
    with pytest.raises(ValueError, match="weights are NaN or infinite") as error:
        write(mdm, tmp_path)
    assert mdm.network.weights[-1].path.replace("/", "__") in str(error.value).replace(
        "/", "__"
    )
    assert _files(tmp_path) == before


def test_only_what_is_written_must_be_finite(tmp_path):
    mdm = trainer()
    for average in mdm.ema.averages:
        _spoil(average, NAN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        mdm.save_to_preset(tmp_path / "averaged")
    mdm.save_to_preset(tmp_path / "raw", use_ema=False)
    _spoil(mdm.optimizer.variables[1], NAN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        state.take_state(mdm, tmp_path / "state", {})()
    assert not (tmp_path / "state").exists()


def test_weights_too_large_for_half_precision(tmp_path):
    mdm = tiny_mdm(1, resolution=4)
    _spoil(mdm.network.weights[0], 1e5)
    with pytest.raises(ValueError, match="too large for float16"):
        write_bundled_weights(mdm, tmp_path / "x.npz")
    mdm.save_to_preset(tmp_path / "p")


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
def test_arguments_of_a_draw(value):
    mdm = tiny_mdm(1, resolution=4)
    for name in (
        "eta",
        "guidance_scale",
        "guidance_rescale",
        "dynamic_percentile",
        "dynamic_maximum",
        "num_steps",
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            mdm.generate(labels=[0], **{"num_steps": 1, name: value})
    with pytest.raises(ValueError, match="`guidance_interval` must be"):
        mdm.generate(labels=[0], num_steps=1, guidance_interval=(0.0, value))
    with pytest.raises(ValueError, match="`guidance_scale` must be"):
        SamplingSettings(guidance_scale=1e39)  # infinite in float32
    with pytest.raises(ValueError, match="`guidance_scale` must be"):
        tiny_mdm(1, resolution=4, sampling={"guidance_scale": value})


@pytest.mark.parametrize("value", [NAN, INFINITE, 1e39])
def test_features_of_a_draw(value):
    network = tiny_unet(4, micro_conditioning={"score": 0.5})
    mdm = tiny_mdm(network=network)
    for name in ("features", "negative_features"):
        given = {"features": {}, name: {"score": [0.1, value]}}
        with pytest.raises(ValueError, match=f"'score' of `{name}` must be finite"):
            mdm.generate(labels=[0, 1], negative_labels=0, num_steps=1, **given)
    with pytest.raises(ValueError, match="'score' of `features` must be finite"):
        mdm.generate(labels=[0], features={"score": "high"}, num_steps=1)


@pytest.mark.parametrize("value", [NAN, INFINITE])
def test_options_of_models_and_training(value):
    for name in ("ema_momentum", "condition_dropout", "output_limit"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            tiny_mdm(1, resolution=4, **{name: value})
    with pytest.raises(ValueError, match="`micro_conditioning.*scale.*must be finite"):
        tiny_unet(4, micro_conditioning={"scale": value})
    mdm = tiny_mdm(2, resolution=4)
    for weights in ({8: value, 4: 1.0}, {8: 1.0, 4: value}):
        with pytest.raises(
            ValueError, match="`loss_weights` must be at least 0 and finite"
        ):
            mdm.compile(loss_weights=weights)
        with pytest.raises(
            ValueError, match="`loss_weights` must be at least 0 and finite"
        ):
            keras_mdm.ProgressiveSchedule(
                [Stage(8, steps=1, loss_weights=weights)]
            ).check(mdm)
    for shares in ({8: value, 4: 1.0}, {8: 1, 4: value}):
        with pytest.raises(ValueError, match="`mixed_resolution` must be"):
            mdm.compile(mixed_resolution=shares)
        with pytest.raises(ValueError, match="`mixed_resolution` must be"):
            mixed_fractions(shares, (8, 4))
    for name in ("learning_rate", "warmup_steps"):
        with pytest.raises(ValueError, match=f"`{name}`.*finite"):
            Stage(8, steps=1, **{name: value})
        with pytest.raises(ValueError, match=f"`{name}`.*finite"):
            StageLearningRate(**{"learning_rate": 1.0, "warmup_steps": 1, name: value})


def test_a_run_that_diverged_keeps_its_last_good_state(tmp_path):
    """The state of the epoch before, from which a run can go on."""
    mdm = trainer(lean_nest(1, resolution=4), compile_options=uncompiled())
    mdm.train_on_batch(batch_of(4, 4))
    first = {"stage": 0, "epoch": 1, "step": 0}
    state.take_state(mdm, tmp_path, first)()
    _spoil(mdm.network.weights[0], NAN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        state.take_state(mdm, tmp_path, {**first, "epoch": 2})()
    assert state.newest(tmp_path).progress == first
