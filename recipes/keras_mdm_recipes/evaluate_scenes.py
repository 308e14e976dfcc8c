"""Measures a text-to-image run on shapes: do its pictures show what the captions say?

Called by `evaluate.py` for runs of `train_text_to_image.py`.
"""

import functools

import numpy as np

from keras_mdm_recipes import judging
from keras_mdm_recipes.sources import open_data

JUDGE_EPOCHS = 4


def check(dataset):
    """Raises a `ValueError` unless the run's captions can be judged."""
    if not dataset.startswith("shapes"):
        raise ValueError(
            "runs on text are judged on 'shapes' alone, where the attributes of each "
            f"caption are known. The run was trained on '{dataset}'."
        )


def read_real(source, resolution, count):
    """Pictures, captions and items of the first scenes of a source."""
    from keras_mdm.data import prepare_picture

    found = [source[i] for i in range(min(count, len(source)))]
    pictures = [prepare_picture(item["image"], resolution) for item in found]
    return (
        np.stack(pictures),
        [item["caption"] for item in found],
        [item["attributes"]["items"] for item in found],
    )


def train_judge(real, resolution, epochs):
    """A judge of one and of several shapes: whatever the run draws, it can count."""
    from keras_mdm.metrics import SceneJudge, to_cells

    judge = SceneJudge(resolution)
    judging.teach(
        judge,
        np.concatenate([pictures for pictures, *_ in real]),
        np.stack([to_cells(items) for *_, scenes in real for items in scenes]),
        epochs,
    )
    return judge


def read_scores(judge, pictures, scenes):
    """Fractions of right attributes of pictures, as the judge reads them."""
    from keras_mdm.metrics import score, summarize

    cells = judge.classify(pictures)
    return summarize(
        [score(cell, items) for cell, items in zip(cells, scenes, strict=True)]
    )


def measure(judge, drawn, real, scenes):
    """What the judge says of drawn and of real pictures of the same captions."""
    return {
        "drawn": read_scores(judge, drawn, scenes),
        "real_test": read_scores(judge, real, scenes),
    }


def report(result):
    names = ("attributes", "shape", "colour", "place", "count", "pictures")
    print("  fraction right " + "".join(f"{name:>11}" for name in names))
    for key, row in (("drawn", "drawn"), ("real_test", "judge on real")):
        values = "".join(f"{result[key][name]:>11.1%}" for name in names)
        print(f"  {row:<15}{values}")


def prepare(args, settings, mdm):
    """Trains the judge.

    Args:
        args: Flags of `evaluate.py`.
        settings: dict of the section `data` of the run's settings.
        mdm: `MDM`.

    Returns:
        Callable that draws, judges and reports; see `judging.evaluate_splits`.
    """

    own = "shapes/single" if settings["dataset"] == "shapes" else settings["dataset"]
    other = {"shapes/single": "shapes/scenes"}.get(own, "shapes/single")

    def read(split, count, name=own):
        source = open_data(settings, split, name)
        return read_real(source, mdm.resolution, count)

    real = [read("train", args.max_real, name) for name in (own, other)]
    judge = train_judge(real, mdm.resolution, args.judge_epochs)
    return functools.partial(
        judging.evaluate_splits, args, mdm, judge, real[0][0], read, measure, report
    )


def right(result):
    """Fraction of the attributes that are as asked for."""
    return result["drawn"]["attributes"]
