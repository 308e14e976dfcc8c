"""Tables of captions, `metadata.csv`, `.tsv` and `.jsonl`, as programs write them.

Excel writes semicolons in much of Europe, UTF-16 as "Unicode text", and a line `sep=;`
before the header.
"""

import csv
import io

from keras_mdm.text_files import parse_json, printable, read_text, split_lines

FILE_NAME = "file_name"
COLUMNS = ("text", "caption", "captions")
_KNOWN = (FILE_NAME, *COLUMNS)
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


def read_table(path):
    """Reads a table.

    Args:
        path: Path with the ending `.csv`, `.tsv` or `.jsonl`.

    Returns:
        List of pairs: the number of the line at which a row begins, and the row as a
        dict.

    Raises:
        ValueError: If the table is damaged. The message names file and line.
    """
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        return _read_json_lines(path, text)
    return _read_columns(path, text)


def _read_json_lines(path, text):
    rows = []
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
        rows.append((number, row))
    return rows


def _read_columns(path, text):
    delimiter = _find_delimiter(path, text)
    names, rows = None, []
    for number, fields in _read_fields(path, text, delimiter):
        if not any(field.strip() for field in fields):
            continue
        if names is None:
            if not _is_excel_line(fields[0]):
                names = _read_header(path, fields)
            continue
        rest = fields[len(names) :]
        if len(fields) < len(names) or any(field.strip() for field in rest):
            raise ValueError(
                f"'{printable(path)}', line {number}: {len(fields)} fields, and the "
                f"header has {len(names)}. A text with a {_DELIMITERS[delimiter]} in "
                "it must stand in double quotes. Received: {fields}"
            )
        rows.append((number, dict(zip(names, fields, strict=False))))
    return rows


def _read_fields(path, text, delimiter):
    """Yields the line at which each row begins, and its fields."""
    # Strict: else what stands after a quote that is not doubled goes astray.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"'{printable(path)}' is damaged in the row that begins in line "
                f"{start}: {error}. Close each quote, and double those inside a text."
            ) from error
        yield start, fields


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
