"""Files and folders that appear whole or not at all, whenever the writer is killed.

Everything that writes goes through `whole_file` or `whole_folder`: temporary names are
made exclusively beside the target and take its place in one step, so that no link is
followed and no half of a file is ever seen. What a writer that was killed left is
removed when the next program writes there. Of several processes that run one program
the first writes, but for parts of a state; what the others would write is thrown away.
"""

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import stat
import tempfile
import warnings

try:
    import fcntl
except ImportError:  # Windows, where an open file can't be removed anyway.
    fcntl = None

from keras_mdm.paths import as_path
from keras_mdm.text_files import printable

# A finished replacement of a folder's files that only has to be moved into place.
_REPLACEMENT = ".replacement"
_TEMPORARY = re.compile(r"\..*\.part-[0-9a-f]{8}(\.\w+){0,2}", re.DOTALL)
_cleared = set()


@contextlib.contextmanager
def whole_file(path, by_all=False):
    """Yields the path of a new file that becomes `path` if no error is raised.

    Until then, and after an error, what was at `path` is as before. Its folder is made
    if need be, and the new file has its suffix. With `by_all`, each of several
    processes writes a file of its own.
    """
    path = as_path(path)
    if _process_number() > 0 and not by_all:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if _process_number() == 0:
        clear_leftovers(path.parent)
    # Keras knows its files of weights by two.
    temporary = _beside(path, "".join(path.suffixes[-2:]))
    temporary.touch(exist_ok=False)
    try:
        with _locked(temporary):
            yield temporary
            _to_disk(temporary)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    """Writes a text file in UTF-8; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(path, is_ours, overwrite=False):
    """Yields an empty folder whose files become those of `path` if no error is raised.

    Other files in `path` stay as they are. `finish_replacement` must be called before
    the folder is read: a writer may be killed while it moves the files into place.

    Args:
        path: str or path. Must not exist, or be an empty folder, or be one of the
            writer's kind if `overwrite` is set.
        is_ours: Callable of a path. Whether a folder is of the writer's kind.
        overwrite: bool. Whether the files of such a folder are replaced.

    Raises:
        ValueError: if `path` exists and may not be replaced.
        OSError: if writing fails.
    """
    path = as_path(path)
    if _process_number() > 0:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)
        return
    check_free(path, is_ours, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    replaces = path.is_dir() and any(path.iterdir())
    temporary = _beside(path / "new" if replaces else path)
    clear_leftovers(temporary.parent)
    temporary.mkdir()
    try:
        with _locked(temporary):
            yield temporary
            for entry in temporary.iterdir():
                _to_disk(entry)
                if (path / entry.name).is_dir():
                    raise IsADirectoryError(f"'{path / entry.name}' is a folder")
            if replaces:
                finish_replacement(path)
                temporary.rename(path / _REPLACEMENT)
                finish_replacement(path)
            else:
                # Fails if another process has put something there meanwhile.
                temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise OSError(
            f"'{path}' could not be written, and nothing of it was left; what was "
            f"there is as before. Cause: {error}"
        ) from error


def append_whole(path, data):
    """Writes bytes at the end of a file, all of them or none.

    Raises:
        OSError: if it is a link, a file that has other names too, or no file, or if
            writing fails.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # A pipe would be waited for.
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OSError(
                f"'{printable(path)}' is a link, or no file: nothing is written there."
            )
        try:
            while data:  # A disk that is almost full takes a part.
                data = data[file.write(data) :]
        except OSError:
            file.truncate(status.st_size)
            raise


def clear_leftovers(folder):
    """Removes what writers that were killed left in a folder, and says so, once.

    A writer that lives has a lock on its temporary file or folder.
    """
    real = os.path.realpath(folder)
    if real in _cleared or fcntl is None:
        return
    _cleared.add(real)
    if not os.path.isdir(real):
        return  # What will be there is of writers that live.
    removed = []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for entry in found:
        with contextlib.suppress(OSError):  # Gone, locked, a link, or not ours.
            file = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
                removed.append(entry.name)
            finally:
                os.close(file)
    if removed:
        warnings.warn(
            f"removed from '{printable(folder)}' what a program that was killed had "
            f"begun to write: {', '.join(map(printable, sorted(removed)))}",
            stacklevel=3,
        )


@contextlib.contextmanager
def _locked(path):
    """Within it, a temporary file or folder is that of a living writer."""
    file = None
    # Another process may have taken it for a leftover before it was locked: it is
    # written all the same.
    with contextlib.suppress(FileNotFoundError):
        file = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if file is not None:
            with contextlib.suppress(OSError):  # A file system without locks.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if file is not None:
            os.close(file)


def finish_replacement(folder):
    """Moves files into place that a killed writer of `whole_folder` had finished."""
    replacement = as_path(folder) / _REPLACEMENT
    if replacement.is_symlink():
        return  # Not ours: it would move files from elsewhere.
    # Another process may do the same at the same time.
    with contextlib.suppress(FileNotFoundError):
        for entry in list(replacement.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                os.replace(entry, replacement.parent / entry.name)
        replacement.rmdir()


def check_free(path, is_ours, overwrite=False):
    """Raises a `ValueError` if `whole_folder` would refuse `path`."""
    path = as_path(path)
    if _process_number() > 0 or not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        finish_replacement(path)
        if not any(path.iterdir()):
            return
        if is_ours(path):
            if overwrite:
                return
            raise ValueError(
                f"`path` exists; pass `overwrite=True` to replace what is there. "
                f"Received: path={str(path)!r}"
            )
    raise ValueError(
        "`path` exists and holds something else, or is a link; that is never replaced. "
        f"Choose another path. Received: path={str(path)!r}"
    )


def reserve(folder, size):
    """Raises an `OSError` unless the disk, as far as it can tell, has so many bytes.

    HDF5 ends the whole process if the disk fills up while it writes.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _process_number():
    # Imported by who writes: what only reads has no need of Keras.
    from keras_mdm import backend

    return backend.process_number()


def _beside(path, suffix=""):
    """A hidden name beside a path that nothing has."""
    # Long names leave no room for more; the limit counts bytes.
    return path.with_name(f".{path.name[:40]}.part-{secrets.token_hex(4)}{suffix}")


def _to_disk(path):
    """Waits until a file is on the disk, before its name says that it is there."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
