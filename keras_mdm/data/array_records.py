"""How large a record of an array_record file becomes, before its library unpacks it.

The last block of a file names a footer, which names where each chunk of records begins,
and each chunk tells in its header how large it becomes; the library reads no more:
https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
"""

import bisect
import io
import itertools
import os
import struct

import pyarrow

from keras_mdm.data.packed import ALWAYS, MOST_UNPACKED
from keras_mdm.data.parquet import read_number
from keras_mdm.text_files import printable, reason

_BLOCK, _BLOCK_HEADER, _HEADER = 2**16, 24, 40
_RECORDS = ord("r")  # The kind of chunk that TFDS writes.
_CODECS = {b"z": "zstd", b"b": "brotli"}
_MOST_FOOTER = 2**24  # Of a million chunks.
_NUMBER = 8  # Bytes that each record takes beside its own.


class RecordSizes:
    """Checks the records of a split; of each file once one of them is asked for.

    Args:
        builder: TFDS' builder of a set that is prepared.
        split: str. The split, such as `"train[:10%]"`.
        most: int. Bytes that a chunk of records may take.
    """

    def __init__(self, builder, split, most):
        parts = builder.info.splits[split].file_instructions
        self._files = [(part.filename, part.skip) for part in parts]
        self._ends = list(itertools.accumulate(part.take for part in parts))
        self._most, self._chunks = most, {}
        size = sum(os.path.getsize(name) for name in {name for name, _ in self._files})
        if self._ends and _NUMBER * self._ends[-1] > size:
            raise ValueError(
                f"'{printable(self._files[0][0])}' and the other files of its split "
                f"have {size} bytes, and can't hold the {self._ends[-1]} records that "
                "the description beside them tells of."
            )

    def check(self, index):
        """Raises a `ValueError` if a record is damaged, or becomes too large."""
        number = bisect.bisect_right(self._ends, index)
        name, skip = self._files[number]
        index += skip - (self._ends[number - 1] if number else 0)
        try:
            with open(name, "rb") as file:
                if name not in self._chunks:
                    self._chunks[name] = _chunks_of(file)
                chunks, group = self._chunks[name]
                at, count = chunks[index // group]
                kind, found, unpacked, packed = _read_header(file, at)
        # Whatever a damaged file makes this and pyarrow raise.
        except Exception as error:
            raise ValueError(
                f"'{printable(name)}' is damaged: {reason(error)}"
            ) from error
        if kind != _RECORDS or found != count:
            raise ValueError(f"'{printable(name)}' has a chunk that is none of records")
        size = unpacked + _NUMBER * count
        most = min(self._most, max(MOST_UNPACKED * packed, ALWAYS))
        if size > most:
            raise ValueError(
                f"a record of '{printable(name)}' would be unpacked from {packed} "
                f"bytes to {size}, more than {most}"
            )


def _chunks_of(file):
    """Where each chunk begins and its number of records, and that of the first."""
    end = os.fstat(file.fileno()).st_size - _BLOCK
    footer = _fields(_records(file, end)[0])[1]
    about, *rows = (_fields(record) for record in _records(file, footer))
    chunks = [(row[1], row[3]) for row in rows]
    about, group = _fields(about[1]), chunks[0][1] if chunks else 1
    places = [place for place, _ in chunks]
    counts = [count for _, count in chunks]
    ordered = all(a < b for a, b in itertools.pairwise([*places, footer, end]))
    full = {*counts[:-1], group} == {group} and counts[-1:] <= [group]
    if not (ordered and full and 0 < min(counts, default=1)):
        raise ValueError("its footer does not tell where its records are")
    if (about[2], about[3]) != (len(chunks), sum(counts)):
        raise ValueError("its footer does not tell how many records there are")
    return chunks, group


def _read(file, at, size):
    """Bytes from a place on, without the headers of the blocks that they are in."""
    parts = []
    while size:
        at += max(_BLOCK_HEADER - at % _BLOCK, 0)
        file.seek(at)
        parts.append(file.read(min(size, _BLOCK - at % _BLOCK)))
        if not parts[-1]:
            raise ValueError("it ends within a chunk")
        at, size = at + len(parts[-1]), size - len(parts[-1])
    return b"".join(parts)


def _read_header(file, at):
    """Kind of a chunk, its number of records, and its size unpacked and packed."""
    header = struct.unpack("<5Q", _read(file, at, _HEADER))
    return header[3] & 255, header[3] >> 8, header[4], header[1]


def _records(file, at):
    """The records of a chunk, as bytes."""
    kind, count, _, size = _read_header(file, at)
    if kind != _RECORDS or size > os.fstat(file.fileno()).st_size:
        raise ValueError("it has no footer where one should be")
    data = io.BytesIO(_read(file, at, _HEADER + size)[_HEADER:])
    codec = data.read(1)
    sizes = io.BytesIO(_unpacked(codec, data.read(read_number(data))))
    values = io.BytesIO(_unpacked(codec, data.read()))
    return [values.read(read_number(sizes)) for _ in range(count)]


def _unpacked(codec, data):
    if codec == b"\0":
        return data
    data = io.BytesIO(data)
    size = read_number(data)
    if size > _MOST_FOOTER or codec not in _CODECS:
        raise ValueError(f"its footer is packed otherwise, or has {size} bytes")
    return pyarrow.decompress(data.read(), size, _CODECS[codec], asbytes=True)


def _fields(message):
    """Fields of a message by number: whole numbers, and bytes."""
    found, data = {}, io.BytesIO(message)
    while data.tell() < len(message):
        key, value = read_number(data), read_number(data)
        if key & 7 == 2:
            value = data.read(value)
        elif key & 7:
            raise ValueError("its footer has a field of another type")
        found[key >> 3] = value
    return found
