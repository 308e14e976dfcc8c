"""How large the tables of a parquet file become, before one is decoded.

What a file tells of its row groups may be a lie, and says nothing of repeated values:
one of a megabyte, repeated ten thousand times, takes a few bytes. So the header of each
page is read, in the compact protocol of Thrift:
https://parquet.apache.org/docs/file-format
"""

import pyarrow
from pyarrow import parquet

# Types of values in the compact protocol.
_FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _STRUCT = 2, 3, 6, 7, 8, 12
# Fields of a page's header; those of its kind have the number and encoding of values.
_UNPACKED, _PACKED, _DICTIONARY = 2, 3, 7
_NUMBER, _ENCODING = 1, {5: 2, 8: 4}
_INDICES, _SHARED_PREFIXES = (2, 8), 7
_MOST_DEPTH, _MOST_COLUMNS = 8, 10_000


def unpacked_size(path):
    """Upper bound of the bytes that a file of parquet is decoded to.

    Raises:
        Exception: Whatever a damaged file makes pyarrow or this raise.
    """
    table = parquet.read_metadata(path)
    if table.num_columns > _MOST_COLUMNS:
        raise ValueError(f"it has {table.num_columns} columns")
    size = 0
    with open(path, "rb") as file:
        for group in map(table.row_group, range(table.num_row_groups)):
            for number in range(table.num_columns):
                width = max(table.schema.column(number).length, 8) + 1  # Or none.
                size += _size_of_column(file, group.column(number), width)
    return size


def _size_of_column(file, column, width):
    start = column.data_page_offset
    if column.has_dictionary_page:
        start = min(start, column.dictionary_page_offset)
    end = start + column.total_compressed_size
    size, seen, longest = 0, 0, 0
    while seen < column.num_values and start < end:
        file.seek(start)
        page = _read_struct(file)
        if not {_PACKED, _UNPACKED} <= set(page):
            raise ValueError("a header does not tell the size of its page")
        packed, unpacked = page[_PACKED], page[_UNPACKED]
        start = file.tell() + packed
        size += unpacked
        if _DICTIONARY in page and column.physical_type == "BYTE_ARRAY":
            longest = _longest(file.read(packed), unpacked, column.compression)
        for kind in _ENCODING.keys() & page.keys():
            number, encoding = (
                page[kind].get(field, 0) for field in (_NUMBER, _ENCODING[kind])
            )
            most = width
            if encoding in _INDICES:
                most += longest
            elif encoding == _SHARED_PREFIXES:
                most += unpacked
            size += number * most
            seen += number
    return size


def _longest(data, size, codec):
    """Bytes of the longest value of a dictionary page, at most."""
    if size > 2**26:  # None has as much.
        return size
    if codec != "UNCOMPRESSED":
        codec = {"LZ4": "lz4_raw"}.get(codec, codec.lower())
        data = pyarrow.decompress(data, size, codec, asbytes=True)
    longest, at = 0, 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return longest


def _read_struct(file, depth=0):
    """Fields of a struct by number: those that are integers or structs."""
    if depth > _MOST_DEPTH:
        raise ValueError("its headers are nested too deep")
    found, field = {}, 0
    while head := _byte(file):
        field = field + (head >> 4) if head >> 4 else read_number(file) >> 1
        found[field] = _read_value(file, head & 15, depth)
    return found


def _read_value(file, kind, depth):
    if kind <= _FALSE:
        return kind
    if kind == _BYTE:
        return _byte(file)
    if kind <= _I64:
        value = read_number(file)
        if value & 1:
            raise ValueError("a number in its headers is negative")
        return value >> 1
    if kind == _DOUBLE:
        return file.read(8)
    if kind == _BINARY:
        return file.seek(read_number(file), 1)
    if kind == _STRUCT:
        return _read_struct(file, depth + 1)
    raise ValueError(f"its headers have values of the type {kind}")


def _byte(file):
    data = file.read(1)
    if not data:
        raise ValueError("it ends within a header")
    return data[0]


def read_number(file):
    """Reads a number of seven bits a byte, as Thrift and riegeli write it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number in its headers is too long")
