"""WebDataset tar shards as a source: `open_source("webdataset:PATH")`.

img2dataset writes such shards: the members of a sample have one name and the endings
`.jpg`, `.txt` and `.json`. A tar file has no table of contents, so each shard is
scanned once; what was found is kept in the user's cache folder, `keras_mdm/shards` of
`XDG_CACHE_HOME` (`~/.cache`), and samples are then read at random.
"""

import io

import numpy as np

from keras_mdm.data.folders import check_split, split_of
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.pictures import read_picture
from keras_mdm.data.shards import PARTS, find_shards, read_index
from keras_mdm.data.source import (
    Source,
    caption_items,
    digests,
    fingerprints,
    micro_conditioning_of,
    read_captions,
)
from keras_mdm.text_files import decode_text, parse_json, printable


class WebDataset(Source):
    """Pictures and captions in tar shards.

    The caption is the member `.txt`, or `caption` in `.json`, which may be a list of
    several. The numbers of `.json` are the item's `micro_conditioning`, and `scale` is
    the shorter side of the original picture if `.json` has `original_width` and
    `original_height`, as img2dataset's has.

    Args:
        path: String or path: a folder of `.tar` files, a file, or a pattern of files.
        split: `"train"`, `"validation"`, `"test"` (90, 5 and 5 in a hundred, chosen by
            a hash of shard and sample name) or `"all"`.
        limits: `Limits`.

    Raises:
        FileNotFoundError: If there is no shard.
        ValueError: If the split is unknown or empty.
    """

    def __init__(self, path, split="train", limits=LIMITS):
        check_split("shards", split)
        self._limits = limits
        self._shards, notes = find_shards(path)
        super().__init__(f"webdataset:{path}", has_captions=True)
        self.note(*notes)
        tables = []
        for number, shard in enumerate(self._shards):
            keys, members, flaws, ignored = read_index(shard, limits)
            for what, why in flaws:
                self.skip(what, why)
            if ignored:
                self.note(f"Members of other kinds in {shard}, not read: {ignored}.")
            names = (f"{shard.name}/{key}" for key in keys)
            kept = [split in ("all", split_of(name)) for name in names]
            numbers = np.full((sum(kept), 1), number, "int64")
            tables.append(np.concatenate([numbers, members[kept]], axis=1))
        # Shard, then offset and size of each part; 64 bytes a sample.
        self._members = np.concatenate(tables)
        if not len(self._members):
            raise ValueError(
                f"The split {split!r} of {printable(path)} is empty. Use split='all', "
                f"or add shards. {self.report()}"
            )

    def __len__(self):
        return len(self._members)

    def contents(self):
        names = [shard.name for shard in self._shards]
        members = (
            (names[number], places) for number, *places in self._members.tolist()
        )
        shards = zip(names, fingerprints(self._shards), strict=True)
        return {**super().contents(), "shards": digests([*shards, *members])}

    def describe(self, index):
        shard = self._shards[self._members[index, 0]]
        return printable(f"{shard}@{self._members[index, 1]}")

    def _read(self, index):
        number, *places = self._members[index].tolist()
        parts = {}
        with self._shards[number].open("rb") as file:
            for part, start, size in zip(PARTS, places[::2], places[1::2], strict=True):
                if start >= 0:
                    file.seek(start)
                    parts[part] = file.read(size)
        try:
            texts, micro = _read_texts(parts, self._limits.caption_length)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"its caption is unreadable: {error}") from error
        picture, most = io.BytesIO(parts["picture"]), self._limits.picture_pixels
        item = {"image": read_picture(picture, self.describe(index), most)}
        if micro:
            item["micro_conditioning"] = micro
        return item | caption_items(texts)


def _read_texts(parts, max_length):
    """Captions and numbers of a sample."""
    about = {}
    if "json" in parts:
        about = parse_json(decode_text(parts["json"], "its .json"), "its .json")
    if "text" in parts:
        caption = decode_text(parts["text"], "its .txt")
    elif "caption" in about:
        caption = about["caption"]
    else:
        raise ValueError("its .json has no 'caption'")
    return read_captions(caption, max_length), micro_conditioning_of(about)
