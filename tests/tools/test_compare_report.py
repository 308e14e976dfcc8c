"""The files of tools/compare.py, and the tables of its report."""

import pathlib

import pytest

pytestmark = pytest.mark.once

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


def test_a_folder_keeps_the_settings_and_lines_of_its_runs(tmp_path):
    """A finished run must not be taken for another one of the same name."""
    from compare_arms import Task
    from compare_files import check_settings
    from compare_matrix import Line

    task, line = Task(32, 1, 10), Line("own", "any")
    check_settings(tmp_path, {"digits": "digits"}, {"digits": task}, [line])
    more = {"digits": task, "emoji": Task(32, 3, 9)}
    sets = {"digits": "digits", "emoji": "folder:a"}
    check_settings(tmp_path, sets, more, [line, Line("new", "any")])
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    longer = {"digits": Task(32, 1, 10, steps=301)}
    told = f"settings.json has 'digits' with .*{task.steps}"
    with pytest.raises(ValueError, match=told):
        check_settings(tmp_path, {"digits": "digits"}, longer, [line])
    with pytest.raises(ValueError, match="lines.json has 'own' with .*Received.*plain"):
        check_settings(tmp_path, sets, more, [Line("own", "any", arm="plain")])
    assert kept == {path.name: path.read_text() for path in tmp_path.iterdir()}
