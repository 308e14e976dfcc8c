"""Values of settings, from the text of a command line or from JSON."""

import json
import os
import re
import types
import typing
from typing import Literal

# A resolution: 64, or "8x64" with frames.
Level = typing.NewType("Level", object)
# A file or folder, where `~` is the user's home folder.
Path = typing.NewType("Path", str)
# Names of `keras_mdm.data.Limits` and what they are set to.
Limits = dict[str, float | int]


def convert(hint, value):
    """A value of a setting's type, from text or JSON.

    Raises:
        ValueError: with what the value must be.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        errors = []
        for part in reversed(parts):  # Unions end with `None`, which is tried first.
            try:
                return convert(part, value)
            except ValueError as error:
                errors.append(error)
        raise errors[-1]
    if hint is types.NoneType:
        wanted, found = "null", value in (None, "null")
        value = None
    elif origin is Literal:
        wanted, found = f"one of {', '.join(parts)}", value in parts
    elif origin is list:
        return [convert(parts[0], entry) for entry in _entries(value, parts[0])]
    elif origin is dict:
        pairs = _pairs(value)
        return {convert(parts[0], k): convert(parts[1], v) for k, v in pairs}
    elif hint is Level:
        wanted = "a resolution, such as 64 or 8x64"
        found = re.fullmatch(r"(\d+x)?\d+", str(value)) is not None
        value = int(value) if str(value).isdecimal() else value
    elif hint is bool:
        wanted = "true or false"
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value, value)
        found = isinstance(value, bool)
    elif hint in (int, float):
        wanted = "a whole number" if hint is int else "a number"
        if isinstance(value, str):
            try:
                value = hint(value)
            except ValueError:
                pass
        found = isinstance(value, (int, hint)) and not isinstance(value, bool)
    else:
        wanted, found = "text", isinstance(value, str)
        if found and hint is Path:
            value = os.path.expanduser(value)
    if not found:
        raise ValueError(f"must be {wanted}. Received: {value!r}")
    return value


def _entries(value, kind):
    if isinstance(value, str):
        if value.startswith("["):
            return _json(value)
        return [value] if kind is str else value.split(",")
    return value if isinstance(value, list) else [value]


def _pairs(value):
    if isinstance(value, str) and value.startswith("{"):
        value = _json(value)
    if isinstance(value, dict):
        return value.items()
    pairs = [text.partition("=") for text in value.split(",")] if value else []
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise ValueError(f"must be NAME=NUMBER,... as 64=2. Received: {value!r}")
    return [(key, number) for key, _, number in pairs]


def _json(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON ({error}). Received: {text[:80]!r}") from error
