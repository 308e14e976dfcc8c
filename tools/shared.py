"""What the tools share with the recipes, beside which they lie in a checkout."""

import functools
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path.append(str(FOLDER.parent / "recipes"))

from keras_mdm_recipes import start  # noqa: E402

# A foreseen mistake ends a tool with a line, a bug with its traceback.
errors_as_lines = functools.partial(start.errors_as_lines, folder=FOLDER)
choose_backend = start.choose_backend
is_foreseen = functools.partial(start.is_foreseen, folder=FOLDER)
