"""Captions of folders, tar shards and TFDS sets; embeddings of captions on disk."""

import hashlib
import io
import json
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import EmbeddingShards, Source, make_dataset, open_source
from keras_mdm.data.embeddings import write_about, write_shard

pytestmark = pytest.mark.once


def _png(number, size=(12, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for i in range(3):
        (tmp_path / "sub" / f"{i}.png").write_bytes(_png(i))
    return tmp_path


def _captions(source):
    """Caption by the red value of the picture."""
    return {int(item["image"][0, 0, 0]): item["caption"] for item in source}


def test_text_files(folder):
    for i in range(2):
        (folder / "sub" / f"{i}.txt").write_text(f" number {i}\n")
    source = open_source(f"folder:{folder}", "all")
    assert source.has_captions and source.num_classes is None
    assert _captions(source) == {0: "number 0", 1: "number 1"}
    assert "1 of" in source.report() and "2.png (has no caption)" in source.report()


@pytest.mark.parametrize("column", ["text", "caption"])
@pytest.mark.parametrize("place", ["", "sub"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables(folder, column, place, kind):
    prefix = "" if place else "sub/"
    rows = [{"file_name": f"{prefix}{i}.png", column: f"n, {i}"} for i in range(3)]
    table = folder / place / f"metadata.{kind}"
    if kind == "csv":
        lines = [
            f"file_name,{column}",
            *(f'{prefix}{i}.png,"n, {i}"' for i in range(3)),
        ]
    else:
        lines = [json.dumps(row) for row in rows]
    table.write_text("\n".join(lines))
    source = open_source(f"folder:{folder}", "all")
    assert _captions(source) == {i: f"n, {i}" for i in range(3)}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_says_the_split(folder, kind):
    rows = [(0, "test"), (1, "Val"), (2, "")]
    lines = [f"sub/{i}.png,n {i},{split}" for i, split in rows]
    text = "\n".join(["file_name,text,split", *lines])
    if kind == "jsonl":
        text = "\n".join(
            json.dumps({"file_name": f"sub/{i}.png", "text": f"n {i}", "split": split})
            for i, split in rows
        )
    (folder / f"metadata.{kind}").write_text(text)

    def numbers(split):
        try:
            return set(_captions(open_source(f"folder:{folder}", split)))
        except ValueError:  # Empty.
            return set()

    # A row that does not say it is in the split that the name's hash gives.
    of_name = hashlib.sha256(b"sub/2.png").digest()
    assert int.from_bytes(of_name[:8], "big") % 100 < 90
    assert numbers("train") == {2}
    assert numbers("validation") == {1}
    assert numbers("test") == {0}
    assert numbers("all") == {0, 1, 2}


def test_a_table_says_the_class(folder):
    rows = [
        {"file_name": f"sub/{i}.png", "text": "a", "class": name, "split": split}
        for i, name, split in (
            (0, "pear", "train"),
            (1, "apple", "train"),
            (2, "pear", "test"),
        )
    ]
    table = folder / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    for split, labels in (("train", [1, 0]), ("test", [1]), ("all", [1, 0, 1])):
        source = open_source(f"folder:{folder}", split)
        assert source.class_names == ("apple", "pear")
        assert [item["label"] for item in source] == labels
        assert source.has_captions
    # Where a picture has none, no class would be right for it.
    del rows[1]["class"]
    table.write_text("\n".join(map(json.dumps, rows)))
    source = open_source(f"folder:{folder}", "all")
    assert source.num_classes is None and len(source) == 3
    assert "Only 2 of 3 captioned files have a class" in source.report()


@pytest.mark.parametrize(
    ("header", "rows", "line", "why"),
    [
        ("split", ["sub/0.png,a,first"], 3, "'validation' or 'test'.*'first'"),
        ("split", ["sub/0.png,a,train", "sub/0.png,b,test"], 4, "same in all.*'test'"),
        ("class", ["sub/0.png,a,pear", "sub/0.png,b,fig"], 4, "'fig' after 'pear'"),
    ],
)
def test_a_file_of_a_wrong_or_doubtful_row_is_left_out(folder, header, rows, line, why):
    good = ["sub/1.png,n 1,train" if header == "split" else "sub/1.png,n 1,plum"]
    text = "\n".join([f"file_name,text,{header}", *good, *rows])
    (folder / "metadata.csv").write_text(text)
    source = open_source(f"folder:{folder}", "all")
    assert _captions(source) == {1: "n 1"}
    skipped = dict(source.skipped)
    assert skipped[f"{folder}/sub/0.png"] == "has no caption"
    assert re.search(why, skipped[f"{folder}/metadata.csv, line {line}"])
    if header == "class":
        assert source.class_names == ("plum",)


def test_a_table_without_captions_is_told(folder):
    (folder / "metadata.csv").write_text("file_name,label\nsub/0.png,cat\n")
    source = open_source(f"folder:{folder}", "all")
    assert source.class_names == ("sub",)
    with pytest.raises(ValueError, match=r"columns \['file_name', 'label'\].*'text'"):
        make_dataset(source, 8, 1, keep=("images", "captions"))


@pytest.mark.parametrize("line", ['{"file_name": "0.png", "text": 3}', '{"file_name'])
def test_a_damaged_table_is_told(folder, line):
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match="metadata.jsonl"):
        open_source(f"folder:{folder}", "all")


def _write_shard(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    about = {"caption": "from json", "original_width": 300, "original_height": 200}
    _write_shard(
        tmp_path / "00000.tar",
        {
            "000.png": _png(0),
            "000.txt": b"from text",
            "000.json": json.dumps({**about, "similarity": 0.5}).encode(),
            "001.json": json.dumps({**about, "similarity": 0.25}).encode(),
            "001.png": _png(1),
            "002.png": _png(2),
            "003.txt": b"no picture",
            "004.png": _png(4)[:40],
            "004.txt": b"broken",
        },
    )
    _write_shard(tmp_path / "00001.tar", {"000.png": _png(7), "000.txt": b"seven"})
    return tmp_path


def test_tar_shards(shards):
    source = open_source(f"webdataset:{shards}", "all")
    assert len(source) == 4
    usable = [source[i] for i in (0, 1, 3)]
    assert _captions(usable) == {0: "from text", 1: "from json", 7: "seven"}
    assert usable[0]["micro_conditioning"]["scale"] == 200
    with pytest.raises(ValueError, match="corrupt"):
        source[2]
    for words in ("002 (has no caption)", "003 (has no picture)", "00000.tar@"):
        assert words in source.report()


def test_tar_shards_are_scanned_once(shards, monkeypatch):
    first = open_source(f"webdataset:{shards}/*.tar", "all")
    monkeypatch.setattr(tarfile, "open", None)
    again = open_source(f"webdataset:{shards}", "all")
    assert [again.describe(i) for i in range(4)] == [
        first.describe(i) for i in range(4)
    ]
    assert again.report().count("has no") == 2


def test_a_shard_that_was_cut_off(shards):
    path = shards / "00000.tar"
    path.write_bytes(path.read_bytes()[:2400])
    source = open_source(f"webdataset:{shards}", "all")
    assert {source[i]["caption"] for i in range(len(source))} == {"from text", "seven"}


def test_no_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match="No .tar file in"):
        open_source(f"webdataset:{tmp_path}")


def test_numbers_for_micro_conditioning(shards):
    source = open_source(f"webdataset:{shards}", "all")
    dataset = make_dataset(
        source,
        8,
        2,
        shuffle=False,
        micro_conditioning=("scale", "similarity"),
        channels=1,
    )
    batch = next(iter(dataset))
    assert batch["scale"].tolist() == [200, 200]
    assert batch["similarity"].tolist() == [0.5, 0.25]
    # Without a record of the original, the picture itself says its size.
    seven = make_dataset(source, 8, 1, shuffle=False, micro_conditioning=("scale",))
    assert [b["scale"].tolist() for b in seven][-1] == [10]


class _Several(Source):
    """One picture with three captions."""

    def __init__(self):
        super().__init__("several", channels=1, has_captions=True)

    def __len__(self):
        return 4

    def _read(self, index):
        texts = (f"{index} a", f"{index} b", f"{index} c")
        image = np.zeros((8, 8, 1), "uint8")
        return {"image": image, "caption": texts[0], "captions": texts}


def test_of_several_captions_each_pass_takes_one_at_random():
    dataset = make_dataset(
        _Several(), 8, 4, shuffle=False, repeat=True, keep=("images", "captions")
    )
    batches = iter(dataset)
    passes = [next(batches)["captions"].tolist() for _ in range(20)]
    for captions in passes:
        assert [text[0] for text in captions] == ["0", "1", "2", "3"]
    assert {text for captions in passes for text in captions} == {
        f"{i} {letter}" for i in range(4) for letter in "abc"
    }


def test_embeddings_of_captions(tmp_path):
    texts = [f"{i} {letter}" for i in range(3) for letter in "abc"]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(texts), 5, 4)).astype("float32")
    masks = np.arange(5) < rng.integers(1, 6, (len(texts), 1))
    write_about(tmp_path, "fake", size=4, max_tokens=5)
    for number in range(2):
        part = slice(number * 5, number * 5 + 5)
        write_shard(tmp_path, number, texts[part], rows[part], masks[part])
    shards = EmbeddingShards(tmp_path)
    assert len(shards) == 9 and shards.size == 4
    found = shards.look_up([*texts, ""])
    assert found["text_mask"][:-1].tolist() == masks.tolist()
    expected = np.where(masks[..., None], rows, 0)
    np.testing.assert_allclose(found["text_embeddings"][:-1], expected, atol=2e-3)
    assert found["text_mask"][-1].tolist() == [True, False, False, False, False]

    source = _Several()
    batches = list(make_dataset(source, 8, 3, embeddings=shards, keep=("images",)))
    assert batches[0]["text_embeddings"].shape == (3, 5, 4)
    assert "has no embedding: '3 " in source.report()
    with pytest.raises(ValueError, match="another kind.*'size': 4.*'size': 8"):
        write_about(tmp_path, "fake", size=8, max_tokens=5)


def test_no_embeddings(tmp_path):
    with pytest.raises(FileNotFoundError, match="encode_captions.py"):
        EmbeddingShards(tmp_path)
