"""Reports of runs that were killed, damaged, or are somebody else's."""

import json

import numpy as np
import pytest
from keras_mdm_recipes import plot, report, run_folder
from PIL import Image

from keras_mdm.data import Source

pytestmark = pytest.mark.once

HEAD = "stage,resolution,step,loss,loss_8,learning_rate\n"
ROWS = "1,8,25,0.5,0.5,0.001\n1,8,50,0.25,0.25,\n"
SCRIPT = "<script>alert(1)</script>"


def make(folder, rows=HEAD + ROWS, **changes):
    config = {
        "recipe": "train-text",
        "settings": {"samples": {"prompts": [f"a {SCRIPT}"]}},
        "class_names": [SCRIPT],
        "versions": {"numpy": SCRIPT},
        "parameters": 5,
    } | changes
    folder.mkdir()
    (folder / "samples").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "history.csv").write_text(rows)
    (folder / "skipped.txt").write_text(f"{SCRIPT} was skipped")
    picture = Image.fromarray(np.zeros((8, 8), "uint8"))
    picture.save(folder / "samples" / "stage1_8px_<b>.png")
    return folder


def test_texts_of_a_run_are_no_markup(tmp_path):
    page = report.write_report(make(tmp_path / "run<img>")).read_text("utf-8")
    assert "<script" not in page and "<b>" not in page and "run<img>" not in page
    # Prompts, a version, and what was skipped.
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert "stage1_8px_&lt;b&gt;" in page
    assert page.count("data:image/png") == 5 and "http" not in page


@pytest.mark.parametrize(
    "row",
    ["1,8,75,0.2", "1,8", "1,8,x,0.2,0.2,", "1,8,75,a,0.2,", "1,8,-1,1,1,1", "1" * 99],
)
def test_half_a_row_of_a_killed_run_is_left_out(tmp_path, row):
    folder = make(tmp_path / "run", HEAD + ROWS + row)
    with pytest.warns(UserWarning, match="1 of 3 rows of .*history.csv' are damaged"):
        rows = plot.read_rows(folder / "history.csv", plot.PLACE)
    assert [row["step"] for row in rows] == ["25", "50"]
    with pytest.warns(UserWarning, match="left out"):
        assert "0.25" not in report.write_report(folder).read_text("utf-8")


class Skipping(Source):
    def __init__(self):
        super().__init__("few", channels=1)

    def __len__(self):
        return 9


def test_what_was_skipped_outlives_a_kill(tmp_path):
    folder = make(tmp_path / "run")
    (folder / "skipped.txt").unlink()
    page = report.write_report(folder).read_text("utf-8")
    assert "None so far." in page
    source = Skipping()
    write = run_folder.skipped_writer(folder, source, resume=False)
    write()
    assert not (folder / "skipped.txt").exists()
    source.skip("a/1.png", "it is\ttorn\n")
    write()
    # Killed, and resumed.
    again = Skipping()
    write = run_folder.skipped_writer(folder, again, resume=True)
    again.skip("a/2.png", "it is small")
    write()
    assert again.skipped == (*source.skipped, ("a/2.png", "it is small"))
    page = report.write_report(folder).read_text("utf-8")
    assert "a/1.png" in page and "a/2.png" in page


def test_a_run_without_rows_yet(tmp_path):
    folder = make(tmp_path / "run", "")
    assert plot.read_rows(folder / "history.csv", plot.PLACE) == []
    assert plot.read_rows(folder / "no.csv", plot.PLACE) == []
    assert "Settings" in report.write_report(folder).read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": []}, "its settings are no JSON object"),
        ({"settings": {"run": {"seed": "x"}}}, "run.seed must be a whole number"),
        ({"versions": [1]}, "`versions` must be texts"),
        ({"parameters": [[1]]}, "`parameters` must be a whole number"),
        ({"rows": "a,b\n1,2\n"}, "must have at most 200 columns"),
        ({"rows": HEAD.replace("loss_8", "loss_$x") + ROWS}, "with plain names"),
        (
            {"rows": HEAD + "".join(f"{i},8,1,1,1,1\n" for i in range(201))},
            "more than 200 stages",
        ),
    ],
)
def test_a_damaged_run_is_refused(tmp_path, changes, message):
    folder = make(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=message):
        report.write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_page_has_room_for_so_many_pictures(tmp_path, monkeypatch):
    folder = make(tmp_path / "run")
    for number in range(5):
        (folder / "samples" / f"stage2_8px_step{number}.png").write_bytes(b"x" * 100)
    monkeypatch.setattr(report, "_MOST_BYTES", 250)
    page = report.write_report(folder).read_text("utf-8")
    assert "step4<" in page and "step3<" in page and "step2<" not in page
    assert "4 earlier ones are in" in page
