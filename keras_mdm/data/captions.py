"""Captions of a folder of files: a text file beside each, or one table for all.

Folders of pictures and of videos ask for them. The table is that of Hugging Face's
imagefolder and videofolder: `metadata.csv` or `metadata.jsonl` with the columns
`file_name` (relative to the table) and `text`.
"""

import pathlib
import unicodedata

from keras_mdm.data.source import UnusablePicture
from keras_mdm.data.tables import read_rows
from keras_mdm.files import printable, read_text

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
            return (read_text(path).strip(),)
        except (OSError, ValueError) as error:
            raise UnusablePicture(
                printable(self._root / file),
                f"its caption {printable(path.name)} is unreadable: {error}",
            ) from error


def find_captions(root, files):
    """Finds the captions of pictures or videos.

    Args:
        root: Path of the folder.
        files: List of their paths, relative to `root`.

    Returns:
        A tuple: a mapping from path to a tuple of captions (of the files that have
        one), or `None`; a str that says why there is none; and a list of sentences on
        captions that belong to no file.

    Raises:
        ValueError: If a table is damaged.
    """
    tables = sorted({*root.glob("metadata.*"), *root.glob("*/metadata.*")})
    tables = [table for table in tables if table.name in TABLES]
    if tables:
        captions, columns, notes = {}, set(), []
        names = _Names(files)
        for table in tables:
            rows = read_rows(table)
            columns.update(*(row for _, row in rows))
            lost = []
            for name, texts in _captions_of(rows, table):
                file = names.find(table.parent.relative_to(root), name)
                if file is None:
                    lost.append(name)
                else:
                    captions[file] = captions.get(file, ()) + texts
            if lost:
                notes.append(
                    f"{len(lost)} rows of {table.name} name files that are not there, "
                    f"such as {lost[0]!r}"
                )
        why = (
            f"{tables[0].name} has the columns {sorted(columns)}, and none of them is "
        )
        why = notes[0] if notes else why + " or ".join(map(repr, _COLUMNS))
        return captions or None, why, notes
    texts = TextFiles(root)
    if any(file in texts for file in files[:1000]):
        return texts, "", []
    why = "no file has a .txt file beside it, and there is no " + " or ".join(TABLES)
    return None, why, []


class _Names:
    """Finds files by the names that a table has for them.

    Args:
        files: List of paths.
    """

    def __init__(self, files):
        self._files = set(files)
        # One letter with an accent may be one character or two; systems differ.
        self._composed = {_composed(file): file for file in files}

    def find(self, folder, name):
        """The file of a name in a folder, also with Windows' backslashes; or `None`."""
        for spelled in (name, name.replace("\\", "/")):
            file = pathlib.Path(folder, spelled)
            if file in self._files:
                return file
            if _composed(file) in self._composed:
                return self._composed[_composed(file)]
        return None


def _composed(file):
    return unicodedata.normalize("NFC", file.as_posix())


def _captions_of(rows, table):
    """Yields the file name and the tuple of captions of each row."""
    for number, row in rows:
        column = next((name for name in _COLUMNS if name in row), None)
        if column is None:
            continue
        name, texts = row.get("file_name"), row[column]
        texts = texts if isinstance(texts, list) and texts else [texts]
        if not all(isinstance(value, str) for value in (name, *texts)):
            raise ValueError(
                f"{table}: 'file_name' must be a string, and {column!r} a string or a "
                f"list of strings. Received: {name!r} and {row[column]!r} in line "
                f"{number}"
            )
        yield name.strip(), tuple(text.strip() for text in texts)
