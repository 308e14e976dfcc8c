"""Presets that cannot be loaded say what is wrong with them; and built-in ones."""

import json
import warnings

import pytest
from helpers import tiny_mdm, tiny_nest

import keras_mdm

MDM = keras_mdm.MDM


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "preset"
    tiny_mdm(network=tiny_nest(1, resolution=4)).save_to_preset(path)
    return path


def without_checksums(folder):
    """As presets were written before there were any, or are changed by hand."""
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata = {k: v for k, v in metadata.items() if k not in ("files", "checksum")}
    path.write_text(json.dumps(metadata))


def _change(path, **values):
    without_checksums(path.parent)
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"not a whole preset: it lacks .*{name}"):
        MDM.from_preset(folder)


def test_truncated_weights(folder):
    path = folder / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="model.weights.h5 is damaged"):
        MDM.from_preset(folder)


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "no JSON object, but a list"),
    ],
)
def test_bad_json(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"is damaged: {name} can't be read.*{words}"):
        MDM.from_preset(folder)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (3, "format version 3, .* reads up to 2"),
        (None, "format version None"),
        ("2", "format version '2'"),
    ],
)
def test_other_format(folder, version, words):
    _change(folder / "metadata.json", format_version=version)
    with pytest.raises(ValueError, match=words):
        MDM.from_preset(folder)


def test_config_of_something_else(folder):
    _change(folder / "config.json", class_name="Dense")
    with pytest.raises(ValueError, match="holds a 'Dense', not an 'MDM'"):
        MDM.from_preset(folder)


@pytest.mark.parametrize("option", [{"channels": [16]}, {"num_residual_blocks": [2]}])
def test_config_and_weights_do_not_match(folder, option):
    without_checksums(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["config"]["network"]["config"].update(option)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not belong to config.json"):
        MDM.from_preset(folder)


def test_unknown_preset():
    names = sorted(MDM.builtin_presets())
    with pytest.raises(ValueError, match="Unknown preset 'mdm_x'") as caught:
        MDM.from_preset("mdm_x")
    assert all(name in str(caught.value) for name in names)


BUILTIN = MDM.builtin_presets()


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_builtin_presets_are_described(name):
    preset = BUILTIN[name]
    assert preset["description"].strip() and preset["config"]["class_name"] == "MDM"


@pytest.mark.skipif("mdm_tiny_32" not in BUILTIN, reason="no small built-in preset")
def test_builtin_preset():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdm = MDM.from_preset("mdm_tiny_32", num_classes=7, image_channels=1)
    assert mdm.network.conditioner.num_classes == 7
    assert mdm.network.image_channels == 1 and mdm.resolution == 32
    mdm = MDM.from_preset("mdm_tiny_32", num_classes=0, load_weights=False)
    assert mdm.network.conditioner is None
