"""Paths as users write them, and those in folders that may be a stranger's.

Nothing is written here; `files` does that.
"""

import os
import pathlib

from keras_mdm.text_files import printable


def as_path(path):
    """A path with `~` as the user's home folder; a `ValueError` if it is none."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise ValueError(
            f"a path must be a text without zero characters. Received: {path!r}"
        )
    return pathlib.Path(path).expanduser()


def local_path(path, argument):
    """`as_path` of what a user named, which `argument` names in errors.

    It may not be empty either, nor the home folder of nobody known.
    """
    if not str(path).strip():
        raise ValueError(
            f"{argument} must name a file or folder; '.' is the current folder. "
            f"Received an empty path: {str(path)!r}"
        )
    try:
        return as_path(path)
    except RuntimeError as error:
        raise ValueError(
            f"{argument}: there is no such home folder. Received: {printable(path)!r}"
        ) from error


def cache_folder(kind):
    """The folder of one kind of what is kept in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "keras_mdm" / kind


def own_folder(parent, name):
    """A folder, or lock, in a folder that may be a stranger's.

    A link, through which files elsewhere would be written, is a `ValueError`; so is a
    lock that has other names too, which lie elsewhere.
    """
    path = as_path(parent) / name
    linked = path.is_file() and path.stat().st_nlink > 1
    if linked or path.is_symlink():
        raise ValueError(f"'{printable(path)}' is a link: nothing is written there.")
    return path


def leads_out(path, folder):
    """Whether a path in a folder is, by links, one outside of it."""
    home, real = (pathlib.Path(os.path.realpath(found)) for found in (folder, path))
    # In the cache of Hugging Face files are links to its `blobs`.
    caches = [up.parent for up in home.parents if up.name == "snapshots"]
    roots = [home, *(os.path.realpath(cache / "blobs") for cache in caches)]
    return not any(real.is_relative_to(root) for root in roots)


def member(folder, name):
    """A file in a folder that may be a stranger's.

    A link that leads elsewhere is a `ValueError`, and so is what is there and no file.
    """
    path = folder / name
    if leads_out(path, folder):
        raise ValueError(
            f"'{printable(path)}' is a link out of its folder, to "
            f"'{printable(os.path.realpath(path))}'. Put the file itself there."
        )
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"'{printable(path)}' must be a file, and is none.")
    return path
