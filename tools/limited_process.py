"""Python processes that are ended at a time limit. For `check_device.py`."""

import contextlib
import os
import signal
import subprocess
import sys


class TooLong(Exception):
    """A step did not end within its limit."""


class Failed(Exception):
    """A step ended with an error."""


def run(command, limit, environment, folder):
    """Output of a process, which is ended with those it started at its limit.

    Args:
        command: Sequence of what Python is given: str, paths and numbers.
        limit: float. Seconds.
        environment: dict, added to that of this process.
        folder: Path in which it runs.

    Returns:
        str. What it printed.

    Raises:
        TooLong: if it was ended.
        Failed: with the last line of its errors.
    """
    if limit <= 0:
        raise TooLong("no time was left")
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise TooLong(f"not done in {limit:.0f} s") from None
    finally:
        # A recipe has processes of its own, which read pictures.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        lines = (errors.strip() or output.strip() or "no output").splitlines()
        raise Failed(f"failed ({process.returncode}): {lines[-1][:200]}")
    return output
