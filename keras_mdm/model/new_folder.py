"""A folder that appears whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def new_folder(path, marker, overwrite=False):
    """Yields an empty folder that becomes `path` if no error is raised.

    It stands beside `path`, hidden, until all is written; after an error, such as a
    full disk, nothing of it is left and what was at `path` is as before.

    Args:
        path: str or path. Must not exist, or be an empty folder, or be one that has
            the file `marker` if `overwrite` is set.
        marker: str. Name of a file that tells folders of this kind from others.
        overwrite: bool. Whether an existing folder of this kind is replaced.

    Raises:
        ValueError: if `path` exists and may not be replaced.
        OSError: if writing fails.
    """
    path = pathlib.Path(path)
    check_free(path, marker, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"'{path}' could not be written, and nothing of it was left. Cause: {error}"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(path, marker, overwrite=False):
    """Raises a `ValueError` if `new_folder` would refuse `path`."""
    path = pathlib.Path(path)
    if not path.exists():
        return
    replaceable = overwrite and (path / marker).is_file()
    if not replaceable and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"`path` exists; pass `overwrite=True` to replace a preset there. "
            f"Received: path={str(path)!r}"
        )


def reserve(folder, size):
    """Raises an `OSError` unless the disk has room for so many bytes.

    HDF5 ends the whole process if the disk fills up while it writes, so room is looked
    for before. Systems without `posix_fallocate` are trusted.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    path = pathlib.Path(folder) / "reserved"
    try:
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    finally:
        path.unlink(missing_ok=True)
