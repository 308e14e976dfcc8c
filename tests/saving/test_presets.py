"""Preset folders: what is saved is what is loaded, in whole or not at all."""

import json
import os
import pathlib
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from helpers import (
    equal_values,
    lean_nest,
    other_backend,
    randomize,
    run_python,
    tiny_mdm,
    tiny_nest,
    values_of,
)

import keras_mdm
from keras_mdm.levels import level_name, level_size, read_level

DRAW = {"labels": [0, 2], "num_steps": 2, "seed": 3, "output": "float"}


@pytest.fixture(scope="module")
def mdm():
    mdm = tiny_mdm(
        network=randomize(tiny_nest(2, resolution=4)),
        schedule="log_snr_cosine",
        ema_momentum=0.5,
        condition_dropout=0.2,
        sampling={"guidance_scale": 3.0},
    )
    for average in mdm.ema.averages:  # something else than the weights
        average.assign(np.random.default_rng(1).normal(0, 0.2, average.shape))
    return mdm


@pytest.fixture(scope="module")
def folder(mdm, tmp_path_factory):
    path = tmp_path_factory.mktemp("presets") / "tiny"
    raw = mdm.network.get_weights()
    mdm.save_to_preset(path)
    assert equal_values(raw, mdm.network.get_weights())
    return path


def test_round_trip(mdm, folder):
    """Options and averaged weights, in the network and in its new average."""
    other = keras_mdm.MDM.from_preset(folder)
    assert other.get_config() == mdm.get_config()
    averages = values_of(mdm.ema.averages)
    assert equal_values(averages, values_of(other.network.variables))
    assert equal_values(averages, values_of(other.ema.averages))
    assert not values_of([other.ema.num_updates])[0].any()


def test_folder(mdm, folder):
    names = {"config.json", "metadata.json", "model.weights.h5"}
    assert {entry.name for entry in folder.iterdir()} == names
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["format_version"] == 2 and metadata["averaged"] is True
    assert metadata["parameters"] == mdm.network.count_params()


def test_raw_weights(mdm, tmp_path):
    mdm.save_to_preset(tmp_path / "raw", use_ema=False)
    other = keras_mdm.MDM.from_preset(tmp_path / "raw", ema_momentum=None)
    assert other.ema is None
    assert equal_values(mdm.network.get_weights(), other.network.get_weights())


def test_saved_at_another_resolution(mdm, folder, tmp_path):
    """The stage of progressive training must not change what a preset holds."""
    mdm.resolution = 4
    try:
        mdm.save_to_preset(tmp_path / "inner_stage")
    finally:
        mdm.resolution = 8
    saved = [
        keras_mdm.MDM.from_preset(f).network.get_weights()
        for f in (folder, tmp_path / "inner_stage")
    ]
    assert equal_values(*saved)


def test_other_backend_draws_the_same(mdm, folder, tmp_path):
    name = other_backend()
    if name is None:
        pytest.skip("no other backend is installed")
    expected = mdm.generate(**DRAW)
    target = tmp_path / "drawn.npy"
    run_python(
        f"""
import numpy as np, keras_mdm
mdm = keras_mdm.MDM.from_preset({str(folder)!r})
np.save({str(target)!r}, mdm.generate(**{DRAW!r}))
""",
        name,
    )
    np.testing.assert_allclose(np.load(target), expected, atol=2e-3)


def test_another_thread_draws_from_the_raw_weights_meanwhile(
    mdm, tmp_path, monkeypatch
):
    expected = mdm.generate(**DRAW, use_ema=False)
    assert np.abs(mdm.generate(**DRAW) - expected).max() > 1e-3
    save_weights, found = keras.Model.save_weights, []

    def meanwhile(self, *args, **kwargs):
        with ThreadPoolExecutor(1) as pool:
            drawn = pool.submit(lambda: mdm.generate(**DRAW, use_ema=False))
            found.append(drawn.result())
        return save_weights(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "save_weights", meanwhile)
    mdm.save_to_preset(tmp_path / "p")
    np.testing.assert_array_equal(*found, expected)


def test_averaged_weights_are_for_a_network_alike(mdm, folder):
    raw = mdm.network.get_weights()
    saved = keras_mdm.MDM.from_preset(folder).network.get_weights()
    assert equal_values(mdm.averaged_weights(), saved)
    assert equal_values(mdm.network.get_weights(), raw)
    plain = tiny_mdm(network=mdm.network)
    assert equal_values(plain.averaged_weights(), raw)


def test_refuses_to_overwrite(mdm, folder, tmp_path):
    with pytest.raises(ValueError, match="`path` exists; pass `overwrite=True`"):
        mdm.save_to_preset(folder)
    (tmp_path / "thesis.txt").write_text("important")
    for overwrite in (False, True):  # not a preset: never
        with pytest.raises(ValueError, match="`path` exists"):
            mdm.save_to_preset(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "important"
    mdm.save_to_preset(tmp_path / "p")
    mdm.save_to_preset(tmp_path / "p", use_ema=False, overwrite=True)
    other = keras_mdm.MDM.from_preset(tmp_path / "p")
    assert equal_values(mdm.network.get_weights(), other.network.get_weights())


def test_other_files_in_a_preset_are_kept(mdm, tmp_path):
    path = tmp_path / "p"
    mdm.save_to_preset(path)
    (path / "notes.txt").write_text("mine")
    (path / "pictures").mkdir()
    (path / "pictures" / "a.png").write_bytes(b"mine")
    mdm.save_to_preset(path, use_ema=False, overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"
    assert (path / "pictures" / "a.png").read_bytes() == b"mine"
    other = keras_mdm.MDM.from_preset(path)
    assert equal_values(mdm.network.get_weights(), other.network.get_weights())


@pytest.mark.parametrize("config", ['{"model_type": "t5"}', "[]", "not json"])
def test_a_folder_with_another_config_is_never_replaced(mdm, tmp_path, config):
    """Run folders and other libraries' models have a `config.json` too."""
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="holds something else"):
        mdm.save_to_preset(tmp_path, overwrite=True)
    assert (tmp_path / "config.json").read_text() == config


def test_a_folder_that_appears_while_writing_is_kept(mdm, tmp_path, monkeypatch):
    path = tmp_path / "p"
    save_weights = keras.Model.save_weights

    def save_late(self, filepath, **kwargs):
        path.mkdir()
        (path / "theirs.txt").write_text("theirs")
        save_weights(self, filepath, **kwargs)

    monkeypatch.setattr(keras.Model, "save_weights", save_late)
    with pytest.raises(OSError, match="could not be written"):
        mdm.save_to_preset(path)
    assert [entry.name for entry in path.iterdir()] == ["theirs.txt"]


def test_a_writer_killed_between_two_files(mdm, tmp_path, monkeypatch):
    """What is loaded then is the new preset, not the new half of it."""

    class Killed(BaseException):
        pass

    path = tmp_path / "p"
    mdm.save_to_preset(path)
    replace, done = os.replace, []

    def killed(source, target):
        if pathlib.Path(target).parent == path and done:
            raise Killed
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    with pytest.raises(Killed):
        mdm.save_to_preset(path, use_ema=False, overwrite=True)
    monkeypatch.undo()
    other = keras_mdm.MDM.from_preset(path, ema_momentum=None)
    assert equal_values(mdm.network.get_weights(), other.network.get_weights())
    metadata = json.loads((path / "metadata.json").read_text())
    assert metadata["averaged"] is False


def test_home(mdm, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mdm.save_to_preset("~/p")
    assert (tmp_path / "p" / "config.json").is_file()
    keras_mdm.MDM.from_preset("~/p")
    tiny_mdm(network=tiny_nest(2, resolution=4)).load_weights("~/p")
    mdm.save("~/m.keras")
    mdm.save_weights("~/m.weights.h5")
    assert (tmp_path / "m.keras").is_file()
    mdm.load_weights("~/m.weights.h5")


def test_nothing_half_written(mdm, tmp_path, monkeypatch):
    path = tmp_path / "p"
    mdm.save_to_preset(path)
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}

    def fail(self, filepath, **kwargs):
        filepath.write_bytes(b"half")
        raise OSError("disk full")

    raw = mdm.network.get_weights()
    monkeypatch.setattr(keras.Model, "save_weights", fail)
    for target in (path, tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"):
            mdm.save_to_preset(target, overwrite=True)
    assert equal_values(raw, mdm.network.get_weights())
    assert [entry.name for entry in tmp_path.iterdir()] == ["p"]
    assert before == {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_run_folder(mdm, folder, tmp_path):
    mdm.save_to_preset(tmp_path / "run" / "preset")
    (tmp_path / "run" / "log.txt").write_text("")
    other = keras_mdm.MDM.from_preset(tmp_path / "run")
    saved = keras_mdm.MDM.from_preset(folder)
    assert equal_values(saved.network.get_weights(), other.network.get_weights())


def test_without_weights_and_overrides(mdm, folder):
    other = keras_mdm.MDM.from_preset(
        folder, load_weights=False, ema_momentum=None, prediction="epsilon"
    )
    assert other.prediction == "epsilon" and other.ema is None
    assert not any(np.any(v) for v in values_of(other.network.conv_out.weights))


def test_remat(folder):
    mdm = keras_mdm.MDM.from_preset(folder, remat=[8])
    assert [part.remat for part in mdm.network.networks] == [
        part.level == 8 for part in mdm.network.networks
    ]


def test_dtype(folder):
    other = keras_mdm.MDM.from_preset(folder, dtype="mixed_bfloat16")
    for part in other.network.networks:
        assert part.compute_dtype == "bfloat16"
        assert part.down_blocks[0].residuals[0].conv_1.compute_dtype == "bfloat16"
    assert other.network.conditioner.compute_dtype == "bfloat16"
    assert all(v.dtype == "float32" for v in other.network.trainable_variables)


def test_num_classes_of_a_preset_with_weights(folder):
    with pytest.raises(ValueError, match="can't be changed in a preset with weights"):
        keras_mdm.MDM.from_preset(folder, num_classes=5)


@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_keras_files(mdm, tmp_path, kind):
    """Keras' own files hold the average as well as the weights."""
    if kind == "keras":
        mdm.save(tmp_path / "model.keras")
        other = keras.saving.load_model(tmp_path / "model.keras")
        assert other.get_config() == mdm.get_config()
    else:
        mdm.resolution = 4
        mdm.save_weights(tmp_path / "model.weights.h5")
        mdm.resolution = 8
        other = keras_mdm.MDM.from_config(mdm.get_config())
        other.load_weights(tmp_path / "model.weights.h5")
    assert [v.path for v in other.variables] == [v.path for v in mdm.variables]
    for one, two in (
        (mdm.network.variables, other.network.variables),
        (mdm.ema.averages, other.ema.averages),
    ):
        assert equal_values(values_of(one), values_of(two))


@pytest.mark.parametrize("name", sorted(keras_mdm.MDM.builtin_presets()))
def test_what_a_preset_draws_gets_clean(name):
    """All but those whose weights were trained with another schedule."""
    about = keras_mdm.MDM.builtin_presets()[name]
    trained = "weights" in about or name in ("mdm_shapes_64", "mdm_shapes_32v")
    schedule = keras_mdm.NoiseSchedule(**about["config"]["config"]["schedule"])
    levels = _levels_of(about["config"]["config"]["network"])
    smallest = min(levels, key=level_size)
    ratio = max(schedule.ratio(level, smallest) for level in levels)
    sigma = np.sqrt(1.0 - schedule.alphas_cumprod(ratio)[1])
    assert trained or sigma < 0.03
    flaw = schedule.describe_ends({"largest": ratio})
    assert bool(flaw) == (sigma > 0.05)


def _levels_of(network):
    """Levels of a serialized network, from the innermost outwards."""
    config, inner = network["config"], network["config"].get("inner")
    if inner is None:
        return [level_name(config["resolution"], config.get("frames", 1))]
    levels = _levels_of(inner)
    frames, resolution = read_level(levels[-1])
    factor = 2 ** (len(config.get("channels", [1])) - 1)
    if network["class_name"] == "InflatedUNet":
        frames = config["frames"]
    elif config.get("temporal_resampling"):
        frames *= factor
    else:
        resolution *= factor
    return [*levels, level_name(resolution, frames)]


def test_a_schedule_that_never_gets_clean_is_told():
    network = lean_nest(2, resolution=4)
    with pytest.warns(
        UserWarning, match="'log_snr_cosine' never gets clean: at level 8"
    ):
        tiny_mdm(network=network, schedule="log_snr_cosine").compile()
    schedule = keras_mdm.NoiseSchedule("linear_unscaled", 100)
    with pytest.warns(UserWarning, match="never reaches pure noise.*100 timesteps|100"):
        tiny_mdm(network=network, schedule=schedule).compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_mdm(network=network).compile()
