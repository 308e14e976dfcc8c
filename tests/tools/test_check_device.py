"""`tools/check_device.py`: its lines, its limits and what it does when steps fail."""

import importlib
import json
import pathlib
import time

import pytest

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
RESULT = {
    "train_step_s": 0.25,
    "sample_step_s": 0.125,
    "share_of_peak": {"train_step_s": 0.5, "sample_step_s": 0.25},
    "peak_gflops": 400_000.0,
    "peak_memory_bytes": 3 * 2**30,
    "compile_s": 12.0,
    "batch": 32,
    "dtype": "mixed_bfloat16",
}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("check_device")


def test_processes_end_at_their_limit_with_their_children(tool, tmp_path):
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(4); open({str(mark)!r}, 'w')"
    code = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    began = time.monotonic()
    with pytest.raises(tool.TooLong, match="not done in 2 s"):
        tool.run(("-c", code), 2, {}, tmp_path)
    assert time.monotonic() - began < 4
    with pytest.raises(tool.TooLong, match="no time was left"):
        tool.run(("-c", "1"), 0, {}, tmp_path)
    with pytest.raises(tool.Failed, match=r"failed \(1\): ValueError: too bad"):
        tool.run(("-c", "raise ValueError('too bad')"), 30, {}, tmp_path)
    show = "import os; print(os.environ['A'], os.getcwd())"
    assert tool.run(("-c", show), 30, {"A": "7"}, tmp_path) == f"7 {tmp_path}\n"
    time.sleep(max(0.0, began + 4.5 - time.monotonic()))
    assert not mark.exists()


def test_line_of_a_model(tool):
    assert tool.timings("train", RESULT, 71.04) == {
        "compile s": "71.0",
        "step ms": "250.0",
        "images/s": "128.0",
        "TFLOP/s": "200",
        "of peak": "50.0%",
        "GiB": "3.0",
        "note": "batch 32, mixed_bfloat16",
    }
    drawn = tool.timings("sample", RESULT, 3.0)
    assert (drawn["step ms"], drawn["TFLOP/s"]) == ("125.0", "100")
    assert "images/s" not in drawn


class Outcomes:
    """Stands for the processes: what each command prints, or the error that it ends in.

    Args:
        device: What the device says.
        **outcomes: By a word of the command.
    """

    def __init__(self, device, **outcomes):
        self.outcomes = {"-c": json.dumps(device), **outcomes}
        self.commands = []

    def __call__(self, command, limit, environment, folder):
        command = [str(part) for part in command]
        self.commands.append((command, limit))
        if "pytest" in command:
            return "1 passed in 2 s\n"
        if "--output" in command:
            run = pathlib.Path(command[command.index("--output") + 1])
            run.mkdir()
            (run / "history.csv").write_text(
                "images_per_second,teraflops,share_of_peak,waited_for_data\n"
                "1,1,1,1\n640,0.5,0.25,0.125\n"
            )
            return ""
        for word, outcome in self.outcomes.items():
            # An option of Python itself, or the model.
            if word == command[0] or word in pathlib.Path(command[2]).stem:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        return json.dumps(RESULT)


def checked(tool, monkeypatch, capsys, outcomes, *flags):
    monkeypatch.setattr(tool, "run", outcomes)
    with pytest.raises(SystemExit) as caught:
        tool.main(list(flags))
    return caught.value.code, capsys.readouterr().out.splitlines()


def test_table_of_a_card(tool, monkeypatch, capsys):
    outcomes = Outcomes(
        ["NVIDIA H100", False, 989e12, False],
        cc12m_256=tool.TooLong("not done in 240 s"),
        mdm_base_64=tool.Failed("failed (1): out of memory"),
    )
    code, lines = checked(tool, monkeypatch, capsys, outcomes)
    assert code == 1
    assert lines[0].split() == " ".join(tool.COLUMNS).split()
    assert "NVIDIA H100: 989 TFLOP/s in bfloat16, by its data sheet" in lines[1]
    assert "nested_basic in float32: 1 passed" in lines[2]
    assert {line.partition(" (")[0] for line in lines[3:11]} == {
        f"{model} {what}" for model in tool.MODELS for what in ("train", "sample")
    }
    told = "\n".join(lines[11:])
    assert told.count("128.0") == 2  # small_nested and cc12m_64
    assert told.count("was not compiled in time") == 2
    assert told.count("out of memory") == 2  # tried alone once more
    assert "640.0" in lines[-1] and "waited for data 12.5% of the time" in lines[-1]
    dtypes = [c[c.index("--dtype") + 1] for c, _ in outcomes.commands if "--dtype" in c]
    assert set(dtypes) == {"mixed_bfloat16"}


def test_table_of_a_cpu_and_the_budget(tool, monkeypatch, capsys):
    outcomes = Outcomes(["cpu", True, 1e11, True])
    code, lines = checked(tool, monkeypatch, capsys, outcomes, "--budget", "30")
    assert code == 0 and len(lines) == 6
    assert all(limit <= 30 for _, limit in outcomes.commands)
    assert [line.split()[1] for line in lines[3:5]] == ["train", "sample"]


def test_without_a_device_nothing_else_is_tried(tool, monkeypatch, capsys):
    outcomes = Outcomes(None, **{"-c": tool.Failed("failed (1): no device")})
    code, lines = checked(tool, monkeypatch, capsys, outcomes)
    assert code == 1 and len(lines) == 2 and "no device" in lines[1]


def test_configurations_are_there(tool):
    files = [
        value for option, value, *_ in tool.MODELS.values() if option == "--config"
    ]
    assert len(files) == 3 and all(file.is_file() for file in files)


def test_a_budget_must_be_positive(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--budget", "0"])
    assert "must be above 0. Received: 0" in capsys.readouterr().err
