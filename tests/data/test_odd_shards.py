"""Tar shards that are damaged, compressed, cut off or have odd members."""

import bz2
import gzip
import io
import json
import os
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import UnusablePicture, open_source
from keras_mdm.data.shards import index_path

pytestmark = pytest.mark.once

BLOCK = 512


def _png(number):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _write(path, members):
    """Writes a shard; returns the starts of the headers."""
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        file.close()
    with tarfile.open(path) as file:
        return {member.name: member.offset for member in file}


def _samples(count, first=0):
    members = []
    for i in range(first, first + count):
        members += [(f"{i:03}.png", _png(i)), (f"{i:03}.txt", b"number %d" % i)]
    return members


def _captions(source):
    return [source[index]["caption"] for index in range(len(source))]


def _open(path):
    return open_source(f"webdataset:{path}", "all")


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "00000.tar"
    return path, _write(path, _samples(10))


def _overwrite(path, start, data):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


@pytest.mark.parametrize("junk", [b"\xff" * BLOCK, b"x" * 200])
def test_bytes_after_a_damaged_header_are_reported(shard, junk):
    path, starts = shard
    start = starts["003.png"]
    _overwrite(path, start, junk)
    source = _open(path)
    assert _captions(source) == ["number 0", "number 1", "number 2"]
    size = path.stat().st_size
    words = f"the {size - start} bytes from byte {start} to the end are lost"
    assert words in source.report() and str(path) in source.report()
    assert source.skipped == _open(path).skipped
    assert len(source.skipped) == 1


def test_the_picture_is_whole_and_the_header_of_its_caption_is_damaged(shard):
    path, starts = shard
    _overwrite(path, starts["003.txt"], b"\xff" * BLOCK)
    source = _open(path)
    assert len(source) == 3
    assert f"from byte {starts['003.txt']} to the end" in source.report()
    assert "003 (has no caption)" in source.report()


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_samples_after_zeros_are_reported(shard, blocks):
    path, starts = shard
    data, start = path.read_bytes(), starts["004.png"]
    path.write_bytes(data[:start] + bytes(blocks * BLOCK) + data[start:])
    source = _open(path)
    assert len(source) == 4
    lost = len(data) - start
    begin = start + blocks * BLOCK
    assert f"the {lost} bytes from byte {begin} to the end are lost" in source.report()


def test_shards_one_after_the_other_in_a_file_are_reported(tmp_path):
    _write(tmp_path / "a", _samples(2))
    _write(tmp_path / "b", _samples(2, first=2))
    data = [(tmp_path / name).read_bytes() for name in "ab"]
    (tmp_path / "0.tar").write_bytes(b"".join(data))
    source = _open(tmp_path)
    assert len(source) == 2
    assert f"the {len(data[1])} bytes from byte {len(data[0])}" in source.report()


def test_a_damaged_first_header(shard):
    path, _ = shard
    _overwrite(path, 0, b"\xff" * BLOCK)
    size = path.stat().st_size
    with pytest.raises(ValueError, match=f"the {size} bytes from byte 0 to the end"):
        _open(path)


@pytest.mark.parametrize(
    "cut, kept, words",
    [
        (lambda starts: starts["005.png"], 5, "has no end mark"),
        (lambda starts: starts["005.png"] + 100, 5, "the 100 bytes from byte"),
        (lambda starts: starts["005.png"] + BLOCK + 40, 5, "cut off at byte"),
        (lambda starts: starts["005.txt"] + BLOCK + 4, 5, "cut off at byte"),
    ],
)
def test_truncated_shards(shard, cut, kept, words):
    path, starts = shard
    path.write_bytes(path.read_bytes()[: cut(starts)])
    source = _open(path)
    assert len(source) == kept
    assert words in source.report()


def test_whole_shards_are_not_said_to_be_damaged(shard):
    path, _ = shard
    assert _open(path).report().startswith("No picture of")
    _write(path, _samples(3))
    assert _open(path).report() == (
        f"No picture of 'webdataset:{path}' was skipped so far."
    )


def test_empty_shards(shard):
    path, _ = shard
    (path.parent / "1.tar").write_bytes(b"")
    (path.parent / "2.tar").write_bytes(bytes(10240))
    (path.parent / "3.tar").write_text("<html>404 Not Found</html>")
    source = _open(path.parent)
    assert len(source) == 10
    report = source.report()
    assert "1.tar (is empty: 0 bytes)" in report
    assert "2.tar (has no samples)" in report
    assert "3.tar (damaged tar file" in report and "the 26 bytes from byte 0" in report


@pytest.mark.parametrize(
    "ending, pack, tool",
    [
        ("tar.gz", gzip.compress, "gunzip"),
        ("tgz", gzip.compress, "gunzip"),
        ("tar.bz2", bz2.compress, "bunzip2"),
        ("tar", gzip.compress, "gunzip"),
        ("tar.zst", lambda data: b"\x28\xb5\x2f\xfd" + data[:100], "unzstd"),
        ("zip", lambda data: b"PK\x03\x04" + data[:100], "unzip"),
    ],
)
def test_compressed_shards_are_to_be_unpacked(shard, ending, pack, tool):
    path, _ = shard
    packed = path.parent / f"00001.{ending}"
    packed.write_bytes(pack(path.read_bytes()))
    for name in (packed, packed.parent / f"*1.{ending}"):
        with pytest.raises(ValueError, match=f"00001.{ending}'.*npack it.*{tool}"):
            _open(name)
    if ending != "tar":
        # Beside plain shards they are left out, which is told.
        source = _open(path.parent)
        assert len(source) == 10
        assert "1 compressed file(s)" in source.report()
        assert packed.name in source.report()
        path.unlink()
    with pytest.raises(ValueError, match="npack it"):
        _open(path.parent)


@pytest.mark.parametrize(
    "about",
    [b"[1, 2]", b'"text"', b"3", b"null", b"{", b"[" * 100_000, b"", b"\xff\xff"]
    + [b'{"caption": 3}', b'{"caption": []}', b'{"caption": ["a", null]}', b"{}"],
)
def test_odd_json_makes_a_sample_unusable(tmp_path, about):
    members = [("000.png", _png(0)), ("000.json", about), *_samples(1, first=1)]
    _write(tmp_path / "0.tar", members)
    source = _open(tmp_path)
    with pytest.raises(UnusablePicture, match="its caption is unreadable"):
        source[0]
    assert source[1]["caption"] == "number 1"
    assert len(source.skipped) == 1


def test_captions_and_numbers_of_json(tmp_path):
    about = {"caption": ["one", " two "], "width": 3, "odd": float("nan")}
    marked = "\ufeff" + json.dumps({"caption": "mark\u2028ed"})
    members = [
        ("0.png", _png(0)),
        ("0.json", json.dumps(about).encode()),
        ("1.png", _png(1)),
        ("1.json", marked.encode()),
        ("2.png", _png(2)),
        ("2.txt", "\ufeffé".encode()),
        ("3.png", _png(3)),
        ("3.txt", "wide".encode("utf-16")),
        ("4.png", _png(4)),
        ("4.txt", "é".encode("latin-1")),
        ("5.png", _png(5)),
        ("5.json", b'{"caption": "a", "n": 1' + b"0" * 400 + b"}"),
    ]
    _write(tmp_path / "0.tar", members)
    source = _open(tmp_path)
    assert source[0]["captions"] == ("one", "two")
    assert source[0]["caption"] == "one" and source[0]["micro_conditioning"] == {
        "width": 3
    }
    assert [source[i]["caption"] for i in (1, 2, 3)] == ["mark\u2028ed", "é", "wide"]
    for index in (4, 5):
        with pytest.raises(UnusablePicture):
            source[index]


def test_members_that_are_there_twice_or_of_other_kinds(tmp_path):
    members = [
        *_samples(2),
        ("000.txt", b"again"),
        ("001.jpg", _png(9)),
        ("000.heic", b"?"),
        ("001.cls", b"3"),
        ("._000.txt", b"resource fork"),
    ]
    _write(tmp_path / "0.tar", members)
    for _ in range(2):
        source = _open(tmp_path)
        assert _captions(source) == ["number 0", "number 1"]
        assert source[1]["image"][0, 0, 0] == 1
        report = source.report()
        assert "000.txt@" in report and "is a second text of its sample" in report
        assert "001.jpg@" in report and "is a second picture" in report
        assert "1 .heic, 1 .cls" in report


def test_names_that_are_not_text(tmp_path):
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    members = [(f"{odd}{i}.{e}", d) for i in range(9) for e, d in [("png", _png(i))]]
    members += [(f"{odd}{i}.txt", b"a") for i in range(8)]
    path = tmp_path / f"{odd}.tar"
    _write(path, members)
    for _ in range(2):
        source = _open(tmp_path)
        assert len(source) == 8
        assert "caf\\xe9.tar/caf\\xe98 (has no caption)" in source.report()
        source.describe(0).encode()
        assert source[0]["caption"] == "a"
    assert len(open_source(f"webdataset:{path}", "train")) <= 8


def _index(path):
    return index_path(path)


@pytest.mark.parametrize("size", [0, 10, 400, -30])
def test_a_cut_index_is_made_anew(shard, size):
    path, _ = shard
    _open(path)
    whole = _index(path).read_bytes()
    _index(path).write_bytes(whole[:size])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _captions(_open(path)) == [f"number {i}" for i in range(10)]
    assert len(_index(path).read_bytes()) == len(whole)


def _change(path, **changes):
    with np.load(_index(path)) as found:
        values = {**found, **changes}
    np.savez(_index(path), **{k: v for k, v in values.items() if v is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"members": np.full((10, 6), -1)},
        {"members": np.full((10, 6), 10**11)},
        {"members": np.full((10, 6), 2**62)},
        {"members": np.zeros((10, 6))},
        {"members": np.zeros((9, 6), "int64")},
        {"members": np.zeros(60, "int64")},
        {"members": None},
        {"keys": np.zeros(10)},
        {"flaws": np.zeros(3)},
        {"flaws": np.array([{}], "object")},
    ],
)
def test_an_index_that_does_not_fit_is_made_anew(shard, changes):
    path, _ = shard
    _open(path)
    _change(path, **changes)
    assert _captions(_open(path)) == [f"number {i}" for i in range(10)]


def test_the_index_of_another_shard_is_not_taken(shard):
    path, _ = shard
    other = path.with_name("00001.tar")
    _write(other, _samples(10, first=10)[::-1])
    assert other.stat().st_size == path.stat().st_size
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    _open(path)
    shutil.copy(_index(path), _index(other))
    expected = [f"number {i}" for i in range(19, 9, -1)]
    assert _captions(_open(other)) == expected


def test_a_file_with_brackets_in_its_name(shard, tmp_path):
    path, _ = shard
    odd = tmp_path / "a[1]" / "b[2].tar"
    odd.parent.mkdir()
    shutil.copy(path, odd)
    assert len(_open(odd)) == len(_open(odd.parent)) == 10


def test_tilde_and_folders_named_like_shards(shard, monkeypatch):
    path, _ = shard
    monkeypatch.setenv("HOME", str(path.parent))
    (path.parent / "folder.tar").mkdir()
    for name in ("~", "~/00000.tar", "~/*.tar"):
        source = _open(name)
        assert len(source) == 10
    assert "1 path(s) are no files: folder.tar" in source.report()
