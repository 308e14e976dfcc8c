"""Texts and tables as Windows, Excel, old Macs and the web write them."""

import codecs
import io
import json
import re
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from keras_mdm.conditioning import t5_files
from keras_mdm.data import EmbeddingShards, Limits, make_dataset, open_source
from keras_mdm.data.embeddings import write_about, write_shard
from keras_mdm.text_files import decode_text, printable, read_json, split_lines

pytestmark = pytest.mark.once

SEPARATORS = "a\x85cat\u2028and\u2029a\x0bdog\x1c"


def _save(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (number, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        _save(tmp_path / "sub" / f"{i}.png", i)
    return tmp_path


def _captions(source):
    """Captions by the red value of the picture."""
    return {
        int(item["image"][0, 0, 0]): item.get("captions", (item["caption"],))
        for item in source
    }


def _read(folder, name, data):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_source(f"folder:{folder}", "all")


EXPECTED = {0: ("a, b",), 1: ("é",), 2: ("c",)}
TABLE = 'file_name,text\nsub/0.png,"a, b"\nsub/1.png,é\nsub/2.png,c\n'


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\n\n ,\n").encode(),
        lambda text: text.replace("/", "\\").encode(),
        lambda text: text.replace("file_name,text", " File_Name , Text ").encode(),
        lambda text: text.replace("\n", ",,\n").encode(),
        lambda text: text.replace(".png,", ".png , ").encode(),
        lambda text: text.replace("sub/", "./sub/").encode(),
    ],
)
def test_csv_is_read_as_meant(folder, encode):
    source = _read(folder, "metadata.csv", encode(TABLE))
    assert _captions(source) == EXPECTED
    assert source.report().startswith("No picture") and not source.notes


def test_csv_with_semicolons_and_tabs(folder):
    text = "sep=;\r\nfile_name;text\r\nsub/0.png;a, b\r\nsub/1.png;é\r\nsub/2.png;c\r\n"
    assert _captions(_read(folder, "metadata.csv", text)) == EXPECTED
    text = text.split("\n", 1)[1]
    assert _captions(_read(folder, "metadata.csv", text)) == EXPECTED
    text = text.replace(";", "\t").encode("utf-16")
    assert _captions(_read(folder, "metadata.csv", text)) == EXPECTED
    (folder / "metadata.csv").unlink()
    assert _captions(_read(folder, "metadata.tsv", text)) == EXPECTED


def test_lines_end_at_line_feeds_and_carriage_returns_alone(folder):
    assert split_lines(f"1\r\n2\r3\n{SEPARATORS}") == ["1", "2", "3", SEPARATORS]
    rows = [{"file_name": f"sub/{i}.png", "text": SEPARATORS} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\ufeff" + "\r\n\r\n".join(lines)
    source = _read(folder, "metadata.jsonl", text)
    assert _captions(source) == dict.fromkeys(range(3), (SEPARATORS.strip(),))
    (folder / "metadata.jsonl").unlink()
    text = "file_name,text\n" + "".join(f"sub/{i}.png,{i}\x85\u2028\n" for i in "012")
    source = _read(folder, "metadata.csv", text)
    assert _captions(source) == {i: (str(i),) for i in range(3)}


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("csv", TABLE.replace("text", "text,text"), "'text' more than once"),
        ("csv", TABLE.encode("latin-1"), "not UTF-8: byte 0xe9 in line 3.*Save"),
        ("csv", TABLE.encode("utf-16-le"), "zero byte in line 1.*UTF-16"),
        ("csv", TABLE.replace("é", "\0"), "zero byte in line 3"),
        ("csv", TABLE.replace("sub/", "x/"), "No row names a file.*x/0.png"),
        ("csv", '"file_name,text\nsub/0.png,a', "begins in line 1.*Close each quote"),
        ("jsonl", '\n\n{"file_name', "1 of 1 rows.*line 3"),
        (
            "jsonl",
            '[\n{"file_name": "a", "text": "b"}]',
            "2 of 2 rows.*line 1: .*is not JSON.*Each line.*line 2",
        ),
        ("jsonl", '{"file_name": "sub/0.png", "text": null}', "line 1: 'text': a cap"),
        ("jsonl", "[" * 100_000, "line 1.*is not JSON"),
    ],
)
def test_damaged_tables_are_refused(folder, name, data, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        _read(folder, f"metadata.{name}", data)
    assert f"metadata.{name}" in str(error.value)


LINES = "".join(
    json.dumps({"file_name": f"sub/{i}.png", "text": text}) + "\n"
    for i, (text,) in EXPECTED.items()
)


@pytest.mark.parametrize(
    "name, row, why",
    [
        ("csv", "sub/1.png,a dog, a cat", "3 fields.*comma.*quotes"),
        ("csv", "sub/1.png", "1 fields, and the header has 2"),
        ("csv", 'sub/1.png,"a dog', "begins in line 5 is damaged.*Close each quote"),
        ("csv", 'sub/1.png,"a \\"big\\" dog"', "begins in line 5 is damaged"),
        ("csv", ",no name", "'file_name' must be the name of a file"),
        ("csv", "sub/1.png," + "x" * 120_000, "120000 characters, more than 100000"),
        ("csv", "sub/1.png," + "x" * 200_000, "field larger than field limit"),
        ("jsonl", '{"file_name', "is not JSON.*Each line"),
        ("jsonl", "[1]", "Each line of a .jsonl file must be a JSON object"),
        ("jsonl", '{"file_name": "sub/0.png", "text": null}', "'text': a caption"),
        ("jsonl", '{"file_name": "sub/0.png", "text": []}', "'text': a caption"),
        ("jsonl", '{"file_name": "sub/0.png", "text": ["a", 1]}', "must be strings"),
        ("jsonl", '{"file_name": ["sub/0.png"], "text": "a"}', "'file_name' must"),
        ("jsonl", "[" * 100_000, "is not JSON"),
        ("jsonl", '{"a":' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_damaged_row_is_skipped_and_told(folder, name, row, why):
    """Wherever it stands, the others are read as if it were not there."""
    rows = (TABLE if name == "csv" else LINES).splitlines(keepends=True)
    source = _read(folder, f"metadata.{name}", "".join(rows) + row + "\n")
    line = len(rows) + 1
    ((what, told),) = source.skipped
    assert what == f"{folder}/metadata.{name}, line {line}"
    assert re.search(f"(?s){why}", told) and len(told) <= 1000
    assert _captions(source) == EXPECTED
    if "Close each" in told:
        return  # The quote may take what follows with it.
    after = "".join([*rows[:-1], row + "\n", rows[-1]])
    source = _read(folder, f"metadata.{name}", after)
    assert [what.rpartition(" ")[2] for what, _ in source.skipped] == [str(line - 1)]
    assert _captions(source) == EXPECTED
    assert f"line {line - 1} (" in source.report()


def test_what_a_quote_swallows_is_lost_and_counted(folder):
    rows = TABLE.splitlines()
    rows[2] = rows[2].replace(",", ',"')
    source = _read(folder, "metadata.csv", "\n".join(rows))
    assert _captions(source) == {0: EXPECTED[0]}
    assert [what.rpartition("/")[2] for what, _ in source.skipped] == [
        "1.png",
        "2.png",
        "metadata.csv, line 3",
    ]
    # Three quarters, by lines, of what the table has.
    rows = [rows[0], *rows[2:], "sub/0.png,x"]
    with pytest.raises(ValueError, match="3 of 3 rows .*line 2: the row that begins"):
        _read(folder, "metadata.csv", "\n".join(rows))


def test_too_many_damaged_rows_are_refused_with_the_reasons(folder):
    rows = TABLE + "sub/0.png\n,x\nsub/0.png,a,b\n"
    _read(folder, "metadata.csv", rows)
    name = f"folder:{folder}"
    assert len(open_source(name, "all", limits=Limits(unusable_rows=0.5)).skipped) == 3
    with pytest.raises(ValueError) as error:
        open_source(name, "all", limits=Limits(unusable_rows=0.49))
    assert "3 of 6 rows of" in str(error.value)
    assert "more than the share `unusable_rows=0.49`: line 5: 1 fields" in str(
        error.value
    )
    assert "; line 6: 'file_name'" in str(error.value)
    assert "; line 7: 3 fields" in str(error.value)


@pytest.mark.parametrize("kinds", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_however_they_are_written(tmp_path, kinds):
    on_disk, in_table = (unicodedata.normalize(kind, "é.png") for kind in kinds)
    assert on_disk != in_table
    _save(tmp_path / on_disk)
    table = tmp_path / "metadata.csv"
    table.write_text(f"file_name,text\n{in_table},an accent\n", "utf-8")
    source = open_source(f"folder:{tmp_path}", "all")
    assert source[0]["caption"] == "an accent"
    table.unlink()
    (tmp_path / in_table.replace(".png", ".TXT")).write_bytes(b"beside")
    assert open_source(f"folder:{tmp_path}", "all")[0]["caption"] == "beside"


def test_a_backslash_may_be_part_of_a_name(tmp_path):
    _save(tmp_path / "a\\b.png", 1)
    _save(tmp_path / "a" / "b.png", 2)
    (tmp_path / "metadata.csv").write_text("file_name,text\na\\b.png,one\na/b.png,two")
    source = open_source(f"folder:{tmp_path}", "all")
    assert _captions(source) == {1: ("one",), 2: ("two",)}


def test_rows_that_name_no_picture_are_told(folder):
    source = _read(folder, "metadata.csv", TABLE + "sub/9.png,gone\n../x.png,out\n")
    assert _captions(source) == EXPECTED
    assert "2 row(s) of" in source.report()
    assert "'sub/9.png' (line 5), '../x.png' (line 6)" in source.report()


def test_text_files_beside_pictures(folder):
    texts = ["\ufefffirst\r\n", "second".encode("utf-16"), "é".encode("latin-1")]
    for i, text in enumerate(texts):
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "sub" / f"{i}.txt").write_bytes(data)
    source = open_source(f"folder:{folder}", "all")
    assert [source[i]["caption"] for i in range(2)] == ["first", "second"]
    with pytest.raises(ValueError, match="2.txt is unreadable.*byte 0xe9 in line 1"):
        source[2]
    assert len(source.skipped) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl", "list"])
def test_several_captions_of_a_picture_are_kept(folder, kind):
    pairs = [(0, "a"), (1, "b"), (0, "c"), (2, "d"), (0, "e")]
    if kind == "csv":
        rows = "".join(f"sub/{i}.png,{text}\n" for i, text in pairs)
        source = _read(folder, "metadata.csv", "file_name,text\n" + rows)
    else:
        rows = [{"file_name": f"sub/{i}.png", "text": text} for i, text in pairs]
        if kind == "list":
            texts = {i: [t for j, t in pairs if j == i] for i in range(3)}
            rows = [
                {"file_name": f"sub/{i}.png", "captions": texts[i]} for i in range(3)
            ]
        lines = "\n".join(map(json.dumps, rows))
        source = _read(folder, "metadata.jsonl", lines)
    assert _captions(source) == {0: ("a", "c", "e"), 1: ("b",), 2: ("d",)}
    assert source[0]["caption"] == "a"
    dataset = make_dataset(
        source, 8, 3, shuffle=False, repeat=True, keep=("images", "captions")
    )
    batches = iter(dataset)
    drawn = np.array([next(batches)["captions"] for _ in range(30)])
    assert [set(column) for column in drawn.T] == [{"a", "c", "e"}, {"b"}, {"d"}]


def test_halves_of_characters_can_be_hashed_and_encoded(folder):
    row = r'{"file_name": "sub/0.png", "text": "a \ud83d and \ud83d\ude00"}'
    source = _read(folder, "metadata.jsonl", row)
    assert source[0]["caption"] == "a \ufffd and \U0001f600"
    source[0]["caption"].encode()


def test_json_files(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": "\xc3\xa9"}')
    assert read_json(path) == t5_files.read_json(path) == {"a": "é"}
    path.write_bytes("{}".encode("utf-16"))
    assert read_json(path) == {}
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="config.json' is not JSON"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="config.json' is no JSON object"):
        t5_files.read_json(path)


def test_printable():
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert printable("\ud83d é") == "\\ud83d é"
    with pytest.raises(ValueError, match=r"'caf\\xe9' is not UTF-8.*in line 2"):
        decode_text(b"a\n\xff", "caf\udce9")


@pytest.fixture
def embeddings(tmp_path):
    folder = tmp_path / "embeddings"
    write_about(folder, "fake", size=4, max_tokens=5)
    masks = np.ones((3, 5), "bool")
    write_shard(folder, 0, ["a", "b", "c"], np.ones((3, 5, 4)), masks)
    write_shard(folder, 1, ["d", "e"], np.ones((2, 5, 4)), masks[:2])
    return folder


def test_embeddings_with_a_mark_and_files_of_macs(embeddings):
    about = embeddings / "embeddings.json"
    about.write_bytes(codecs.BOM_UTF8 + about.read_bytes())
    (embeddings / "._00000.index.npz").write_bytes(b"resource fork")
    assert len(EmbeddingShards(embeddings)) == 5


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("[]", "no JSON object, but a list"),
        ("{}", "damaged: it must have"),
        ("{", "not JSON"),
        ('{"format": 1, "size": "4"}', "damaged: it must have"),
    ],
)
def test_a_damaged_description_of_embeddings_is_named(embeddings, about, words):
    (embeddings / "embeddings.json").write_text(about)
    with pytest.raises(ValueError, match=rf"embeddings\.json' is {words}"):
        EmbeddingShards(embeddings)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _cut(folder / "00001.index.npz"),
        lambda folder: _cut(folder / "00001.tokens.npy"),
        lambda folder: (folder / "00001.tokens.npy").unlink(),
        lambda folder: (folder / "00001.index.npz").write_bytes(
            (folder / "00000.index.npz").read_bytes()
        ),
        lambda folder: np.savez(folder / "00001.index.npz", other=np.zeros(2)),
    ],
)
def test_damaged_shards_of_embeddings_are_named(embeddings, damage):
    damage(embeddings)
    with pytest.raises(ValueError, match="Shard 1 .*is damaged.*encode_captions"):
        EmbeddingShards(embeddings)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_reports_can_be_printed(tmp_path, monkeypatch):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    _save(tmp_path / name / "a.png")
    (tmp_path / name / "b\udcff.png").write_bytes(b"no picture")
    source = open_source(f"folder:{tmp_path}", "all")
    assert source.class_names == ("caf\\xe9",)
    assert {source[0]["label"]} == {0}
    with pytest.raises(ValueError):
        source[1]
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    print(source.report(), source.name, source.describe(1), *source.class_names)
    out.flush()
    assert b"caf\\xe9/b\\xff.png" in out.buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "columns"),
    [("", r"\[\]"), ("sub/0.png,a\nsub/1.png,b\n", r"\['a', 'sub/0.png'\]")],
)
def test_a_table_without_captions_is_told(folder, data, columns):
    """Else the pictures would be those of classes, and nobody knew why."""
    (note,) = _read(folder, "metadata.csv", data).notes
    assert re.search(rf"metadata.csv has the columns {columns}.*not used", note)
