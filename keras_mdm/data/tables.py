"""Tables of captions: csv as spreadsheets write it, and lines of JSON."""

import csv
import io
import json

from keras_mdm.files import decode, lines_of

_DELIMITERS = ",;\t"


def read_rows(table):
    """Reads a table, whatever system wrote it.

    csv may be separated by commas, semicolons or tabs, and may begin with a byte order
    mark. Blank lines are left out.

    Args:
        table: Path of a `.csv` or `.jsonl` file.

    Returns:
        List of pairs of a line number and a dict of column to value.

    Raises:
        ValueError: If the table is damaged; it names the line.
    """
    try:
        text = decode(table.read_bytes())
        rows = _csv_rows(text) if table.suffix == ".csv" else _json_rows(text)
        return list(rows)
    except ValueError as error:
        raise ValueError(f"{table} is damaged: {error}") from error


def _csv_rows(text):
    header = next((line for line in lines_of(text) if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    # Every line ends alike then, and no other character ends one.
    lines = io.StringIO("\n".join(lines_of(text)), newline="\n")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    columns = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"line {number}: {error}. A text with quotation marks or {delimiter!r} "
                'stands in quotation marks, those within it twice: "a ""big"" cat"'
            ) from error
        if not any(field.strip() for field in fields):
            continue
        if columns is None:
            columns = [field.strip() for field in fields]
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise ValueError(f"line {number}: the columns {twice} are there twice")
            continue
        while len(fields) > len(columns) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(columns):
            raise ValueError(
                f"line {number} has {len(fields)} fields, not the {len(columns)} of "
                f"{columns}: {delimiter.join(fields)[:100]!r}. A text with "
                f"{delimiter!r} in it must stand in quotation marks"
            )
        yield number, dict(zip(columns, fields, strict=True))


def _json_rows(text):
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} must be an object, not {line[:100]!r}")
        yield number, row
