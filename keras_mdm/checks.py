"""Whether a value is a number in its range, a flag or a choice, whatever it may be.

Imports nothing. Comparing a text or a list with a number raises errors that do not name
the argument. The functions `check_` raise a `ValueError` that names the first of their
arguments that is wrong, its value and what would be right.
"""

import numbers


def between(value, low=float("-inf"), high=float("inf"), whole=False):
    """Whether a value is a real number from `low` to `high`, and no bool.

    Infinite ends are not in the range, and NaN never is. `whole` asks for an integer.
    """
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    return low <= value <= high and abs(value) != float("inf")


def check_flags(**given):
    """Arguments that must be bools."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"`{name}` must be True or False. Received: {name}={value!r}"
            )


def check_whole(low=1, high=None, **given):
    """Arguments that must be whole numbers from `low`, perhaps to `high`."""
    end = "" if high is None else f" to {high}"
    for name, value in given.items():
        if not between(value, low, high or float("inf"), whole=True):
            raise ValueError(
                f"`{name}` must be a whole number from {low}{end}. "
                f"Received: {name}={value!r}"
            )


def check_number(low=None, high=None, above=None, below=None, **given):
    """Arguments that must be finite numbers, from `low` or above `above`, and so on."""
    if low is not None and high is not None:
        right = f"from {low:g} to {high:g}"
    else:
        named = ("above", above), ("at least", low), ("below", below)
        limits = [f"{word} {limit:g}" for word, limit in named if limit is not None]
        right = " and ".join(limits if below is not None else [*limits, "finite"])
    for name, value in given.items():
        good = between(
            value,
            float("-inf") if low is None else low,
            float("inf") if high is None else high,
        )
        good = good and (above is None or value > above)
        if not good or (below is not None and value >= below):
            raise ValueError(f"`{name}` must be {right}. Received: {name}={value!r}")


def check_choice(choices, **given):
    """Arguments that must be one of some names."""
    for name, value in given.items():
        if not isinstance(value, str) or value not in choices:
            raise ValueError(
                f"`{name}` must be one of {tuple(choices)}. Received: {name}={value!r}"
            )
