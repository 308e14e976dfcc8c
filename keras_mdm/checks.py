"""Whether a value is a number in its range, or a flag, whatever else it may be.

Imports nothing. Comparing a text or a list with a number raises errors that do not name
the argument.
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
    """Raises a `ValueError` that names the first argument that is no bool."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"`{name}` must be True or False. Received: {name}={value!r}"
            )


def check_whole(low=1, **given):
    """Raises a `ValueError` that names the first argument that is no int from `low`."""
    for name, value in given.items():
        if not between(value, low, whole=True):
            raise ValueError(
                f"`{name}` must be a whole number from {low}. "
                f"Received: {name}={value!r}"
            )
