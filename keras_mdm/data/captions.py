"""Captions of a folder of files: a text file beside each, or tables.

The tables are those of Hugging Face's imagefolder and videofolder: `metadata.csv`,
`.tsv` or `.jsonl` with the columns `file_name` (relative to the table) and `text`.
Excel writes semicolons in much of Europe, UTF-16 as "Unicode text", and a line `sep=;`
before the header. The columns `split` and `class` say which of them a row is of.
"""

import csv
import dataclasses
import io
import os
import posixpath
import unicodedata

from keras_mdm.data.file_walk import name_some
from keras_mdm.data.source import UnusablePicture, read_captions
from keras_mdm.text_files import MAX_TEXT, parse_json, printable, read_text, split_lines

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_FILE_NAME = "file_name"
_COLUMNS = ("text", "caption", "captions")
_SPLIT, _CLASS = "split", "class"
_KNOWN = (_FILE_NAME, *_COLUMNS, _SPLIT, _CLASS)
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
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclasses.dataclass
class Captions:
    """What is written about the files of a folder.

    Attributes:
        texts: Mapping from path to a tuple of captions (of the files that have some),
            or `None`.
        why: str. Why there are none.
        splits, classes: dicts from path to str, of the files whose row says it.
        notes: List of sentences about rows that are not used.
    """

    texts: object = None
    why: str = ""
    splits: dict = dataclasses.field(default_factory=dict)
    classes: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)


def find_captions(root, files, others):
    """The `Captions` of pictures or videos: `files`, with `others` beside them."""
    tables = [file for file in others if file.name.lower() in TABLES]
    if tables:
        return _read_tables(root, files, tables)
    texts = TextFiles(root, others)
    if any(file in texts for file in files):
        return Captions(texts)
    why = "no file has a .txt file beside it, and there is no " + " or ".join(TABLES)
    return Captions(why=why)


class TextFiles:
    """Captions in files named as the pictures or videos, with the ending `.txt`."""

    def __init__(self, root, files):
        self._root = root
        texts = [file for file in files if file.suffix.lower() == ".txt"]
        self._files = _Names({file.with_suffix(".txt"): file for file in texts})

    def _find(self, file):
        return self._files.find(file.with_suffix(".txt").as_posix())

    def __contains__(self, file):
        return self._find(file) is not None

    def size(self, file):
        """Bytes of the caption of a file."""
        return (self._root / self._find(file)).stat().st_size

    def __getitem__(self, file):
        path = self._root / self._find(file)
        try:
            return read_captions(read_text(path, MAX_TEXT))
        except (OSError, ValueError) as error:
            raise UnusablePicture(
                str(self._root / file),
                f"its caption {path.name} is unreadable: {error}",
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


def _read_tables(root, files, tables):
    names = _Names({file: file for file in files})
    captions, columns, found = {}, set(), Captions()
    for table in tables:
        lost = []
        for line, row in _read_rows(root / table):
            columns.update(row)
            if not set(_COLUMNS) & set(row):
                continue
            where = f"'{printable(root / table)}', line {line}"
            name, texts = _read_row(where, row)
            if os.path.isabs(name):
                file = names.find(os.path.relpath(name, root.absolute()))
            else:
                folder = table.parent.as_posix()
                file = names.find(posixpath.join(folder, name.lstrip()))
            if file is None:
                lost.append(f"{name!r} (line {line})")
            else:
                captions[file] = captions.get(file, ()) + texts
                _read_kinds(where, row, file, found)
        if lost:
            found.notes.append(
                f"{len(lost)} row(s) of {root / table} name no file that is read: "
                f"{name_some(lost)}."
            )
    if found.notes and not captions:
        raise ValueError(
            f"No row names a file that is there. {_FILE_NAME!r} is relative to the "
            f"table. {printable(' '.join(found.notes))}"
        )
    found.texts = captions or None
    found.why = (
        f"{tables[0].name} has the columns {sorted(columns)}, and none of them is "
        + " or ".join(map(repr, _COLUMNS))
    )
    return found


def _read_kinds(where, row, file, found):
    """Notes the split and the class of a row that says them."""
    for column, kinds in ((_SPLIT, found.splits), (_CLASS, found.classes)):
        given = row.get(column)
        if given is None or given == "":
            continue
        kind = str(given).strip()
        if column == _SPLIT:
            kind = _SPLITS.get(kind.lower())
            if kind is None:
                raise ValueError(
                    f"{where}: {_SPLIT!r} must be 'train', 'validation' or 'test'. "
                    f"Received: {given!r}"
                )
        if kinds.setdefault(file, kind) != kind:
            raise ValueError(
                f"{where}: {column!r} must be the same in all rows of a file. "
                f"Received: {given!r} after {kinds[file]!r}"
            )


def _read_row(where, row):
    """Name of the file and captions of a row that has captions."""
    name = row.get(_FILE_NAME)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{where}: {_FILE_NAME!r} must be the name of a file. "
            f"Received: {name!r}, with the columns {sorted(row)}"
        )
    column = next(name for name in _COLUMNS if name in row)
    try:
        return name, read_captions(row[column])
    except ValueError as error:
        raise ValueError(f"{where}: {column!r}: {error}") from error


def _read_rows(path):
    """Yields the rows of a table: the line at which each begins, and a dict.

    Raises:
        ValueError: If the table is damaged. The message names file and line.
    """
    text = read_text(path)
    read = _read_json_lines if path.suffix.lower() == ".jsonl" else _read_columns
    return read(path, text)


def _read_json_lines(path, text):
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row, why = None, ""
        try:
            row = parse_json(line, where)
        except ValueError as error:
            why = f"{error}. "
        if not isinstance(row, dict):
            raise ValueError(
                f"{why}Each line of a .jsonl file must be a JSON object, such as "
                '{"file_name": "a.png", "text": "a cat"}. '
                f"Received in '{printable(where)}': {printable(line[:80])}"
            )
        yield number, row


def _read_columns(path, text):
    delimiter = _find_delimiter(path, text)
    # Strict: else what stands after a quote that is not doubled goes astray.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    names, start = None, 1
    try:
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if names is None:
                if not _is_excel_line(fields[0]):
                    names = _read_header(path, fields)
                continue
            rest = fields[len(names) :]
            if len(fields) < len(names) or any(field.strip() for field in rest):
                raise ValueError(
                    f"'{printable(path)}', line {line}: {len(fields)} fields, and the "
                    f"header has {len(names)}. A text with a {_DELIMITERS[delimiter]} "
                    f"in it must stand in double quotes. Received: {fields}"
                )
            yield line, dict(zip(names, fields, strict=False))
    except csv.Error as error:
        raise ValueError(
            f"'{printable(path)}' is damaged in the row that begins in line "
            f"{start}: {error}. Close each quote, and double those inside a text."
        ) from error


def _read_header(path, fields):
    names = [field.strip() for field in fields]
    names = [name.lower() if name.lower() in _KNOWN else name for name in names]
    while names and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if name in _KNOWN and names.count(name) > 1})
    if twice:
        raise ValueError(
            f"'{printable(path)}' has the column {twice[0]!r} more than once. Columns "
            f"must have different names. Received: {names}"
        )
    return names


def _find_delimiter(path, text):
    """The delimiter by which the header has a known column, else that of the ending."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = [line for line in split_lines(text[:10_000]) if line.strip()]
    header = next((line for line in lines if not _is_excel_line(line)), "")
    for delimiter in (usual, *_DELIMITERS):
        names = {name.strip(' "').lower() for name in header.split(delimiter)}
        if len(names) > 1 and names & set(_KNOWN):
            return delimiter
    return usual


def _is_excel_line(text):
    """Whether it is the line `sep=;` before the header."""
    return text.lower().startswith("sep=")
