"""Packed files among data: told by their bytes, whatever they are called."""

import zipfile

from keras_mdm.data.pictures import picture_extensions
from keras_mdm.text_files import printable

# Programs that unpack, by what the files begin with.
_UNPACKERS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"(\xb5/\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
    b"PK\x03\x04": "unzip",
    b"7z\xbc\xaf\x27\x1c": "7z x",
    b"Rar!": "unrar x",
}
_TAR, _TAR_AT = b"ustar", 257
_MOST_UNPACKED = 100  # Pictures are hardly smaller in an archive,
_ALWAYS = 2**24  # but a few may be of one color.


def unpacker_of(start):
    """The program that unpacks a file which begins with these bytes, or `None`."""
    tools = (tool for magic, tool in _UNPACKERS.items() if start.startswith(magic))
    return next(tools, None)


def check_archives(folder):
    """Refuses what the library of a folder's data would unpack without a bound.

    Zip archives and parquet tables tell how large they become; of the others nobody
    knows before.

    Args:
        folder: `pathlib.Path`.

    Raises:
        ValueError: if a file is packed otherwise, damaged, or far larger unpacked.
    """
    pictures = picture_extensions()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in pictures or not path.is_file():
            continue
        if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            _check_size(path, _size_of_zip(path))
            continue
        if path.suffix.lower() == ".parquet":
            _check_size(path, _size_of_parquet(path))
        with open(path, "rb") as file:
            start = file.read(_TAR_AT + len(_TAR))
        tool = "tar -xf" if start[_TAR_AT:] == _TAR else unpacker_of(start)
        if tool is not None:
            raise ValueError(
                f"'{printable(path)}' is packed, and its library would unpack it, "
                f"however large it becomes. Unpack it first: {tool} '{printable(path)}'"
                " (shards of pictures are read as 'webdataset:FOLDER')."
            )


def _size_of_zip(path):
    try:
        with zipfile.ZipFile(path) as file:
            return sum(member.file_size for member in file.infolist())
    # Whatever a damaged file makes zipfile raise.
    except Exception as error:
        raise ValueError(f"'{printable(path)}' is damaged: {error}") from error


def _size_of_parquet(path):
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_metadata(path)
    except (ArrowException, OSError):
        return 0  # No parquet: its library says what it is.
    return sum(table.row_group(i).total_byte_size for i in range(table.num_row_groups))


def _check_size(path, size):
    if size > max(_MOST_UNPACKED * path.stat().st_size, _ALWAYS):
        raise ValueError(
            f"'{printable(path)}' would be unpacked to {size} bytes, more than "
            f"{_MOST_UNPACKED} times what it has."
        )
