"""Paths that users give: not empty, with "~" as their home folder."""

from keras_mdm.files import as_path
from keras_mdm.text_files import printable


def local_path(path, argument):
    """Returns the path of a file or folder that a user named.

    Args:
        path: String or path. A leading `"~"` is the home folder.
        argument: String. What errors call it, such as `"`data_dir`"`.

    Returns:
        `pathlib.Path`.

    Raises:
        ValueError: If it is empty, or the home folder of nobody known.
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
