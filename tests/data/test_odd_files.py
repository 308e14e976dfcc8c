"""Folders, tables and shards as Windows, spreadsheets, links and damage leave them."""

import json
import os
import tarfile
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import make_dataset, open_source, pictures
from keras_mdm.files import decode, lines_of


def _picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (value, 0, 0)).save(path, "PNG")


def _open(folder, split="all"):
    return open_source(f"folder:{folder}", split)


def _captions(source):
    return {int(item["image"][0, 0, 0]): item["captions"] for item in source}


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        _picture(tmp_path / "sub" / f"{i}.png", i)
    return tmp_path


# === Tables ===

ROWS = "file_name,text\nsub/0.png,a cat\nsub/1.png,a dög\nsub/2.png,a bird\n"
WANTED = {0: ("a cat",), 1: ("a dög",), 2: ("a bird",)}


@pytest.mark.parametrize(
    "data",
    [
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.replace("\n", "\r").encode(),
        ROWS.replace("\n", "\n\n").encode(),
        ROWS.replace(",", ";").encode("utf-8-sig"),
        ROWS.replace(",", "\t").encode("utf-16"),
        ROWS.replace(",", ", ").encode(),
        ROWS.replace("sub/", "sub\\").encode(),
        ROWS.replace("sub/", "./sub/").encode(),
        ROWS.replace("\n", ",\n").replace("text,", "text").encode(),
    ],
)
def test_csv_as_it_is_written_elsewhere(folder, data):
    (folder / "metadata.csv").write_bytes(data)
    assert _captions(_open(folder)) == WANTED


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sub/1.png,a dog, a cat", "line 3 has 3 fields.*quotation marks"),
        ('sub/1.png,"a dog', "line 3"),
        ("sub/1.png", "line 3 has 1 fields"),
    ],
)
def test_a_row_that_is_no_row_is_named(folder, line, words):
    rows = ROWS.splitlines()
    (folder / "metadata.csv").write_text("\n".join([*rows[:2], line, *rows[3:]]))
    with pytest.raises(ValueError, match=f"metadata.csv is damaged: {words}"):
        _open(folder)


def test_another_encoding_is_named(folder):
    (folder / "metadata.csv").write_bytes(ROWS.encode("latin-1"))
    with pytest.raises(ValueError, match="line 3 is not UTF-8.*save the file as UTF-8"):
        _open(folder)


def test_columns_that_are_there_twice_are_named(folder):
    (folder / "metadata.csv").write_text("file_name,text,text\nsub/0.png,a,b\n")
    with pytest.raises(ValueError, match=r"\['text'\] are there twice"):
        _open(folder)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\x0b", "\x1c"])
def test_unusual_separators_end_no_line(folder, character):
    rows = [
        {"file_name": f"sub/{i}.png", "text": f"a{character}b {i}"} for i in range(3)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    wanted = {i: (row["text"],) for i, row in enumerate(rows)}
    (folder / "metadata.jsonl").write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert _captions(_open(folder)) == wanted
    (folder / "metadata.jsonl").unlink()
    lines = [f"{row['file_name']},{row['text']}" for row in rows]
    (folder / "metadata.csv").write_text("file_name,text\n" + "\n".join(lines))
    assert _captions(_open(folder)) == wanted


def test_text_files_with_marks(folder):
    for i, encoding in enumerate(("utf-8-sig", "utf-16", "latin-1")):
        (folder / "sub" / f"{i}.txt").write_bytes("a dög".encode(encoding))
    source = _open(folder)
    assert source[0]["caption"] == source[1]["caption"] == "a dög"
    with pytest.raises(ValueError, match="2.txt is unreadable: line 1 is not UTF-8"):
        source[2]


@pytest.mark.parametrize(("disk", "table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_that_systems_spell_in_two_ways(tmp_path, disk, table):
    _picture(tmp_path / unicodedata.normalize(disk, "dög.png"), 5)
    name = unicodedata.normalize(table, "dög.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{name},a dog\n")
    assert _captions(_open(tmp_path)) == {5: ("a dog",)}


@pytest.mark.parametrize("kind", ["rows", "list"])
def test_several_captions_of_a_picture_are_kept(folder, kind):
    rows = [("sub/0.png", "a"), ("sub/0.png", "b"), ("sub/1.png", "c")]
    if kind == "rows":
        lines = [json.dumps({"file_name": n, "text": t}) for n, t in rows]
    else:
        lines = [
            json.dumps({"file_name": "sub/0.png", "text": ["a", "b"]}),
            json.dumps({"file_name": "sub/1.png", "text": ["c"]}),
        ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = _open(folder)
    assert _captions(source) == {0: ("a", "b"), 1: ("c",)}
    dataset = make_dataset(source, 8, 1, repeat=True, keep=("images", "captions"))
    seen = [b["captions"][0] for b, _ in zip(dataset, range(40), strict=False)]
    assert set(seen) == {"a", "b", "c"}


def test_rows_without_a_file_are_told(folder):
    (folder / "metadata.csv").write_text(ROWS + "sub/9.png,nothing\n")
    with pytest.warns(UserWarning, match="1 rows of metadata.csv.*'sub/9.png'"):
        source = _open(folder)
    assert _captions(source) == WANTED
    assert "sub/9.png" in source.report()


def test_a_row_that_is_no_object_is_named(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "a", "text": "b"}\n[1]\n')
    with pytest.raises(ValueError, match=r"line 2 must be an object, not '\[1\]'"):
        _open(folder)


def test_decode_and_lines():
    assert decode("ö".encode("utf-32")) == "ö"
    assert lines_of("a\r\nb\rc\nd\u2028e") == ["a", "b", "c", "d\u2028e"]


# === Folders ===


def test_links_that_lead_back_count_nothing_twice(folder):
    _picture(folder / "other" / "0.png")
    (folder / "sub" / "all").symlink_to(folder, target_is_directory=True)
    (folder / "loop").symlink_to(folder / "sub", target_is_directory=True)
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    source = _open(folder)
    assert len(source) == 4 and source.class_names == ("other", "sub")


def test_links_to_elsewhere_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _picture(elsewhere / "deep" / "0.png", 9)
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    source = _open(folder)
    assert len(source) == 4 and source.class_names == ("linked", "sub")


def test_pictures_that_no_reader_takes_are_counted(folder):
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt"):
        (folder / "sub" / name).write_text("x")
    with pytest.warns(UserWarning, match="left out: 2 .heic, 1 .svg"):
        source = _open(folder)
    assert "2 .heic, 1 .svg" in source.report()


def test_an_empty_class_keeps_its_number(folder):
    (folder / "a").mkdir()
    (folder / "docs").mkdir()
    (folder / "docs" / "readme.md").write_text("no class")
    with pytest.warns(UserWarning, match=r"without pictures.*\['a'\]"):
        source = _open(folder)
    assert source.class_names == ("a", "sub") and source[0]["label"] == 1


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val"), ("train",)])
def test_splits_are_not_taken_for_classes(tmp_path, names):
    for name in names:
        _picture(tmp_path / name / "cat" / "0.png")
    with pytest.raises(ValueError, match="are splits, not classes.*split='all'"):
        _open(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane"):
        _picture(tmp_path / name / "0.png")
    assert _open(tmp_path).class_names == ("plane", "train")


def test_names_that_are_no_text(tmp_path):
    raw = os.fsencode(tmp_path)
    for name in (b"caf\xe9/0.png", b"caf\xe9/\xff.png", b"tea/1.png"):
        path = os.path.join(raw, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.new("RGB", (12, 12)).save(os.fsdecode(path), "PNG")
    with open(os.path.join(raw, b"tea/\xfe.png"), "wb") as file:
        file.write(b"damaged")
    source = _open(tmp_path)
    assert source.class_names == ("caf\\xe9", "tea")
    labels = []
    for index in range(len(source)):
        try:
            labels.append(source[index]["label"])
        except ValueError as error:
            str(error).encode()
    assert sorted(labels) == [0, 0, 1]
    assert "\\xfe.png" in source.report()
    source.report().encode()
    for split in ("train", "validation", "test"):
        try:
            _open(tmp_path, split)
        except ValueError as error:
            assert "empty" in str(error)


@pytest.mark.parametrize("prefix", ["folder:", "clips:", "webdataset:"])
def test_a_path_must_be_given(prefix):
    with pytest.raises(ValueError, match="must have a path after"):
        open_source(prefix)


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _picture(tmp_path / "pictures" / "0.png", 3)
    assert len(open_source("folder:~/pictures", "all")) == 1


@pytest.mark.parametrize("resolution", [(32, 48), 8.5, True, "8", 0])
def test_pictures_are_square(folder, resolution):
    with pytest.raises(
        ValueError, match="one whole number from 1 .pictures are square"
    ):
        make_dataset(_open(folder), resolution, 1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, name):
    """Pillow would hand PostScript to Ghostscript, whatever the name."""
    marker = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    script += b"0 0 10 10 rectfill\nshowpage\n%%EOF\n"
    (tmp_path / name).write_bytes(script)
    with pytest.raises(ValueError, match="corrupt or unreadable"):
        pictures.read_picture(tmp_path / name)
    assert not marker.exists()


# === Shards ===


@pytest.fixture
def shard(tmp_path):
    """Ten samples, each a picture and a caption."""
    path = tmp_path / "shards" / "00000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        for i in range(10):
            _picture(tmp_path / "p.png", i)
            (tmp_path / "p.txt").write_bytes(f"number {i}".encode("utf-8-sig"))
            for ending in ("png", "txt"):
                file.add(tmp_path / f"p.{ending}", f"{i:03}.{ending}")
    return path


def _open_shard(shard):
    return open_source(f"webdataset:{shard.parent}", "all")


def test_a_damaged_header_is_reported_with_what_is_lost(shard):
    assert [item["caption"] for item in _open_shard(shard)][7] == "number 7"
    with tarfile.open(shard) as file:
        start = file.getmember("004.png").offset
    data = bytearray(shard.read_bytes())
    data[start : start + 512] = b"\xaa" * 512
    shard.write_bytes(data)
    source = _open_shard(shard)
    assert len(source) == 4
    lost = f"remaining {len(data) - start} of {len(data)} bytes of the shard are lost"
    assert lost in source.report()


def test_data_behind_the_end_of_the_archive_are_reported(shard):
    data = shard.read_bytes()
    shard.write_bytes(data + data)
    source = _open_shard(shard)
    assert len(source) == 10
    assert f"remaining {len(data)} of {2 * len(data)} bytes" in source.report()


def test_a_sound_shard_loses_nothing(shard):
    source = _open_shard(shard)
    assert len(source) == 10 and not source.skipped


@pytest.mark.parametrize("damage", ["cut", "empty", "no zip", "other arrays"])
def test_a_damaged_index_is_made_anew(shard, damage):
    wanted = [item["caption"] for item in _open_shard(shard)]
    (index,) = [e for e in shard.parent.iterdir() if e.name.endswith(".npz")]
    data = index.read_bytes()
    if damage == "other arrays":
        np.savez(index, stamp=np.zeros(3))
    else:
        kinds = {"cut": data[: len(data) // 2], "empty": b"", "no zip": b"x" * 99}
        index.write_bytes(kinds[damage])
    assert [item["caption"] for item in _open_shard(shard)] == wanted


@pytest.mark.parametrize(
    "text", ["[1]", "3", '"text"', "[" * 100_000, '{"caption": "a", "n": 1e999}']
)
def test_json_that_is_no_object(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    _picture(tmp_path / "p.png")
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for ending in ("png", "json"):
            file.add(tmp_path / f"p.{ending}", f"000.{ending}")
    source = open_source(f"webdataset:{tmp_path}", "all")
    if "caption" in text:
        assert "n" not in source[0].get("numbers", {})
        return
    with pytest.raises(ValueError, match="caption is unreadable"):
        source[0]
    assert "caption is unreadable" in source.report()


@pytest.mark.parametrize("name", ["00000.tar.gz", "00000.tgz", "00000.tar"])
def test_compressed_shards_are_to_be_unpacked(tmp_path, name):
    with tarfile.open(tmp_path / name, "w:gz"):
        pass
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name} is compressed.*unpack it first"):
            open_source(f"webdataset:{path}")


def test_an_honest_folder_is_not_warned_of(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = _open(folder)
    assert source.report().endswith("was skipped so far.")
