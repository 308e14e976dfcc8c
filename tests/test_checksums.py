"""Checksums of files and values, names as they are shown, bounds on what is read."""

import json
import zipfile
import zlib

import numpy as np
import pytest

from keras_mdm.checksums import (
    check_values,
    file_checksum,
    read_arrays,
    with_checksum,
)
from keras_mdm.data.embeddings import EmbeddingShards, write_about, write_shard
from keras_mdm.text_files import cut, printable, read_text
from keras_mdm.training.pictures import pyramid_grid

pytestmark = pytest.mark.once


def test_checksums_are_those_of_zip_archives(tmp_path):
    data = bytes(range(256)) * 9000  # more than is read at once
    (tmp_path / "a").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", data)
        expected = f"{archive.getinfo('a').CRC:08x}"
    assert file_checksum(tmp_path / "a") == expected


def test_values_survive_json_and_any_change_is_told():
    values = {"b": [1, 2.5, None], "a": {"x": "ü"}}
    written = json.dumps(with_checksum(values), indent=2)
    read = json.loads(written)
    check_values(read, "f.json")
    assert read == values
    for old, new in (("2.5", "2.6"), ("null", "true"), ('"x"', '"y"')):
        with pytest.raises(ValueError, match="f.json.* is damaged"):
            check_values(json.loads(written.replace(old, new)), "f.json")
    with pytest.warns(UserWarning, match="f.json.* has no checksum"):
        check_values(dict(values), "f.json")


def test_arrays_are_bounded_and_never_pickles(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10**6), b=np.array("text"))
    found = read_arrays(path, 9 * 10**6)
    assert found["a"].shape == (10**6,) and found["b"] == "text"
    with pytest.raises(ValueError, match="a.npz.* more than 1000"):
        read_arrays(path, 1000)
    np.savez(path, a=np.array([{}], "object"))
    with pytest.raises(ValueError, match="a.npz"):
        read_arrays(path, 10**6)


def test_embeddings_without_checksums_load_with_a_sentence(tmp_path):
    """Those that an earlier version wrote."""
    write_about(tmp_path, "t5", 4, 8)
    write_shard(tmp_path, 0, ["a"], [np.ones((2, 4))], [np.ones(2, "bool")])
    path = tmp_path / "00000.index.npz"
    old = {k: v for k, v in read_arrays(path, 10**5).items() if k[0] in "hl"}
    np.savez(path, **old)
    with pytest.warns(UserWarning, match="tokens.npy' has no checksum"):
        shards = EmbeddingShards(tmp_path)
    assert shards.look_up(["a"])["text_embeddings"].sum() == 8


def test_a_damaged_embedding_is_told_when_it_is_read(tmp_path):
    write_about(tmp_path, "t5", 4, 8)
    rows, masks = [np.ones((2, 4))] * 2, [np.ones(2, "bool")] * 2
    write_shard(tmp_path, 0, ["a", "b"], rows, masks)
    path = tmp_path / "00000.tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    shards = EmbeddingShards(tmp_path)
    assert shards.look_up(["a"])["text_embeddings"].sum() == 8
    with pytest.raises(ValueError, match="tokens.npy' is damaged: .* 'b'"):
        shards.look_up(["a", "b"])
    assert zlib.crc32(rows[0].astype("float16")) != zlib.crc32(data[-16:])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb", "a\\x0ab"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u061cgnp.exe", "\\u061cgnp.exe"),
        ("caf\udce9", "caf\\xe9"),
        ("日本 é 👍", "日本 é 👍"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_escapes(text, shown):
    assert printable(text) == shown


def test_texts_are_cut_by_their_bytes():
    assert cut("日本語" * 40, 100) == "日本語" * 11
    assert cut("abc", 100) == "abc"


def test_texts_are_bounded(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 11)
    assert len(read_text(tmp_path / "a.txt", 11)) == 11
    with pytest.raises(ValueError, match="a.txt' has 11 bytes, more than the 10"):
        read_text(tmp_path / "a.txt", 10)


@pytest.mark.parametrize("title", ["x" * 200_000, "\x1b[2J" * 9, "日" * 3000])
def test_a_title_does_not_make_a_grid_of_any_size(title):
    grid = pyramid_grid({8: np.zeros((2, 8, 8, 1), "uint8")}, [title, "short"])
    assert grid.width < 1000 and grid.height < 1000
