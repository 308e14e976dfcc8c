"""`tools/benchmark.py`: its output and its errors."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mdm import MDM, NestedUNet, UNet
from keras_mdm.networks.cost import count_flops

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
KEYS = {
    "forward_s",
    "train_step_s",
    "sample_step_s",
    "compile_s",
    "parameters",
    "parameters_per_level",
    "flops",
    "flops_per_level",
    "matmul_gflops",
    "share_of_peak",
    "peak_memory_bytes",
    "backend",
    "dtype",
    "batch",
    "device",
    "versions",
}

TINY_UNET = {
    "resolution_channels": [32, 64],
    "num_resnets_per_resolution": [1, 1],
    "attention_levels": [1],
    "num_attention_layers": [0, 1],
    "conditioning_feature_proj_dim": 32,
    "micro_conditioning": "",
    "resnet_config": {"use_attention_ffn": True},
}


@pytest.fixture
def tool(monkeypatch):
    """A function that imports a module of `tools/`."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_ratios(tool):
    ours = {"matmul_gflops": 100, "forward_s": 2.0, "train_step_s": None}
    theirs = {"matmul_gflops": 200, "forward_s": 4.0, "train_step_s": 1.0}
    found = tool("benchmark").ratios(ours, theirs)
    assert found == {"seconds": {"forward_s": 0.5}, "normalized": {"forward_s": 0.25}}


def test_recorded_times(tool):
    found = tool("benchmark").official_times("cc12m_64", 2)
    assert found == {"forward_s": 2.89, "train_step_s": 12.7, "matmul_gflops": 297}
    assert tool("benchmark").official_times("cc12m_64", 3) is None
    assert tool("benchmark").official_times("mdm_tiny_64", 1) is None


def test_parameters_per_level(tool):
    network = NestedUNet(UNet(8, (32,)), (32, 32))
    levels = tool("benchmark").parameters_per_level(network)
    assert list(levels) == [16, 8]
    assert levels[8] == network.inner.count_params()
    assert sum(levels.values()) == network.count_params()


def test_matmul_rate_is_positive(tool):
    assert tool("benchmark_machine").matmul_gflops(64) > 0


# === The program ===


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(TOOLS / "benchmark.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def write(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.mark.slow
def test_all_timings_of_an_official_configuration(tmp_path):
    backend = keras.backend.backend()
    config = {"name": "tiny", "unet_config": TINY_UNET, "px": 8, "lm_dim": 16}
    path = write(tmp_path / "tiny.json", config)
    other = {"matmul_gflops": 297.0, "forward_s": 1.0, "train_step_s": 1.0}
    result = run(
        *("--config", path, "--backend", backend, "--batch", 2, "--repeat", 1),
        *("--remat", "--ema", "--compare", write(tmp_path / "other.json", other)),
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert KEYS <= set(found)
    assert found["configuration"] == "tiny" and found["backend"] == backend
    assert found["ema"] and found["remat"] == [] and found["batch"] == 2
    for key in ("forward_s", "train_step_s", "compile_s", "matmul_gflops"):
        assert found[key] > 0, key
    assert set(found["share_of_peak"]) == {
        "forward_s",
        "train_step_s",
        "sample_step_s",
    }
    assert found["peak_memory_bytes"] > 2**20
    assert found["flops"] == sum(found["flops_per_level"].values())
    assert found["parameters"] == sum(found["parameters_per_level"].values())
    assert set(found["compared"]["normalized"]) == {"forward_s", "train_step_s"}
    assert "normalized_vs_official" not in found


@pytest.mark.slow
def test_forward_of_a_serialized_model_in_bfloat16(tmp_path):
    mdm = MDM(NestedUNet(UNet(8, (32,)), (32, 32)))
    path = write(tmp_path / "mdm.json", keras.saving.serialize_keras_object(mdm))
    backend = keras.backend.backend()
    result = run(
        *("--config", path, "--backend", backend, "--repeat", 1),
        *("--only", "forward", "--dtype", "mixed_bfloat16"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["configuration"] == "mdm" and found["dtype"] == "mixed_bfloat16"
    assert found["forward_s"] > 0 and not found["ema"]
    assert found["train_step_s"] is None and found["sample_step_s"] is None
    assert found["flops_per_level"] == {
        str(resolution): count for resolution, count in count_flops(mdm.network).items()
    }


BAD = {
    "no model": ([], "required"),
    "both": (["--preset", "a", "--config", "b"], "not allowed with"),
    "batch 0": (["--preset", "mdm_tiny_32", "--batch", "0"], "at least 1"),
    "dtype": (["--preset", "mdm_tiny_32", "--dtype", "int8"], "invalid choice"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_arguments(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        tool("benchmark").main(arguments)
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == "" and message in output.err


BAD_FILES = {
    "missing": (None, "can't read"),
    "not JSON": ("{", "is not a JSON file"),
    "list": ("[]", "must hold a JSON object"),
    "something else": ('{"a": 1}', "lacks ['unet_config', 'px']"),
    "unknown release": ('{"shipped": "512"}', "'1024', '256', '64'"),
    "incomplete": ('{"unet_config": {}, "px": 8}', "not an official configuration"),
    "wrong type": ('{"unet_config": 3, "px": 8}', "not an official configuration"),
    "wrong px": (json.dumps({"unet_config": TINY_UNET, "px": 7}), "multiple of 2"),
    "damaged MDM": ('{"class_name": "MDM"}', "not a serialized MDM"),
}


@pytest.mark.parametrize("text, message", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_configuration_file(tool, tmp_path, monkeypatch, capfd, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    backend = keras.backend.backend()
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(SystemExit) as caught:
        tool("benchmark").main(["--config", str(path), "--backend", backend])
    assert message in str(caught.value.code)
    assert capfd.readouterr().out == ""


def test_unknown_preset_lists_the_known_ones(tool, capfd):
    backend = keras.backend.backend()
    with pytest.raises(SystemExit) as caught:
        tool("benchmark").main(["--preset", "mdm_s65", "--backend", backend])
    assert "mdm_s64" in str(caught.value.code) and "mdm_s65" in str(caught.value.code)
    assert capfd.readouterr().out == ""


def test_bad_comparison_is_found_before_anything_is_timed(tool, tmp_path, capfd):
    path = tmp_path / "times.json"
    path.write_text('{"forward_s": 1}\n')
    backend = keras.backend.backend()
    arguments = ["--preset", "mdm_s1024", "--backend", backend, "--compare", str(path)]
    with pytest.raises(SystemExit) as caught:
        tool("benchmark").main(arguments)
    assert "no 'matmul_gflops'" in str(caught.value.code)
    assert capfd.readouterr().out == ""


def test_a_bug_keeps_its_traceback(tool, monkeypatch):
    def measure(arguments):
        return np.zeros(3) + np.zeros(4)

    module = tool("benchmark")
    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    with pytest.raises(ValueError, match="broadcast"):
        module.main(["--preset", "a", "--backend", keras.backend.backend()])


def test_help_explains(tool, capsys):
    with pytest.raises(SystemExit) as caught:
        tool("benchmark").main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("--preset", "--config", "sample_step_s", "normalized_vs_official"):
        assert word in text
