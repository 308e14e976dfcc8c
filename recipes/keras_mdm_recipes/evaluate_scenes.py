"""Measures a text-to-image run on shapes: do its pictures show what the captions say?

Called by `evaluate.py` for runs of `train_text_to_image.py`.
"""

import numpy as np

from keras_mdm_recipes import judging

# Splits of captions that training has not seen, and what they are called.
SPLITS = {"test": "seen combinations", "test_held_out": "held-out combinations"}
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


def train_judge(sources, resolution, count, epochs):
    """A judge of one and of several shapes; also returns its first training pictures.

    Whatever the run draws, the judge has learned to count.
    """
    from keras_mdm.metrics import SceneJudge, to_cells

    real = [read_real(source, resolution, count) for source in sources]
    judge = SceneJudge(resolution)
    judging.teach(
        judge,
        np.concatenate([pictures for pictures, *_ in real]),
        np.stack([to_cells(items) for *_, scenes in real for items in scenes]),
        epochs,
    )
    return judge, real[0][0]


def read_scores(judge, pictures, scenes):
    """Shares of right attributes of pictures, as the judge reads them."""
    from keras_mdm.metrics import score, summarize

    cells = judge.classify(pictures)
    return summarize(
        [score(cell, items) for cell, items in zip(cells, scenes, strict=True)]
    )


def measure(judge, drawn, real, scenes, base):
    """What the judge says of drawn and of real pictures of the same captions."""
    return {
        "captions": len(drawn),
        "drawn": read_scores(judge, drawn, scenes),
        "real_test": read_scores(judge, real, scenes),
        **judging.measure_distances(judge, drawn, real, base),
    }


def report(title, resolution, result):
    names = ("attributes", "shape", "colour", "place", "count", "pictures")
    print(f"\n{resolution} pixels, {result['captions']} captions, {title}:")
    print("  share right    " + "".join(f"{name:>11}" for name in names))
    for key, row in (("drawn", "drawn"), ("real_test", "judge on real")):
        shares = "".join(f"{result[key][name]:>11.1%}" for name in names)
        print(f"  {row:<15}{shares}")
    judging.print_distances(result)


def evaluate(args, settings, mdm):
    """Draws, judges and reports.

    Args:
        args: Flags of `evaluate.py`.
        settings: dict of the section `data` of the run's settings.
        mdm: `MDM`.

    Returns:
        A pair: seconds of drawing, and results by split.
    """
    from keras_mdm import data

    def open_split(name, split):
        return data.open_source(name, split, settings["data_dir"])

    own = "shapes/single" if settings["dataset"] == "shapes" else settings["dataset"]
    other = {"shapes/single": "shapes/scenes"}.get(own, "shapes/single")
    judge, reference = train_judge(
        [open_split(own, "train"), open_split(other, "train")],
        mdm.resolution,
        args.max_real,
        args.judge_epochs,
    )
    base = judge.features(reference)
    results, seconds = {}, 0.0
    for split, title in SPLITS.items():
        real, captions, scenes = read_real(
            open_split(own, split), mdm.resolution, args.num_samples
        )
        drawn, taken = judging.draw(args, mdm, captions)
        seconds += taken
        results[split] = measure(judge, drawn, real, scenes, base)
        report(title, mdm.resolution, results[split])
    return seconds, results
