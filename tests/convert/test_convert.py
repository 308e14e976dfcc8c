"""The converter's errors, and what it leaves on the disk after them."""

import importlib
import json
import pathlib
import resource
import signal
import tracemalloc

import keras
import numpy as np
import pytest
from helpers import equal_values, run_python, tiny_mdm, tiny_nest
from official import NESTED, TEXT_SIZE, UNET, save_official, tensors

import keras_mdm
from keras_mdm.convert.checkpoint import read_checkpoint
from keras_mdm.convert.convert import convert_checkpoint, convert_preset
from keras_mdm.convert.ml_mdm import assign_weights, network_from_config

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture
def official(tmp_path):
    """A folder with a tiny official model of 8 pixels."""
    save_official(tmp_path / "official")
    return tmp_path / "official"


def _convert(official, output, **options):
    convert_checkpoint(
        official / "vis_model.pth", official / "config.yaml", output, **options
    )


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_preset_like_any_other(official, tmp_path):
    _convert(official, tmp_path / "preset")
    assert _names(tmp_path) == ["official", "preset"]
    mdm = keras_mdm.MDM.from_preset(tmp_path / "preset")
    assert mdm.resolutions == (8,) and mdm.network.conditioner.size == 24
    assert mdm.ema.momentum == 0.9999
    assert equal_values(
        mdm.network.get_weights(), [np.array(v) for v in mdm.ema.averages]
    )
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert metadata["averaged"] and metadata["parameters"] == mdm.network.count_params()


def test_progress(official, tmp_path):
    seen = []
    _convert(official, tmp_path / "a", progress=lambda *args: seen.append(args))
    total = len(tensors())
    assert seen == [(i + 1, total) for i in range(total)]
    seen.clear()
    convert_preset(tmp_path / "a", tmp_path / "b", progress=lambda *a: seen.append(a))
    assert seen == [(i + 1, total) for i in range(total)]


def test_tensors_are_listed_and_nothing_is_written(tmp_path):
    weights = tensors()
    del weights["conv_in.bias"]
    weights["conv_in.offset"] = np.zeros(3)
    weights["norm_out.weight"] = np.zeros(7)
    save_official(tmp_path / "official", weights)
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        _convert(tmp_path / "official", tmp_path / "preset")
    assert str(caught.value).splitlines()[1:] == [
        "missing: conv_in.bias",
        "unexpected: conv_in.offset",
        "shape of norm_out.weight: (7,), expected (32,)",
    ]
    assert _names(tmp_path) == ["official"]


@pytest.mark.parametrize(
    "changed",
    [
        {**UNET, "resolution_channels": [32, 64]},
        {**UNET, "conditioning_feature_proj_dim": -1},
        NESTED,
    ],
)
def test_configuration_of_another_network(tmp_path, changed):
    save_official(tmp_path / "official", tensors(), unet_config=changed)
    with pytest.raises(ValueError, match="do not fit the network"):
        _convert(tmp_path / "official", tmp_path / "preset")
    assert _names(tmp_path) == ["official"]


def test_parameters_that_the_official_code_never_uses(tmp_path):
    """`skip_mid_blocks: false` makes them around another network."""
    weights = tensors(NESTED, 16)
    extra = {"mid_blocks.0.x": np.zeros(3), "cond_emb.weight": np.zeros((2, 2))}
    changed = {**NESTED, "skip_mid_blocks": False, "skip_cond_emb": False}
    save_official(tmp_path / "a", {**weights, **extra}, changed, 16)
    _convert(tmp_path / "a", tmp_path / "preset")
    inner = {f"inner_unet.{name}": value for name, value in extra.items()}
    save_official(tmp_path / "b", {**weights, **inner}, changed, 16)
    with pytest.raises(ValueError, match="unexpected: inner_unet.mid_blocks.0.x"):
        _convert(tmp_path / "b", tmp_path / "other")


def test_existing_output(official, tmp_path):
    output = tmp_path / "preset"
    _convert(official, output)
    before = (output / "metadata.json").read_bytes()
    with pytest.raises(ValueError, match="exists; pass `overwrite=True`"):
        _convert(official, output)
    assert (output / "metadata.json").read_bytes() == before
    _convert(official, output, overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("important")
    for convert in (_convert, lambda _, path, **o: convert_preset(output, path, **o)):
        with pytest.raises(ValueError, match="exists"):
            convert(official, tmp_path / "thesis", overwrite=True)
    assert _names(tmp_path / "thesis") == ["thesis.txt"]


def test_error_while_writing(official, tmp_path, monkeypatch):
    def fail(self, filepath, **kwargs):
        pathlib.Path(filepath).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save_weights", fail)
        with pytest.raises(OSError, match="could not be written.*No space left"):
            _convert(official, tmp_path / "preset")
    assert _names(tmp_path) == ["official"]


@pytest.fixture
def small_disk():
    """Files may not grow beyond 200 kB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("way", ["there", "back"])
def test_full_disk(official, tmp_path, small_disk, way):
    """The weights are half a megabyte."""
    output = tmp_path / "output"
    if way == "there":
        with pytest.raises(OSError, match="could not be written, and nothing"):
            _convert(official, output)
    else:
        with pytest.raises(OSError, match="could not be written, and nothing"):
            convert_preset(official, output)
    assert _names(tmp_path) == ["official"]


def test_memory_of_the_largest_tensor_alone(official, monkeypatch):
    """Weights go into the network one by one: no copy of one is kept for the next."""
    network = network_from_config(UNET, 8, TEXT_SIZE)
    weights = read_checkpoint(official / "vis_model.pth")
    # Backends may take the array for their own.
    monkeypatch.setattr(keras.Variable, "assign", lambda self, value: None)
    tracemalloc.start()
    assign_weights(network, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sizes = [array.nbytes for array in weights.values()]
    assert peak <= 3 * max(sizes) < sum(sizes)


def test_models_without_official_counterpart(tmp_path):
    tiny_mdm(network=tiny_nest()).save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="has no such model"):
        convert_preset(tmp_path / "preset", tmp_path / "official")
    assert _names(tmp_path) == ["preset"]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("convert_ml_mdm")


def test_program(tool, official, tmp_path, capsys):
    checkpoint, config = official / "vis_model.pth", official / "config.yaml"
    preset, back = tmp_path / "preset", tmp_path / "back"
    forward = [str(checkpoint), "--config", str(config), "--output", str(preset)]
    assert tool.main(forward) == 0
    total = len(tensors())
    assert f"{total}/{total}" in capsys.readouterr().err
    assert tool.main(forward) == 1
    assert "error: `path` exists" in capsys.readouterr().err
    assert tool.main([*forward, "--overwrite"]) == 0
    assert tool.main([str(preset), "--reverse", "--output", str(back)]) == 0
    assert _names(back) == ["config.yaml", "vis_model.pth"]
    for wrong in ([str(checkpoint), "--output", "x"], ["a", "--output", "b"]):
        with pytest.raises(SystemExit):
            tool.main(wrong)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert tool.main([*forward, "--overwrite"]) == 1
    assert "truncated" in capsys.readouterr().err


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch is the backend")
def test_nothing_heavy_is_imported():
    """torch and YAML are imported where a file is read, and so is the converter."""
    code = """
import sys
import keras_mdm
assert not {"torch", "yaml", "keras_hub", "keras_mdm.convert"} & set(sys.modules)
import keras_mdm.convert.convert
print("torch" in sys.modules)
"""
    assert run_python(code).strip() == "False"
