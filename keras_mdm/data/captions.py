"""Captions of a folder of files: a text file beside each, or tables.

Folders of pictures and of videos ask for them. The tables are those of Hugging Face's
imagefolder and videofolder: `metadata.csv`, `.tsv` or `.jsonl` with the columns
`file_name` (relative to the table) and `text`.
"""

import os
import posixpath
import unicodedata

from keras_mdm.data.file_walk import name_some
from keras_mdm.data.source import UnusablePicture, read_captions
from keras_mdm.data.tables import COLUMNS, FILE_NAME, read_table
from keras_mdm.text_files import printable, read_text

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")


class TextFiles:
    """Captions in files named as the pictures or videos, with the ending `.txt`.

    Args:
        root: Path of the folder.
        files: List of the paths of its text files, relative to `root`.
    """

    def __init__(self, root, files):
        self._root = root
        texts = [file for file in files if file.suffix.lower() == ".txt"]
        self._files = _Names({file.with_suffix(".txt"): file for file in texts})

    def _find(self, file):
        return self._files.find(file.with_suffix(".txt").as_posix())

    def __contains__(self, file):
        return self._find(file) is not None

    def __getitem__(self, file):
        path = self._root / self._find(file)
        try:
            return read_captions(read_text(path))
        except (OSError, ValueError) as error:
            raise UnusablePicture(
                str(self._root / file),
                f"its caption {path.name} is unreadable: {error}",
            ) from error


class _Names:
    """Finds files by names that other systems wrote.

    Args:
        files: Dict of relative paths by the paths that they are found by.
    """

    def __init__(self, files):
        self._files = {path.as_posix(): file for path, file in files.items()}
        # Macs write an accent after its letter, most others the letter with it.
        self._composed = {_compose(name): file for name, file in self._files.items()}

    def find(self, name):
        """The file of a name, or `None`."""
        for spelling in (name, name.strip(), name.strip().replace("\\", "/")):
            spelling = posixpath.normpath(spelling)
            file = self._files.get(spelling) or self._composed.get(_compose(spelling))
            if file is not None:
                return file
        return None


def _compose(name):
    return unicodedata.normalize("NFC", name)


def find_captions(root, files, others):
    """Finds the captions of pictures or videos.

    Args:
        root: Path of the folder.
        files: List of their paths, relative to `root`.
        others: List of the paths of the other files.

    Returns:
        A tuple: a mapping from path to a tuple of captions (of the files that have
        some), or `None`; a string that says why there is none; and a list of sentences
        about rows that are not used.

    Raises:
        ValueError: If a table is damaged.
    """
    tables = [file for file in others if file.name.lower() in TABLES]
    if tables:
        return _read_tables(root, files, tables)
    texts = TextFiles(root, others)
    if any(file in texts for file in files):
        return texts, "", []
    why = "no file has a .txt file beside it, and there is no " + " or ".join(TABLES)
    return None, why, []


def _read_tables(root, files, tables):
    names = _Names({file: file for file in files})
    captions, notes, columns = {}, [], set()
    for table in tables:
        rows = read_table(root / table)
        for _, row in rows:
            columns.update(row)
        lost = []
        for line, name, texts in _captions_of(rows, root / table):
            file = _find_file(names, root, table.parent, name)
            if file is None:
                lost.append(f"{name!r} (line {line})")
            else:
                captions[file] = captions.get(file, ()) + texts
        if lost:
            notes.append(
                f"{len(lost)} row(s) of {root / table} name no file that is read: "
                f"{name_some(lost)}."
            )
    if notes and not captions:
        raise ValueError(
            f"No row names a file that is there. 'file_name' is relative to the "
            f"table. {printable(' '.join(notes))}"
        )
    why = (
        f"{tables[0].name} has the columns {sorted(columns)}, and none of them is "
        + " or ".join(map(repr, COLUMNS))
    )
    return captions or None, why, notes


def _find_file(names, root, folder, name):
    if os.path.isabs(name):
        name = os.path.relpath(name, root.absolute())
        return names.find(name)
    # A backslash is part of a name where one is there, else it parts folders.
    return names.find(posixpath.join(folder.as_posix(), name.lstrip()))


def _captions_of(rows, table):
    """Yields line, name of the file and captions of the rows that have captions."""
    for line, row in rows:
        column = next((name for name in COLUMNS if name in row), None)
        if column is None:
            continue
        where = f"'{printable(table)}', line {line}"
        name = row.get(FILE_NAME)
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{where}: {FILE_NAME!r} must be the name of a file. "
                f"Received: {name!r}, with the columns {sorted(row)}"
            )
        try:
            texts = read_captions(row.get(column))
        except ValueError as error:
            raise ValueError(f"{where}: {column!r}: {error}") from error
        yield line, name, texts
