"""Writing without which training goes on."""

import contextlib
import sys


class Attempts:
    """Says once, until writing succeeds again, that the disk is full or can't be
    written to for another reason.

    Args:
        what: str. What is written.
        otherwise: str. What becomes of training without.
        errors: Class of the errors that are told.
    """

    def __init__(
        self,
        what,
        otherwise="Training goes on, and it is tried again.",
        errors=OSError,
    ):
        self.what, self.otherwise, self.errors = what, otherwise, errors
        self.told = False

    @contextlib.contextmanager
    def going_on(self):
        """Within it an error is told, and ends the block alone."""
        try:
            yield
            self.told = False
        except self.errors as error:
            if not self.told:
                print(
                    f"\n{self.what} could not be written ({error}). {self.otherwise}",
                    file=sys.stderr,
                    flush=True,
                )
            self.told = True
