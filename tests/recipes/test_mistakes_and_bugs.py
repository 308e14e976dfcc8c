"""A mistake of the user ends a recipe in a line; a bug keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras_mdm_recipes import start

from keras_mdm import Stage
from keras_mdm.data import open_source

pytestmark = pytest.mark.once


def ends(function):
    """The line that the recipe ended with, or the error that came through."""
    try:
        with start.errors_as_lines():
            function()
    except SystemExit as end:
        return end.code
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda: Stage(8, steps=0), "`steps` must be"),
        (lambda: open_source("folder:/no/such/folder"), "No such folder"),
        (lambda: open("/no/such/file"), "/no/such/file"),
        (lambda: __import__("no_such_package"), "no_such_package"),
    ],
)
def test_mistakes_end_in_a_line(mistake, told):
    line = ends(mistake)
    assert isinstance(line, str) and line.startswith("error: ") and told in line


def test_ctrl_c_ends_in_a_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert ends(interrupted) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_sigterm_ends_in_a_line_that_says_how_to_go_on(capsys):
    def interrupted():
        start.choose_backend(keras.backend.backend(), "none")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except SystemExit as end:
            end.add_note("Go on.")
            raise

    assert ends(interrupted) == 143
    assert capsys.readouterr().err.endswith("\nInterrupted. Go on.\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_interrupt_that_python_would_drop():
    code = """
import gc, os, signal
from keras_mdm_recipes import start
gc.callbacks.append(lambda *_: signal.raise_signal(signal.SIGINT))
with start.errors_as_lines():
    gc.collect()
    print("went on")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(start.FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\nInterrupted.\n"


def out_of_disk():
    raise OSError(errno.EIO, "the device broke")


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        (lambda: np.zeros(3) + np.zeros(4), ValueError),
        (lambda: np.zeros(3).reshape(2, 2), ValueError),
        (lambda: int("a"), ValueError),
        (lambda: list(zip([1], [], strict=True)), ValueError),
        (lambda: {}["a"], KeyError),
        (lambda: None.a, AttributeError),
        (lambda: Stage(), TypeError),
        # Within the package, but not in its words.
        (lambda: Stage(8, steps=2).rounds(1), TypeError),
        (out_of_disk, OSError),
    ],
)
def test_bugs_keep_their_traceback(bug, kind):
    assert isinstance(ends(bug), kind)
