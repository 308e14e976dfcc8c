"""The tool that asks accelerators' compilers: what needs no such compiler."""

import json
import pathlib
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"

PROGRAM = """HloModule step

%inner (x: f32[2]) -> f32[2] {
  %a = f32[2] add(%x, %x), metadata={op_name="jit(f)/inner"}, "estimated_cycles":"999"
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %one = f32[2] fusion(%x), metadata={op_name="jit(f)/jvp(net)/conv"}, "estimated_cycles":"3000000"
  %two = f32[2] fusion(%x), metadata={op_name="jit(f)/transpose(jvp(net))/conv"}, "estimated_cycles":"6000000"
  %three = bf16[4,8] all-reduce(%x), metadata={op_name="jit(f)/adam/mul"}, "estimated_cycles":"1500000"
  %four = (f32[10], s32[3]) all-gather-start(%x)
}
"""  # noqa: E501


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import compile_report

    return compile_report


def test_report(report):
    import compile_targets

    entry = report.entry_of(PROGRAM)
    rows = report.kernels_by_cycles(entry)
    assert [row[:2] for row in rows] == [
        (6000000, "backward"),
        (3000000, "forward"),
        (1500000, "update"),
    ]
    tpu = compile_targets.TPUS["tpu-v5e"]  # 1.5 GHz, 197e12 a second
    found = report.times(rows, 6.895e11, 2e9, tpu)
    assert found["estimated_ms"] == 7.0 and found["gbytes_accessed"] == 2.0
    assert found["estimated_parts_ms"] == {"backward": 4, "forward": 2, "update": 1}
    assert found["share_of_peak"] == 0.5
    assert report.collective_bytes(PROGRAM) == {"all-reduce": 64, "all-gather": 52}


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the tool is JAX's")
def test_counts_without_a_compiler():
    flags = ["--device", "h100", "--preset", "mdm_tiny_32", "--batch", "2"]
    done = subprocess.run(
        [sys.executable, str(TOOLS / "compile_for.py"), *flags, "--no-compile"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["device"] == "h100" and found["batch"] == 2
    assert found["operations"] < 65 * found["trainable_variables"]
    assert sum(found["fused_attention"].values()) == 8


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "a", "--config", "b"], "either --config or --preset"),
        ([], "either --config or --preset"),
        (["--preset", "a", "--device", "h100", "--devices", "4"], "compiled for alone"),
    ],
)
def test_wrong_flags_are_told(monkeypatch, capsys, flags, words):
    monkeypatch.syspath_prepend(str(TOOLS))
    import compile_for

    with pytest.raises(SystemExit):
        compile_for.parse_arguments(flags)
    assert words in capsys.readouterr().err
