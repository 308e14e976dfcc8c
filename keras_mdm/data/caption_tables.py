"""The rows of tables of captions: `metadata.csv`, `.tsv` and `.jsonl`.

Excel writes semicolons in much of Europe, UTF-16 as "Unicode text", and a line `sep=;`
before the header. A row that is damaged is told with its reason, and the others are
read; a file that is no text, or whose header is damaged, is refused.
"""

import csv
import dataclasses
import io

from keras_mdm.text_files import MAX_TEXT, parse_json, printable, read_text, split_lines

FILE_NAME = "file_name"
TEXTS = ("text", "caption", "captions")
SPLIT, CLASS = "split", "class"
_KNOWN = (FILE_NAME, *TEXTS, SPLIT, CLASS)
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclasses.dataclass
class Row:
    """A row of a table."""

    line: int  # at which it begins, from 1
    values: dict | None  # column to value; `None` if the row is damaged
    why: str = ""  # what is wrong with it then
    lines: int = 1  # that were lost with it


def read_rows(path, max_bytes):
    """Yields the `Row`s of a table of at most `max_bytes`.

    A file that is no table is a `ValueError`, which names file and line.
    """
    text = read_text(path, max_bytes)
    if any(len(line) > MAX_TEXT for line in io.StringIO(text, newline=None)):
        raise ValueError(
            f"'{printable(path)}' has a line of more than {MAX_TEXT} characters."
        )
    read = _read_json_lines if path.suffix.lower() == ".jsonl" else _read_columns
    return read(path, text)


def _read_json_lines(path, text):
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = Row(number, parse_json(line, f"line {number}"))
        except ValueError as error:
            why = (
                f"{error} Each line of a .jsonl file must be a JSON object, such as "
                '{"file_name": "a.png", "text": "a cat"}. '
                f"Received: {printable(line[:80])}"
            )
            row = Row(number, None, why)
        yield row


def _read_columns(path, text):
    delimiter = _find_delimiter(path, text)
    # Strict: else what stands after a quote that is not doubled goes astray.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    names = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            why = (
                f"the row that begins in line {line} is damaged: {error}. Close each "
                "quote, and double those inside a text."
            )
            if names is None:
                raise ValueError(f"'{printable(path)}': {why}") from error
            # The reader goes on with the next line.
            yield Row(line, None, why, reader.line_num + 1 - line)
            continue
        if fields is None:
            return
        if not any(field.strip() for field in fields):
            continue
        if names is None:
            if not _is_excel_line(fields[0]):
                names = _read_header(path, fields)
            continue
        rest = fields[len(names) :]
        if len(fields) < len(names) or any(field.strip() for field in rest):
            why = (
                f"{len(fields)} fields, and the header has {len(names)}. A text with "
                f"a {_DELIMITERS[delimiter]} in it must stand in double quotes. "
                f"Received: {fields}"
            )
            yield Row(line, None, why)
        else:
            yield Row(line, dict(zip(names, fields, strict=False)))


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
