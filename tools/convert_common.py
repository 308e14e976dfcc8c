"""Progress of the converters."""

import sys
import time


class Progress:
    """One line on the standard error that says how many tensors are done."""

    def __init__(self, doing):
        self._doing = doing
        self._shown = 0.0

    def __call__(self, done, total):
        now = time.monotonic()
        if done < total and now - self._shown < 0.2:
            return
        self._shown = now
        end = "\n" if done == total else ""
        print(
            f"\r{self._doing}: {done} of {total} tensors",
            end=end,
            file=sys.stderr,
            flush=True,
        )
