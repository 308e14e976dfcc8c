"""What the tools share with the recipes, beside which they lie in a checkout."""

import functools
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path.append(str(FOLDER.parent / "recipes"))

from keras_mdm_recipes import plot, start  # noqa: E402

# A foreseen mistake ends a tool with a line, a bug with its traceback.
errors_as_lines = functools.partial(start.errors_as_lines, folder=FOLDER)
BACKENDS = start.BACKENDS
choose_backend = start.choose_backend
make_parser = start.make_parser
agg_pyplot = plot.agg_pyplot
is_foreseen = functools.partial(start.is_foreseen, folder=FOLDER)


def tensor_bar(doing):
    """A progress bar for the converters.

    Args:
        doing: str. What is done, such as `"reading"`.

    Returns:
        Callable of the number of tensors that are done and of all.
    """
    from tqdm import tqdm

    bar = tqdm(desc=doing, unit=" tensors")

    def update(done, total):
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update
