"""Places in training data, so that a training that was stopped goes on at its batch.

Batches are read before they are trained on, by workers, ahead of the device, or for a
step that an interrupt forestalls. So the place after each one is kept until its step
has ended.
"""

import collections
import itertools

# Before the first batch.
START = {"taken": 0, "epoch": None, "state": None}


class Places:
    """The places after the batches of one call of `fit`.

    A place is a dict of JSON values: `taken`, the number of batches of the pass that
    lie before it (of an iterator, such as a generator, of all that do), `epoch`, the
    number of the pass where the data count them, and `state` of their iterator, or
    `None` where it has none.

    Args:
        data: Data set as the user gave it.
        read_once: bool. Whether it is an iterator.
    """

    def __init__(self, data, read_once):
        self._data = data
        self._read_once = read_once
        self._known = None
        self._next = START
        self._anew = False
        self._passed = 0

    def begin(self, place, anew):
        """Must be called before the first pass; places are noted from then on.

        Args:
            place: dict. Where the first pass begins.
            anew: bool. Whether the data were made anew since then: an iterator is at
                its start, not where it was left.
        """
        self._next, self._anew = place, anew
        self._known, self._passed = collections.deque([place]), 0

    def after(self, count):
        """The place after so many batches since `begin`; earlier ones are forgotten."""
        while self._passed < count:
            self._known.popleft()
            self._passed += 1
        return self._known[0]

    def next_pass(self):
        """The place at which a new pass begins, now that one has ended."""
        return {**START, "epoch": getattr(self._data, "epoch", None)}

    def describe(self, back=0):
        """Which batch a step took, in words: the last one, whose end is not noted yet,
        or one so many steps before.
        """
        place = self._known[0] if self._known else START
        number = place["taken"] + 1 - back
        if not self._known or number < 1:
            return "of a place in the data that is not known any more"
        epoch = place["epoch"]
        return f"number {number}" + ("" if epoch is None else f" of pass {epoch + 1}")

    @property
    def next_number(self):
        """Number of the batch with which the next pass begins."""
        return self._next["taken"]

    def noted(self, make_elements, length):
        """Yields elements of one pass from its place on; notes the place after each.

        Args:
            make_elements: Callable without arguments that returns an iterator.
            length: int or `None`. Number of elements of a whole pass.
        """
        place, self._next = self._next, START
        if place["epoch"] is not None:
            self._data.epoch = place["epoch"]
        epoch, taken = getattr(self._data, "epoch", None), place["taken"]
        elements = make_elements()
        _go_to(elements, place, self._read_once and not self._anew)
        self._anew = False
        for element in elements:
            taken += 1
            if self._known is not None:
                state = _state_of(elements)
                noted = {"taken": taken, "epoch": epoch, "state": state}
                self._known.append(noted if taken != length else self.next_pass())
            yield element
        if self._known and not self._read_once:
            self._known[-1] = self.next_pass()


def _go_to(elements, place, is_there):
    """Moves an iterator of a new pass to a place."""
    taken = place["taken"]
    if is_there or not taken:
        return
    if place["state"] is not None:
        try:
            elements.set_state(place["state"])
        # Whatever it does to the iterator of other data.
        except Exception as error:
            raise ValueError(
                "the place in the data at which the training was stopped is none of "
                f"these data: {type(error).__name__}: {error}"
            ) from error
    elif hasattr(elements, "skip"):  # Of `make_dataset`.
        elements.skip(taken)
    else:
        found = sum(1 for _ in itertools.islice(elements, taken))
        if found < taken:
            raise ValueError(
                f"the training data ended after {found} batches, and {taken} were "
                "taken before the training was stopped: go on with the same data."
            )


def _state_of(elements):
    """What a grain iterator is set to its place with, or `None`."""
    if not hasattr(elements, "set_state"):
        return None
    state = elements.get_state()
    return state if isinstance(state, dict) else None
