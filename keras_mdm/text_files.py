"""Text files as people have them: written by Windows, Excel, old Macs and the web.

Every text that the package reads comes through here, whatever it is for.
"""

import codecs
import io
import json
import math
import os
import pathlib
import re
import stat

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")
# Also what moves a terminal's cursor, and what turns the direction of a text.
_UNSHOWN = re.compile(
    r"[\ud800-\udfff\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
# Bytes of a text file that is read at once: of a table, and of what is about one item.
MAX_TABLE, MAX_TEXT = 2**32, 2**24
# Of YAML, whose reader in Python takes seconds for them.
MAX_YAML = 2**18


def read_text(path, max_bytes=MAX_TABLE):
    """The text of a file in UTF-8, or what its byte order mark says, without the mark.

    Ends of lines are as in the file.

    Raises:
        ValueError: If the file is no such text, or has more than `max_bytes`. The
            message names file and line.
        OSError: If the file can't be read.
    """
    status = os.stat(path)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        raise ValueError(f"'{printable(path)}' is no regular file.")
    if status.st_size > max_bytes:
        raise ValueError(
            f"'{printable(path)}' has {status.st_size} bytes, more than the "
            f"{max_bytes} that are read at once."
        )
    return decode_text(pathlib.Path(path).read_bytes(), path)


def decode_text(data, name):
    """The text in the bytes of a file, as `read_text`; `name` is for errors."""
    found = (pair for pair in _MARKS if data.startswith(pair[0]))
    mark, encoding = next(found, (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, "replace")
        _refuse_zeros(before, name)
        wrong = data[error.start : error.start + 1].hex()
        raise ValueError(
            f"'{printable(name)}' is not {encoding.upper()}: byte 0x{wrong} in line "
            f"{_line_of_end(before)}. Save it as UTF-8 (in Excel: 'CSV UTF-8')."
        ) from error
    _refuse_zeros(text, name)
    return text


def _refuse_zeros(text, name):
    if "\0" in text:
        line = _line_of_end(text[: text.index("\0")])
        raise ValueError(
            f"'{printable(name)}' has a zero byte in line {line}: it is damaged, or "
            "UTF-16 without a byte order mark. Save it as UTF-8."
        )


def split_lines(text):
    """Lines of a text: they end at \\n, \\r\\n or \\r.

    `str.splitlines` also splits at characters that stand within lines, such as the line
    separators of Unicode, which JSON and the web leave in texts.
    """
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def _line_of_end(text):
    """Number of the line that the next character after a text is in."""
    return len(split_lines(text + "x"))


def read_json(path):
    """The object in a JSON file as a dict; see `parse_json`.

    Raises:
        ValueError: If there is none. The message names the file.
        OSError: If the file can't be read.
    """
    return parse_json(read_text(path, MAX_TEXT), path)


def parse_json(text, name):
    """A JSON object as a dict; all errors, of nesting too, are a `ValueError`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{printable(name)}' is not JSON: {error}.") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ValueError(f"'{printable(name)}' is no JSON object, but a {kind}.")
    return value


def values_in(value):
    """Yields a JSON value and all that is in it, at any depth."""
    left = [value]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict | list):
            left.extend(value.values() if isinstance(value, dict) else value)


def check_repeats(value):
    """Raises a `ValueError` if a value of YAML has too much, as often as it repeats it.

    A few lines may stand for more values than any memory has, or hold themselves.
    """
    sizes = {}

    def size(part):
        if not isinstance(part, dict | list):
            return 1
        if id(part) not in sizes:
            sizes[id(part)] = math.inf  # Of what holds itself.
            parts = part.values() if isinstance(part, dict) else part
            sizes[id(part)] = 1 + sum(map(size, parts))
        return sizes[id(part)]

    if size(value) > MAX_YAML:
        raise ValueError("it repeats a part of itself too often")


def printable(text):
    """A text that can be printed and encoded: bytes of no known meaning as `\\xe9`.

    Names of files that are not UTF-8 hold such bytes. What a terminal would obey, such
    as colors and line ends, and turns of the direction of a text are escaped too.
    """
    return _UNSHOWN.sub(_escape, str(text))


def reason(error):
    """What a library says of a stranger's file, in one line that can be shown."""
    return printable(" ".join(cut(str(error), 2000).split()))


def cut(text, size):
    """The beginning of a text that has at most `size` bytes in UTF-8."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _escape(match):
    code = ord(match[0])
    # Python keeps a byte that it can't decode as 0xDC00 + byte.
    code -= 0xDC00 * (0xDC80 <= code <= 0xDCFF)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def whole_characters(text):
    """A text in which halves of characters, as a `"\\ud83d"` of JSON, are U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)
