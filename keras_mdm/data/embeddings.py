"""Embeddings of captions on disk, found by the caption itself.

`tools/encode_captions.py` writes a folder of them and `make_dataset(embeddings=...)`
reads it. A folder has `embeddings.json` (what made them) and, for each shard,
`NUMBER.tokens.npy` (the tokens of all captions, one after the other, without padding)
and `NUMBER.index.npz` (hash and length of each caption), which is written last: a shard
that has it is whole.
"""

import hashlib
import json
import re
import zlib

import numpy as np

from keras_mdm.checksums import (
    check_values,
    read_arrays,
    tell_unchecked,
    with_checksum,
)
from keras_mdm.files import whole_file, write_text
from keras_mdm.paths import local_path, member
from keras_mdm.text_files import printable, read_json

_ABOUT = "embeddings.json"
_FORMAT = 1
_COUNTS = ("format", "size", "max_tokens")
_UNKNOWN = -1  # The checksum of what was written without one.


class EmbeddingShards:
    """Embeddings of captions, looked up by caption.

    They are mapped, not read, into memory; the index takes 24 bytes a caption.

    Args:
        folder: String or path of the folder.
        max_tokens: Int. Rows of a batch have this length; longer captions are cut.
            Defaults to what the encoder's limit was.

    Raises:
        FileNotFoundError: If there is no such folder, or no shard in it.
        ValueError: If a file in it is damaged, or of another shard.
    """

    def __init__(self, folder, max_tokens=None):
        self._folder = _local(folder)
        about = _read_about(self._folder)
        self.size = about["size"]
        self.encoder_name = about["encoder"]
        self.max_tokens = max_tokens or about["max_tokens"]
        index = []
        for number in written_shards(self._folder):
            hashes, lengths, sums = _read_shard(self._folder, number, about)
            if sums is None:
                tell_unchecked(_tokens_path(self._folder, number))
                sums = np.full_like(hashes, _UNKNOWN, "int64")
            starts = np.cumsum(lengths, dtype="int64") - lengths
            numbers = np.full_like(lengths, number)
            index.append((hashes, numbers, starts, lengths, sums))
        if not index:
            raise FileNotFoundError(f"{self._folder} has no finished shard.")
        columns = [np.concatenate(column) for column in zip(*index, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        self._hashes, *self._places = (column[order] for column in columns)
        self._tokens = {}

    def __len__(self):
        return len(self._hashes)

    def __contains__(self, text):
        return not text.strip() or self._find(text) is not None

    def _find(self, text):
        """Shard, start, length and checksum of a caption's tokens, or `None`."""
        wanted = _hash_text(text)
        row = int(np.searchsorted(self._hashes, wanted))
        if row == len(self._hashes) or self._hashes[row] != wanted:
            return None
        return tuple(int(column[row]) for column in self._places)

    def look_up(self, texts):
        """Returns features of `keras_mdm.TextEmbeddings` for captions.

        Args:
            texts: Sequence of strings. An empty one gets the null condition, a token
                of zeros.

        Returns:
            Dict of `text_embeddings` `(texts, max_tokens, size)`, float16, and
            `text_mask` `(texts, max_tokens)`.

        Raises:
            KeyError: If a caption is not there.
        """
        shape = (len(texts), self.max_tokens)
        embeddings = np.zeros((*shape, self.size), "float16")
        mask = np.zeros(shape, "bool")
        for row, text in enumerate(texts):
            if not text.strip():
                mask[row, 0] = True
                continue
            place = self._find(text)
            if place is None:
                raise KeyError(text)
            number, start, length, known = place
            path = _tokens_path(self._folder, number)
            if number not in self._tokens:
                self._tokens[number] = np.load(_member(path), mmap_mode="r")
            tokens = self._tokens[number][start : start + length]
            if known not in (_UNKNOWN, zlib.crc32(np.ascontiguousarray(tokens))):
                raise ValueError(
                    f"'{printable(path)}' is damaged: the embedding of {text[:80]!r} "
                    "is not what was written. Delete "
                    f"{_index_path(self._folder, number).name} and run "
                    "tools/encode_captions.py again."
                )
            length = min(length, self.max_tokens)
            embeddings[row, :length] = tokens[:length]
            mask[row, :length] = True
        return {"text_embeddings": embeddings, "text_mask": mask}

    def __getstate__(self):
        # Worker processes map the files themselves.
        return {**self.__dict__, "_tokens": {}}


def write_about(folder, encoder, size, max_tokens):
    """Writes what made the embeddings; a `ValueError` if those there are of another."""
    folder = _local(folder)
    about = {"format": _FORMAT, "encoder": encoder}
    about |= {"size": int(size), "max_tokens": int(max_tokens)}
    if not (folder / _ABOUT).is_file():
        write_text(folder / _ABOUT, json.dumps(with_checksum(about)))
    elif (found := _read_about(folder)) != about:
        raise ValueError(
            f"'{folder}' has embeddings of another kind: {found}. Received: {about}"
        )


def write_shard(folder, number, texts, embeddings, masks):
    """Writes the embeddings of some captions as one shard.

    Args:
        folder: Path of the folder.
        number: Int. Number of the shard.
        texts: List of strings.
        embeddings: List of float arrays `(tokens, size)`, one for each text.
        masks: List of bool arrays `(tokens,)`: tokens that are no padding.
    """
    folder = _local(folder)
    kept = [
        np.asarray(rows)[np.asarray(mask, "bool")].astype("float16")
        for rows, mask in zip(embeddings, masks, strict=True)
    ]
    tokens = np.concatenate(kept) if kept else np.zeros((0, 1), "float16")
    if not np.isfinite(tokens).all():
        raise ValueError("the encoder's embeddings are not finite in float16.")
    with whole_file(_tokens_path(folder, number)) as temporary:
        np.save(temporary, tokens)
    about = json.dumps(_read_about(folder), sort_keys=True)
    with whole_file(_index_path(folder, number)) as temporary:
        np.savez(
            temporary,
            hashes=np.array([_hash_text(text) for text in texts], "uint64"),
            lengths=np.array([len(rows) for rows in kept], "int32"),
            sums=np.array([zlib.crc32(rows) for rows in kept], "uint32"),
            about=np.array(about),
        )


def written_shards(folder):
    """Sorted numbers of the shards that are whole."""
    names = (path.name for path in _local(folder).glob("*.index.npz"))
    found = (re.fullmatch(r"(\d{5,})\.index\.npz", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def _local(folder):
    return local_path(folder, "The folder of embeddings")


def _tokens_path(folder, number):
    return folder / f"{number:05}.tokens.npy"


def _index_path(folder, number):
    return folder / f"{number:05}.index.npz"


def _member(path):
    return member(path.parent, path.name)


def _hash_text(text):
    """Number of 64 bits that stands for a caption; blanks around it do not count."""
    digest = hashlib.sha256(text.strip().encode("utf-8", "replace")).digest()
    return np.frombuffer(digest[:8], "<u8")[0]


def _read_about(folder):
    """What `write_about` wrote, as a dict."""
    path = folder / _ABOUT
    if not path.is_file():
        raise FileNotFoundError(
            f"'{printable(folder)}' has no embeddings (no {_ABOUT}). "
            "`tools/encode_captions.py` makes them."
        )
    about = read_json(_member(path))
    check_values(about, path)
    counts = [about.get(key) for key in _COUNTS]
    positive = all(type(count) is int and 0 < count < 2**20 for count in counts)
    if not positive or not isinstance(about.get("encoder"), str):
        raise ValueError(
            f"'{printable(path)}' is damaged: it must have {' and '.join(_COUNTS)}, "
            f"integers from 1 to 2^20, and the name of the encoder. Received: {about}"
        )
    if about["format"] != _FORMAT:
        raise ValueError(
            f"'{printable(path)}' has the format {about['format']}, which another "
            f"version of keras_mdm wrote. This one reads {_FORMAT}."
        )
    return about


def _read_shard(folder, number, about):
    """Hashes, lengths and checksums of the captions of a shard, if its tokens fit."""
    path, known = _index_path(folder, number), json.dumps(about, sort_keys=True)
    try:
        tokens = np.load(_member(_tokens_path(folder, number)), mmap_mode="r")
        # 16 bytes for a caption, which has a token at least.
        index = read_arrays(_member(path), 16 * len(tokens) + 2**20)
        hashes, lengths, sums = index["hashes"], index["lengths"], index.get("sums")
        fits = (
            hashes.dtype == np.uint64
            and lengths.dtype == np.int32
            and hashes.shape == lengths.shape == (len(hashes),)
            and (sums is None or (sums.dtype, sums.shape) == (np.uint32, hashes.shape))
            and (lengths >= 0).all()
            and len(tokens) == lengths.sum(dtype="int64")
            and (not len(tokens) or tokens.shape[1:] == (about["size"],))
        )
        if fits and sums is not None and len(sums):
            fits = zlib.crc32(np.ascontiguousarray(tokens[: lengths[0]])) == sums[0]
        if not fits:
            raise ValueError("its index and its tokens do not fit together")
        if str(index.get("about", known)) != known:
            raise ValueError(f"it was made by {index['about']}, and not by {known}")
    # Whatever a damaged file makes numpy and zipfile raise.
    except Exception as error:
        raise ValueError(
            f"Shard {number} of the embeddings in '{printable(folder)}' is damaged: "
            f"{error}. Delete {path.name} and run tools/encode_captions.py again."
        ) from error
    return hashes, lengths, sums
