"""`tools/benchmark_data.py`: its figures and its errors."""

import importlib
import itertools
import pathlib
import types

import numpy as np
import pytest

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmark_data")


def test_figures(tool, monkeypatch):
    now = types.SimpleNamespace(value=0.0)
    monkeypatch.setattr(
        tool, "time", types.SimpleNamespace(perf_counter=lambda: now.value)
    )

    def batches():
        # Slow at the start, then two seconds a batch.
        for number in itertools.count():
            now.value += 50.0 if number < 3 else 2.0
            yield {"images": np.zeros((4, 10, 10, 3), "uint8"), "labels": np.zeros(4)}

    counts = []
    found = tool.measure(batches(), 10.0, warm_up=3, update=counts.append)
    assert found == (150.0, 2.0, 600.0)
    assert counts == [4] * 5


def test_table(tool, capsys):
    tool.main(
        ["--dataset", "digits", "--num-workers", "0", "--seconds", "0.1"]
        + ["--resolution", "16", "--batch-size", "50"]
    )
    title, row = capsys.readouterr().out.splitlines()
    assert title.split("  ")[0] == "data set"
    name, workers, _, images, size, skipped = row.split()
    assert (name, workers, skipped) == ("digits", "0", "0")
    # A picture of one channel has 256 bytes.
    assert float(size) == pytest.approx(float(images) * 256e-6, abs=0.06)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--dataset"),
        (["--dataset", "digits", "--seconds", "0"], "--seconds must be above 0"),
        (["--dataset", "digits", "folder:/no/such"], "/no/such"),
        (["--dataset", "digits", "--num-workers", "-1"], "num_workers=-1"),
        (["--dataset", "digits", "--batch-size", "5000"], "the 5000 of one batch"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(tool, capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        tool.main(flags)
    output = capsys.readouterr()
    assert message in str(caught.value.code) + output.err
    assert output.out == ""
