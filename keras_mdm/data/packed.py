"""Packed files among data: told by their bytes, whatever they are called."""

import zipfile

from keras_mdm.data.pictures import picture_extensions
from keras_mdm.text_files import printable, reason

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
# What is read with `datasets`: of all else nobody knows how large it becomes.
_READ = ("imagefolder", "parquet")
MOST_UNPACKED = 100  # Pictures are hardly smaller in an archive,
ALWAYS = 2**24  # but a few may be of one color.


def unpacker_of(start):
    """The program that unpacks a file which begins with these bytes, or `None`."""
    tools = (tool for magic, tool in _UNPACKERS.items() if start.startswith(magic))
    return next(tools, None)


def check_packed(paths, only_known=False):
    """Refuses files that the library of a folder's data would unpack without a bound.

    Of zip archives and parquet tables it is known how large they become; of the others
    nobody knows before.

    Args:
        paths: `pathlib.Path`s.
        only_known: bool. Whether the others pass, as those of the hub must.

    Raises:
        ValueError: If a file is packed otherwise, damaged, or far larger unpacked.
    """
    from keras_mdm.data.parquet import unpacked_size  # Of `datasets`, not of shards.

    pictures = picture_extensions()
    for path in paths:
        ending = path.suffix.lower()
        if ending in pictures or not path.is_file():
            continue
        if ending == ".zip" or zipfile.is_zipfile(path):
            _check_size(path, _size_of_zip)
            continue
        with open(path, "rb") as file:
            start = file.read(_TAR_AT + len(_TAR))
        tool = "tar -xf" if start[_TAR_AT:] == _TAR else unpacker_of(start)
        if tool is not None and not only_known:
            raise ValueError(
                f"'{printable(path)}' is packed, and its library would unpack it, "
                f"however large it becomes. Unpack it first: {tool} '{printable(path)}'"
                " (shards of pictures are read as 'webdataset:FOLDER')."
            )
        if ending == ".parquet" or start.startswith(b"PAR1"):
            _check_size(path, unpacked_size)


def check_format(builder, folder):
    """Refuses the data of a folder that are read as anything but what was checked.

    Args:
        builder: `datasets.DatasetBuilder`.
        folder: `pathlib.Path`.

    Raises:
        ValueError: If they are no pictures and no parquet files, by name.
    """
    config = builder.config
    names = [name for split in config.data_files.values() for name in split]
    tables = getattr(config, "metadata_filenames", None) or ()
    if builder.name not in _READ:
        raise ValueError(
            f"the files of '{printable(folder)}' are read as {builder.name}, of which "
            "nobody knows how large it becomes. A folder must hold pictures, or parquet"
            " files: `Dataset.to_parquet` of `datasets` writes them."
        )
    wrong = [name for name in names if not name.lower().endswith(".parquet")]
    wrong = [*tables, *(wrong if builder.name == "parquet" else ())]
    if wrong:
        raise ValueError(
            f"the description of '{printable(folder)}' names as a table what is called "
            f"otherwise: {printable(wrong[0])!r}."
        )


def _size_of_zip(path):
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    if any(member.filename.lower().endswith(".parquet") for member in members):
        raise ValueError("it has tables of parquet; unpack it first")
    return sum(member.file_size for member in members)


def _check_size(path, size_of):
    try:
        size = size_of(path)
    # Whatever a damaged file makes zipfile or pyarrow raise.
    except Exception as error:
        raise ValueError(
            f"'{printable(path)}' is damaged or unfit: {reason(error)}"
        ) from error
    if size > max(MOST_UNPACKED * path.stat().st_size, ALWAYS):
        raise ValueError(
            f"'{printable(path)}' would be unpacked to {size} bytes, more than "
            f"{MOST_UNPACKED} times what it has."
        )
