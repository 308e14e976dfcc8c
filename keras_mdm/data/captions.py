"""Captions of a folder of files: a text file beside each, or tables.

The tables are those of Hugging Face's imagefolder and videofolder: `metadata.csv`,
`.tsv` or `.jsonl` with the columns `file_name` (relative to the table) and `text`.
The columns `split` and `class` say which of them a row is of. A row that can't be used
is skipped.
"""

import dataclasses
import os
import posixpath
import unicodedata

from keras_mdm.data.caption_tables import CLASS, FILE_NAME, SPLIT, TEXTS, read_rows
from keras_mdm.data.file_walk import name_some
from keras_mdm.data.source import read_captions
from keras_mdm.text_files import MAX_TEXT, printable, read_text

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
# What others call the three splits.
_SPLITS = {
    name: split
    for split, names in {
        "train": "train training",
        "validation": "validation valid val dev",
        "test": "test testing eval",
    }.items()
    for name in names.split()
}
_SHOWN = 5  # Rows whose reasons an error lists.


@dataclasses.dataclass
class Captions:
    """What is written about the files of a folder."""

    # Path to a tuple of captions, of the files that have some; or `None`, and why.
    texts: object = None
    why: str = ""
    # Path to str, of the files whose row says it.
    splits: dict = dataclasses.field(default_factory=dict)
    classes: dict = dataclasses.field(default_factory=dict)
    # Pairs of a row that can't be used, and why.
    flaws: list = dataclasses.field(default_factory=list)
    # Sentences about rows that are not used.
    notes: list = dataclasses.field(default_factory=list)


def find_captions(root, files, others, limits):
    """The `Captions` of pictures or videos: `files`, with `others` beside them."""
    tables = [file for file in others if file.name.lower() in TABLES]
    if tables:
        return _read_tables(root, files, tables, limits)
    texts = TextFiles(root, others, limits.caption_length)
    if any(file in texts for file in files):
        return Captions(texts)
    why = "no file has a .txt file beside it, and there is no " + " or ".join(TABLES)
    return Captions(why=why)


class TextFiles:
    """Captions in files named as the pictures or videos, with the ending `.txt`."""

    def __init__(self, root, files, max_length):
        self._root = root
        self._max_length = max_length
        texts = [file for file in files if file.suffix.lower() == ".txt"]
        self._files = _Names({file.with_suffix(".txt"): file for file in texts})

    def _find(self, file):
        return self._files.find(file.with_suffix(".txt").as_posix())

    def __contains__(self, file):
        return self._find(file) is not None

    def path(self, file):
        """Where the caption of a file is."""
        return self._root / self._find(file)

    def __getitem__(self, file):
        path = self.path(file)
        try:
            return read_captions(read_text(path, MAX_TEXT), self._max_length)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"its caption {path.name} is unreadable: {error}"
            ) from error


class _Names:
    """Finds files by names that other systems wrote; `files` by their paths."""

    def __init__(self, files):
        self._files = {path.as_posix(): file for path, file in files.items()}
        # Macs write an accent after its letter, most others the letter with it.
        self._composed = {_compose(name): file for name, file in self._files.items()}

    def find(self, name):
        """The file of a name, or `None`."""
        # A backslash is part of a name where one is there, else it parts folders.
        for spelling in (name, name.strip(), name.strip().replace("\\", "/")):
            spelling = posixpath.normpath(spelling)
            file = self._files.get(spelling) or self._composed.get(_compose(spelling))
            if file is not None:
                return file
        return None


def _compose(name):
    return unicodedata.normalize("NFC", name)


def _read_tables(root, files, tables, limits):
    names = _Names({file: file for file in files})
    captions, columns, found, doubtful = {}, set(), Captions(), set()
    for table in tables:
        lost, wrong, lines = [], [], 0
        for row in read_rows(root / table, limits.table_bytes):
            lines += row.lines
            columns.update(row.values or ())
            if row.values is not None and not set(TEXTS) & set(row.values):
                continue
            try:
                name, texts = _read_row(row, limits.caption_length)
                if os.path.isabs(name):
                    file = names.find(os.path.relpath(name, root.absolute()))
                else:
                    folder = table.parent.as_posix()
                    file = names.find(posixpath.join(folder, name.lstrip()))
                if file is None:
                    lost.append(f"{name!r} (line {row.line})")
                    continue
                _read_kinds(row.values, file, found, doubtful)
                captions[file] = captions.get(file, ()) + texts
            except ValueError as error:
                wrong.append((row, str(error)))
        _check_share(root / table, wrong, lines, limits.unusable_rows)
        found.flaws += [(f"{root / table}, line {row.line}", why) for row, why in wrong]
        if lost:
            found.notes.append(
                f"{len(lost)} row(s) of {root / table} name no file that is read: "
                f"{name_some(lost)}."
            )
    if (found.notes or found.flaws) and not captions:
        told = found.notes + [f"{what}: {why}" for what, why in found.flaws[:_SHOWN]]
        raise ValueError(
            f"No row names a file that is there. {FILE_NAME!r} is relative to the "
            f"table. {printable(' '.join(told))}"
        )
    # What one row says of a file, another denies.
    for file in doubtful:
        captions.pop(file, None)
        found.splits.pop(file, None)
        found.classes.pop(file, None)
    found.texts = captions or None
    found.why = (
        f"{tables[0].name} has the columns {sorted(columns)}, and none of them is "
        + " or ".join(map(repr, TEXTS))
    )
    if not columns & set(TEXTS):
        found.notes.append(f"{found.why}: it is not used.")
    return found


def _check_share(table, wrong, lines, share):
    """Raises a `ValueError` if too many rows of a table can't be used."""
    count = sum(row.lines for row, _ in wrong)
    if count > share * lines:
        shown = "; ".join(f"line {row.line}: {why}" for row, why in wrong[:_SHOWN])
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{count} of {lines} rows of '{printable(table)}' can't be used, more than "
            f"the share `unusable_rows={share}`: {printable(shown)}{more}"
        )


def _read_row(row, max_length):
    """Name of the file and captions of a row that has captions."""
    if row.values is None:
        raise ValueError(row.why)
    name = row.values.get(FILE_NAME)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{FILE_NAME!r} must be the name of a file. Received: {str(name)[:80]!r}, "
            f"with the columns {sorted(row.values)}"
        )
    column = next(name for name in TEXTS if name in row.values)
    try:
        return name, read_captions(row.values[column], max_length)
    except ValueError as error:
        raise ValueError(f"{column!r}: {error}") from error


def _read_kinds(values, file, found, doubtful):
    """Notes the split and the class of a row that says them."""
    for column, kinds in ((SPLIT, found.splits), (CLASS, found.classes)):
        given = values.get(column)
        if given is None or given == "":
            continue
        kind = str(given).strip()
        if column == SPLIT:
            kind = _SPLITS.get(kind.lower())
            if kind is None:
                raise ValueError(
                    f"{SPLIT!r} must be 'train', 'validation' or 'test'. "
                    f"Received: {str(given)[:80]!r}"
                )
        if kinds.setdefault(file, kind) != kind:
            doubtful.add(file)
            raise ValueError(
                f"{column!r} must be the same in all rows of a file, which is left "
                f"out. Received: {str(given)[:80]!r} after {kinds[file]!r}"
            )
