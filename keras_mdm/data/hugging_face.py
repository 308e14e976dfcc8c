"""Data sets of Hugging Face as a source, read with their library `datasets`.

    hf:NAME                          of the hub, such as hf:cifar10 or hf:owner/name
    hf:PATH                          a folder of parquet files, or of pictures
    hf:NAME?config=CONFIG&stream=1   with options

Options stand behind a `?`, divided by `&`:

- `config`: the configuration, where a set has several.
- `split`: the split, in place of the argument `split`.
- `image`, `label`, `caption`: names of columns. Without them, the picture is the column
  of the type `Image`, the label that of the type `ClassLabel`, and the caption that of
  strings or lists of strings (of a list, a batch has one at random). Of several columns
  of a type, one named `image`, `label`, `caption`, `captions` or `text` is meant; where
  that leaves a doubt, the set is refused. `caption=` and `label=` mean none.
- `stream=1`: rows are read over the network as they are needed, for sets that do not
  fit the disk. They are shuffled within a buffer of 1,000, and a resumed run reads over
  those it has seen. Pass `num_workers`, since each process decodes in one thread. In a
  sharded run, passes of the processes may differ in length: pass `repeat=True`.
- `length`: the rows of a stream, where neither the set nor its parquet files tell it.

Columns of numbers are micro-conditioning, as in tar shards.
"""

import hashlib
import io
import itertools
import pathlib

import datasets
import fsspec
import pyarrow.parquet
from datasets.distributed import split_dataset_by_node

from keras_mdm.data.descriptions import check_card, is_own
from keras_mdm.data.file_walk import list_files
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.packed import check_format, check_packed
from keras_mdm.data.pictures import picture_extensions, read_picture
from keras_mdm.data.source import (
    Source,
    caption_items,
    digests,
    fingerprints,
    micro_conditioning_of,
    read_captions,
)
from keras_mdm.paths import as_path
from keras_mdm.text_files import printable, reason, values_in

_USUAL_NAMES = {
    "image": ("image",),
    "label": ("label",),
    "caption": ("caption", "captions", "text"),
}
_OPTIONS = ("config", "split", *_USUAL_NAMES, "stream", "length")
_SHUFFLE_BUFFER = 1000


class HuggingFace(Source):
    """A split of a data set of Hugging Face; the module says how it is named.

    Args:
        path: String. Name or folder, with options.
        split: String. The split; unless it streams, such as `"train[:10%]"` too.
        limits: `Limits`.

    Raises:
        ValueError: If an option, configuration, split or column is wrong or in doubt.
        FileNotFoundError: If there is no such folder or set.
        OSError: If the hub can't be reached.
    """

    def __init__(self, path, split="train", limits=LIMITS):
        self._limits = limits
        name, options = _read_name(path)
        if options.get("split", split) != split != "train":
            raise ValueError(
                f"'hf:{path}' names another split than the argument `split`. "
                f"Received: split={split!r}"
            )
        self._split = split = options.get("split", split)
        self._folder = as_path(name) if as_path(name).is_dir() else None
        if self._folder is not None:
            check_card(self._folder)
        streams = options.get("stream", "0") == "1"
        config = options.get("config")
        builder, rows = _load(name, self._folder, config, split, streams)
        features = rows.features or {}
        self._image, self._label, self._caption = (
            _find_column(path, features, kind, options.get(kind))
            for kind in _USUAL_NAMES
        )
        if self._image is None:
            raise ValueError(
                f"'hf:{path}' has no pictures. Its columns are: {_list(features)}."
            )
        self._micro = _columns(features, "number")
        used = {self._image, self._label, self._caption, *self._micro} - {None}
        # Pictures stay bytes: `read_picture` alone decodes them, once.
        self._rows = rows.select_columns(sorted(used)).cast_column(
            self._image, datasets.Image(decode=False)
        )
        if streams:
            self._length = _count_rows(path, builder, split, options.get("length"))
            self.stream = self._stream
        else:
            self._length = len(rows)
        if not self._length:
            raise ValueError(f"The split {split!r} of 'hf:{path}' is empty.")
        texts = _columns(features, "caption")
        super().__init__(
            f"hf:{path}",
            class_names=features[self._label].names if self._label else None,
            has_captions=self._caption is not None,
            no_captions=f"no column is chosen from those with texts, {texts}",
        )
        self._cursor = None

    def __len__(self):
        return self._length

    def contents(self):
        if self._folder is None:
            return super().contents()
        found = list_files(self._folder, picture_extensions(), follow=False)
        files = sorted(found.files + found.others)
        sums = fingerprints([self._folder / file for file in files])
        names = [printable(file.as_posix()) for file in files]
        groups = [name.rpartition("/")[0] or "." for name in names]
        items = zip(groups, zip(names, sums, strict=True), strict=True)
        return {**super().contents(), "files": digests(items)}

    def describe(self, index):
        if isinstance(index, dict):
            picture = index[self._image] or {}
            digest = hashlib.sha256(picture.get("bytes") or b"").hexdigest()[:12]
            index = picture.get("path") or f"picture with the SHA-256 {digest}..."
        return printable(f"{self.name}/{self._split}[{index}]")

    def _stream(self, seed, epoch, shard):
        rows = self._rows
        if seed is not None:
            rows = rows.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER)
        if shard[1] > 1:
            rows = split_dataset_by_node(rows, *shard)
        rows.set_epoch(epoch)
        return iter(rows)

    def _row(self, index):
        """The row of an index; of a stream, cheap only for one after the other."""
        if self.stream is None:
            return self._rows[index]
        with self._lock:
            if self._cursor is None or self._cursor[0] > index:
                self._cursor = (0, self._stream(None, 0, (0, 1)))
            start, rows = self._cursor
            self._cursor = (index + 1, rows)
            row = next(itertools.islice(rows, index - start, None), None)
        if row is None:
            raise ValueError("is behind the last row")
        return row

    def _read(self, index):
        row = index if isinstance(index, dict) else self._row(index)
        item = {"image": self._read_picture(row[self._image], index)}
        if self._label is not None:
            item["label"] = row[self._label]
            if item["label"] is None or item["label"] < 0:
                raise ValueError("has no label")
        if self._caption is not None:
            texts = read_captions(row[self._caption], self._limits.caption_length)
            item |= caption_items(texts)
        micro = {key: row[key] for key in self._micro if row[key] is not None}
        if micro:
            item["micro_conditioning"] = micro_conditioning_of(micro)
        return item

    def _read_picture(self, picture, index):
        if picture is None or not (picture["bytes"] or picture["path"]):
            raise ValueError("has no picture")
        data, most = picture["bytes"], self._limits.picture_bytes
        if data is None:
            if not is_own(picture["path"], self._folder):
                raise ValueError("is outside of its data set")
            with fsspec.open(picture["path"], "rb") as file:
                data = file.read(most + 1)
            if len(data) > most:
                raise ValueError(f"has more than {most} bytes")
        what = self.describe(index)
        return read_picture(io.BytesIO(data), what, self._limits.picture_pixels)

    def __getstate__(self):
        # Each process reads a stream by itself.
        return {**super().__getstate__(), "_cursor": None}


class _Downloads(datasets.DownloadManager):
    """Fetches the files of a set, and looks at them before they are unpacked."""

    def __init__(self, builder):
        config = datasets.DownloadConfig(
            use_etag=False, token=builder.token, storage_options=builder.storage_options
        )
        super().__init__(
            builder.dataset_name,
            builder.config.data_dir,
            download_config=config,
            base_path=builder.base_path,
        )

    def download(self, url_or_urls):
        found = super().download(url_or_urls)
        paths = [value for value in values_in(found) if isinstance(value, str)]
        check_packed(map(pathlib.Path, paths), only_known=True)
        return found


def _read_name(path):
    """Name or folder, and the options behind it."""
    name, _, query = path.partition("?")
    if as_path(path).is_dir():
        name, query = path, ""
    if not name.strip():
        raise ValueError(
            "'hf:' must be followed by the name of a data set or a folder. "
            f"Received: 'hf:{path}'"
        )
    pairs = [pair.split("=", 1) for pair in query.split("&") if query]
    options = dict(pair for pair in pairs if len(pair) == 2)
    wrong = set(options) - set(_OPTIONS) or len(options) < len(pairs)
    if wrong or options.get("stream", "0") not in ("0", "1"):
        raise ValueError(
            "Options stand behind a '?' as KEY=VALUE, divided by '&', each once. They "
            f"are {', '.join(_OPTIONS)}, and `stream` is 0 or 1. Received: 'hf:{path}'"
        )
    folder = as_path(name)
    if folder.is_dir():
        return str(folder), options
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(
            f"No such folder: {printable(folder)} "
            f"(absolute: {printable(folder.absolute())})."
        )
    return name, options


def _load(name, folder, config, split, streams):
    """The builder of a set and the rows of a split; library errors say how to go on."""
    try:
        builder = datasets.load_dataset_builder(name, config)
        if folder is not None:
            check_format(builder, folder)
        if streams:
            return builder, builder.as_streaming_dataset(split=split)
        builder.download_and_prepare(dl_manager=_Downloads(builder))
        known = builder.info.splits.get(split)
        if known is not None and not known.num_examples:
            raise ValueError("the split is empty")
        return builder, builder.as_dataset(split=split)
    # Whatever damaged files make it raise, and what these made others raise.
    except Exception as error:
        kinds = (FileNotFoundError, OSError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), ValueError)
        raise kind(
            f"'hf:{name}' can't be opened with config={config!r}, split={split!r}: "
            f"{reason(error)} {reason(error.__cause__ or '')}".rstrip()
        ) from error


def _count_rows(path, builder, split, length):
    """Number of rows of a stream: named, or as the set or its parquet files tell."""
    if length is not None:
        if not length.isdecimal() or int(length) < 1:
            raise ValueError(
                f"`length` must be a positive integer. Received: 'hf:{path}'"
            )
        return int(length)
    known = (builder.info.splits or {}).get(split)
    if known is not None and known.num_examples:
        return known.num_examples
    files = (builder.config.data_files or {}).get(split, ())
    if not files or not all(file.endswith(".parquet") for file in files):
        raise ValueError(
            f"'hf:{path}' does not tell how many rows it has. Say so with "
            "`length=...` behind a '?', or '&' after other options."
        )
    count = 0
    for name in files:
        with fsspec.open(name, "rb") as file:
            count += pyarrow.parquet.ParquetFile(file).metadata.num_rows
    return count


def _find_column(path, features, kind, named):
    """Name of the column of pictures, labels or captions, or `None`."""
    found = _columns(features, kind)
    if named is not None:
        if named and named not in found:
            raise ValueError(
                f"{kind}={named!r} is no column of 'hf:{path}' that can be it. Columns "
                f"that can: {found}. All columns: {_list(features)}."
            )
        return named or None
    usual = [key for key in found if key in _USUAL_NAMES[kind]]
    if len(found) > 1 and len(usual) != 1:
        raise ValueError(
            f"'hf:{path}' has several columns that can be the {kind}: {found}. Name "
            f"one with `{kind}={printable(found[0])}` behind a '?', or '&' after other "
            "options" + ("." if kind == "image" else f"; `{kind}=` for none.")
        )
    return (usual if len(found) > 1 else [*found, None])[0]


def _columns(features, kind):
    """Names of the columns whose type fits to a kind."""
    return [key for key, feature in features.items() if _fits(feature, kind)]


def _fits(feature, kind):
    if kind == "image":
        return isinstance(feature, datasets.Image)
    if kind == "label":
        return isinstance(feature, datasets.ClassLabel)
    if kind == "caption" and isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    starts = {"caption": ("string", "large_string"), "number": ("int", "uint", "float")}
    is_value = isinstance(feature, datasets.Value)
    return is_value and feature.dtype.startswith(starts[kind])


def _list(features):
    return printable(", ".join(f"{key} ({kind})" for key, kind in features.items()))
