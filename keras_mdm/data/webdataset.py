"""WebDataset tar shards as a source: `open_source("webdataset:PATH")`.

img2dataset writes such shards: the members of a sample have one name and the endings
`.jpg`, `.txt` and `.json`. A tar file has no table of contents, so each shard is
scanned once; what was found is kept beside it, and samples are then read at random.
"""

import contextlib
import glob
import io
import json
import math
import os
import pathlib
import tarfile

import numpy as np

from keras_mdm.data.folders import SPLITS, belongs
from keras_mdm.data.pictures import read_picture
from keras_mdm.data.source import Source, UnusablePicture
from keras_mdm.files import as_path, decode, printable, whole_file

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_PACKED = (".tgz", ".tbz2", ".txz") + tuple(
    f".tar.{ending}" for ending in ("gz", "bz2", "xz", "zst", "lz4", "z", "zip")
)
# Of gzip, bzip2, xz, Zstandard and zip.
_PACKED_MARKS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\3\4")
_PARTS = ("picture", "text", "json")
_VERSION = 2


class WebDataset(Source):
    """Pictures and captions in tar shards.

    The caption is the member `.txt`, or `caption` in `.json`. The numbers of `.json`
    are the item's `numbers`, and `scale` is the shorter side of the original picture if
    `.json` has `original_width` and `original_height`, as img2dataset's has.

    Args:
        path: String or path: a folder of `.tar` files, a file, or a pattern of files.
        split: `"train"`, `"validation"`, `"test"` (90, 5 and 5 in a hundred, chosen by
            a hash of shard and sample name) or `"all"`.

    Raises:
        FileNotFoundError: If there is no shard.
        ValueError: If the split is unknown or empty.
    """

    def __init__(self, path, split="train"):
        if split not in SPLITS:
            raise ValueError(
                f"`split` of shards must be one of {SPLITS}. Received: split={split!r}"
            )
        self._shards = _find_shards(path)
        super().__init__(f"webdataset:{path}", channels=3, has_captions=True)
        tables = []
        for number, shard in enumerate(self._shards):
            keys, members, flaws = read_index(shard)
            for what, why in flaws:
                self.skip(what, why)
            kept = [belongs(f"{shard.name}/{key}", split) for key in keys.tolist()]
            numbers = np.full((sum(kept), 1), number, "int64")
            tables.append(np.concatenate([numbers, members[kept]], axis=1))
        # Shard, then offset and size of each part; 64 bytes a sample.
        self._members = np.concatenate(tables)
        if not len(self._members):
            raise ValueError(
                f"The split {split!r} of {path} is empty. Use split='all', or add "
                f"shards. {self.report()}"
            )

    def __len__(self):
        return len(self._members)

    def describe(self, index):
        shard = self._shards[self._members[index, 0]]
        return f"{printable(shard)}@{self._members[index, 1]}"

    def _read(self, index):
        number, *places = self._members[index].tolist()
        parts = {}
        with self._shards[number].open("rb") as file:
            for part, start, size in zip(
                _PARTS, places[::2], places[1::2], strict=True
            ):
                if start >= 0:
                    file.seek(start)
                    parts[part] = file.read(size)
        what = self.describe(index)
        try:
            about = json.loads(decode(parts.get("json", b"{}")))
            if not isinstance(about, dict):
                raise ValueError(f"its .json is no object: {str(about)[:100]!r}")
            caption = decode(parts["text"]) if "text" in parts else about["caption"]
        except (ValueError, KeyError, RecursionError) as error:
            raise UnusablePicture(
                what, f"its caption is unreadable: {error}"
            ) from error
        if not isinstance(caption, str):
            raise UnusablePicture(what, f"its caption is no string: {caption!r}")
        item = {
            "image": read_picture(io.BytesIO(parts["picture"]), what),
            "caption": caption.strip(),
        }
        numbers = {}
        for key, value in about.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                # Neither NaN nor whole numbers beyond any float.
                with contextlib.suppress(OverflowError):
                    if math.isfinite(value):
                        numbers[key] = float(value)
        if {"original_width", "original_height"} <= numbers.keys():
            sides = numbers["original_width"], numbers["original_height"]
            numbers["scale"] = min(sides)
        if numbers:
            item["numbers"] = numbers
        return item


def read_index(shard):
    """Where the members of the samples of a shard lie.

    Args:
        shard: Path of a tar file.

    Returns:
        A tuple: array of the names of the samples; int64 array
        `(samples, 6)` of offset and size of picture, text and json (-1 for none); and a
        list of pairs `(what, why)` of what can't be used.
    """
    cache = shard.with_name(f".{shard.name}.index.npz")
    status = shard.stat()
    stamp = np.array([_VERSION, status.st_size, status.st_mtime_ns])
    with contextlib.suppress(Exception):  # A damaged one is made anew.
        with np.load(cache) as found:
            if np.array_equal(found["stamp"], stamp):
                flaws = [tuple(flaw) for flaw in found["flaws"].tolist()]
                return found["keys"], found["members"], flaws
    keys, members, flaws = _scan(shard)
    # The folder may not be written: then the next run scans again.
    with contextlib.suppress(OSError), whole_file(cache) as temporary:
        np.savez(
            temporary,
            stamp=stamp,
            keys=keys,
            members=members,
            flaws=np.array(flaws, "str").reshape((-1, 2)),
        )
    return keys, members, flaws


def _scan(shard):
    samples, flaws, end = {}, [], 0
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as file:
            for member in file:
                key, ending = os.path.splitext(member.name)
                part = {".txt": "text", ".json": "json"}.get(ending.lower())
                part = "picture" if ending.lower() in _PICTURES else part
                if member.isfile() and part is not None:
                    places = samples.setdefault(key, {})
                    places[part] = (member.offset_data, member.size)
                end = member.offset_data + (member.size if member.isfile() else 0)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        flaws.append((printable(shard), f"damaged tar file: {error}"))
    lost = _data_after(shard, end)
    if lost is not None:
        flaws.append(
            (
                f"{printable(shard)}@{lost}",
                f"no sound tar header: the remaining {size - lost} of {size} bytes of "
                "the shard are lost",
            )
        )
    keys, rows = [], []
    for key, places in samples.items():
        if "picture" not in places:
            flaws.append((printable(f"{shard}/{key}"), "has no picture"))
        elif len(places) == 1:
            flaws.append((printable(f"{shard}/{key}"), "has no caption"))
        elif any(sum(place) > size for place in places.values()):
            what = printable(f"{shard}/{key}")
            flaws.append((what, "cut off at the end of the shard"))
        else:
            keys.append(key)
            rows.append([n for part in _PARTS for n in places.get(part, (-1, -1))])
    members = np.array(rows, "int64").reshape((-1, 2 * len(_PARTS)))
    return np.array(keys, "str"), members, flaws


def _data_after(shard, end):
    """Where something else than zeros begins behind the last member, or `None`.

    `tarfile` takes a damaged header for the end of the archive.
    """
    start = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    with shard.open("rb") as file:
        file.seek(start)
        while chunk := file.read(1 << 20):
            rest = chunk.lstrip(b"\0")
            if rest:
                return file.tell() - len(rest)
    return None


def _find_shards(path):
    path = as_path(path)
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        others = [file for file in path.iterdir() if _is_packed(file)]
    else:
        shards = [pathlib.Path(name) for name in sorted(glob.glob(str(path)))]
        others = []
    packed = sorted(file for file in {*shards, *others} if _is_packed(file))
    if packed:
        raise ValueError(
            f"{printable(packed[0])} is compressed, and shards are read at random: "
            f"unpack it first, such as by `gunzip` ({len(packed)} files are so)."
        )
    if not shards:
        raise FileNotFoundError(
            f"No .tar file in {path} (absolute: {path.absolute()}). Give a folder of "
            "shards, a file, or a pattern such as 'cc12m/*.tar'."
        )
    return shards


def _is_packed(file):
    """Whether a file is a compressed archive, by its name or its first bytes."""
    name = file.name.lower()
    if name.startswith(".") or not file.is_file():
        return False
    if name.endswith(_PACKED):
        return True
    if not name.endswith(".tar"):
        return False
    with file.open("rb") as opened:
        return opened.read(6).startswith(_PACKED_MARKS)
