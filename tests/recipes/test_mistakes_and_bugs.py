"""A mistake of the user ends a recipe in a line; a bug keeps its traceback."""

import errno

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
