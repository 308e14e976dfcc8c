"""Captions of a folder of files: a text file beside each, or one table for all.

Folders of pictures and of videos ask for them. The table is that of Hugging Face's
imagefolder and videofolder: `metadata.csv` or `metadata.jsonl` with the columns
`file_name` (relative to the table) and `text`.
"""

import csv
import json
import pathlib

from keras_mdm.data.source import UnusablePicture

TABLES = ("metadata.csv", "metadata.jsonl")
_COLUMNS = ("text", "caption")


class TextFiles:
    """Captions in files named as the pictures or videos, with the ending `.txt`.

    Args:
        root: Path of the folder.
    """

    def __init__(self, root):
        self._root = root

    def __contains__(self, file):
        return (self._root / file).with_suffix(".txt").is_file()

    def __getitem__(self, file):
        path = (self._root / file).with_suffix(".txt")
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusablePicture(
                str(self._root / file),
                f"its caption {path.name} is unreadable: {error}",
            ) from error


def find_captions(root, files):
    """Finds the captions of pictures or videos.

    Args:
        root: Path of the folder.
        files: List of their paths, relative to `root`.

    Returns:
        A pair: a mapping from path to caption (of the files that have one), or
        `None`; and a str that says why there is none.

    Raises:
        ValueError: If a table is damaged.
    """
    tables = sorted({*root.glob("metadata.*"), *root.glob("*/metadata.*")})
    tables = [table for table in tables if table.name in TABLES]
    if tables:
        captions, columns = {}, set()
        for table in tables:
            rows = _read_table(table)
            columns.update(*rows)
            folder = table.parent.relative_to(root)
            captions.update(_captions_of(rows, folder, table))
        why = (
            f"{tables[0].name} has the columns {sorted(columns)}, and none of them is "
        )
        return captions or None, why + " or ".join(map(repr, _COLUMNS))
    texts = TextFiles(root)
    if any(file in texts for file in files[:1000]):
        return texts, ""
    return None, "no file has a .txt file beside it, and there is no " + " or ".join(
        TABLES
    )


def _captions_of(rows, folder, table):
    found = {}
    for number, row in enumerate(rows, 1):
        column = next((name for name in _COLUMNS if name in row), None)
        if column is None:
            continue
        name, text = row.get("file_name"), row[column]
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(
                f"{table}: 'file_name' and {column!r} must be strings. "
                f"Received: {name!r} and {text!r} in entry {number}"
            )
        found[pathlib.Path(folder, name)] = text.strip()
    return found


def _read_table(table):
    try:
        if table.suffix == ".csv":
            with table.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        lines = table.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{table} is damaged: {error}") from error
