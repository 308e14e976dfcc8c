"""What the tools share with the recipes, beside which they lie in a checkout."""

import functools
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path.append(str(FOLDER.parent / "recipes"))

from keras_mdm_recipes import plot, sources, start  # noqa: E402

# A foreseen mistake ends a tool with a line, a bug with its traceback.
errors_as_lines = functools.partial(start.errors_as_lines, folder=FOLDER)
BACKENDS = start.BACKENDS
choose_backend = start.choose_backend
make_parser = start.make_parser
limits = start.limits
LIMITS_HELP = sources.LIMITS_HELP
open_data = sources.open_data
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


def read_captioned(folder, resolution, *splits):
    """Pictures of a folder with captions, as they are trained on at a resolution.

    Returns:
        A tuple: uint8 array `(n, resolution, resolution, 3)`, the list of what the
        source says of each, and the number of classes or `None`.
    """
    import numpy as np

    from keras_mdm import data

    sources = [data.open_source(f"folder:{folder}", split) for split in splits]
    for source in sources:
        source.require_captions(f"'{folder}'")
    items = [source[i] for source in sources for i in range(len(source))]
    pictures = [
        data.prepare_picture(item["image"], resolution, upscale=True) for item in items
    ]
    return np.stack(pictures), items, sources[0].num_classes


def text_model(name):
    """The `MDM` of a preset or run, which must draw from text."""
    import keras_mdm

    mdm = keras_mdm.MDM.from_preset(name)
    if mdm.batch_spec.text is None:
        raise ValueError(f"'{name}' does not draw from text.")
    return mdm
