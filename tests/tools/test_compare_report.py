"""The tables of tools/compare.py's report."""

import pathlib

import pytest

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def test_gradient_norms_and_their_variance_by_hand():
    """Rows of the first half of the steps are left out, of each seed by itself."""
    from compare_report import _norms

    norms = {"0": [9.0, 1.0, 3.0], "1": [50.0, 2.0, 4.0]}
    place = {"set": "digits", "line": "nested", "level": "16"}
    rows = [
        {**place, "seed": seed, "step": str(step), "norm": str(norm)}
        for seed, found in norms.items()
        for step, norm in zip((10, 20, 30), found, strict=True)
    ]
    _, table = _norms(rows)
    # Means 2 and 3, and 12.706 of Student's t at a degree of freedom; variances 1, 1.
    assert table.splitlines()[2] == "| `nested` | 16 | 2.5 ± 6.4 | 1 ± 0 |"
    assert _norms([]) == []
