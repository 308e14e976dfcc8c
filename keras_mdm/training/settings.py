"""What a resumed run must share with the one that it goes on with."""

import json

_SHOWN = 8  # Differences that are listed.


def check_settings(folder, saved, now, allowed=()):
    """Raises an error if a run had other settings, but for those that may differ.

    Args:
        folder: Path, for the error.
        saved: dict of JSON values, as read from its state.
        now: dict of JSON values.
        allowed: Names of the settings that may differ: keys of both.

    Returns:
        str that lists what differs and may, or `""`.

    Raises:
        ValueError: with each value that differs and may not.
    """
    now = json.loads(json.dumps(now, default=str))
    unknown = sorted(set(allowed) - {*saved, *now})
    if unknown:
        raise ValueError(
            f"`allow_changed` must be some of {sorted(now)}. Received: {unknown}"
        )
    kept = [{k: v for k, v in s.items() if k not in allowed} for s in (saved, now)]
    found = listed(differences(*kept))
    if found:
        raise ValueError(
            f"`resume`: the training in '{folder}' had other settings: {found}. Go on "
            "with the same ones, allow these changes by name, or train in a new folder."
        )
    return listed(differences(saved, now))


def listed(found):
    """The first of some differences in a line."""
    found = list(found)
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def differences(saved, now, name=""):
    """Yields a text for each value that differs in two JSON values called `name`."""
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in sorted({*saved, *now}):
            inside = f"{name}.{key}" if name else key
            parts = (part.get(key, "missing") for part in (saved, now))
            yield from differences(*parts, inside)
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for index, pair in enumerate(zip(saved, now, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif saved != now:
        yield f"{name} was {_short(saved)} and is {_short(now)}"


def _short(value):
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return f"{len(value)} of them"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
