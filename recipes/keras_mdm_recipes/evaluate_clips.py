"""Measures a text-to-video run on moving shapes: do its clips show what captions say?

Called by `evaluate.py` for runs of `train_video.py`.
"""

import functools

import numpy as np

from keras_mdm_recipes import judging
from keras_mdm_recipes.sources import open_data

JUDGE_EPOCHS = 4


def check(dataset):
    """Raises a `ValueError` unless the run's clips can be judged."""
    if dataset != "shapes/clips":
        raise ValueError(
            "clips are judged on 'shapes/clips' alone, where it is known what moves "
            f"where in each clip. The run was trained on '{dataset}'."
        )


def read_real(source, level, count):
    """Clips, captions and labels of the first clips of a source."""
    from keras_mdm.data import at_level, prepare_picture
    from keras_mdm.levels import read_level
    from keras_mdm.metrics import to_label

    source, size = at_level(source, level), read_level(level)[1]
    found = [source[i] for i in range(min(count, len(source)))]
    return (
        np.stack([prepare_picture(item["video"], size) for item in found]),
        [item["caption"] for item in found],
        np.stack([to_label(item["attributes"]) for item in found]),
    )


def shuffle_frames(clips):
    """The clips with the frames of each in another order."""
    rng = np.random.default_rng(0)
    return np.stack([clip[rng.permutation(len(clip))] for clip in clips])


def fractions_right(judge, clips, labels):
    """Fraction of the clips of which each attribute is read right, and all of them."""
    from keras_mdm.metrics import CLIP_ATTRIBUTES

    right = judge.classify(clips) == labels
    result = dict(zip(CLIP_ATTRIBUTES, right.mean(axis=0).tolist(), strict=True))
    return {**result, "clips": float(right.all(axis=1).mean())}


def measure(judge, drawn, real, labels):
    """What the judge says of drawn and of real clips of the same captions."""
    from keras_mdm.metrics import frame_change

    result = {"fractions": {}, "frame_change": {}}
    shown = {"drawn": drawn, "real_test": real}
    # The control: clips whose frames are as good, and whose motion is not.
    shown |= {f"{key}_shuffled": shuffle_frames(clips) for key, clips in shown.items()}
    for key, clips in shown.items():
        result["fractions"][key] = fractions_right(judge, clips, labels)
        result["frame_change"][key] = frame_change(judge.frame_features(clips))
    return result


def report(result):
    fractions = result["fractions"]
    names = list(fractions["drawn"])
    print(
        f"  {'fraction right':<17}" + "".join(f"{name:>11}" for name in names), end=""
    )
    print(f"{'frame change':>14}")
    for key, row in (
        ("drawn", "drawn"),
        ("real_test", "judge on real"),
        ("drawn_shuffled", "drawn, shuffled"),
        ("real_test_shuffled", "real, shuffled"),
    ):
        values = "".join(f"{fractions[key][name]:>11.1%}" for name in names)
        print(f"  {row:<17}{values}{result['frame_change'][key]:>14.3f}")


def prepare(args, settings, mdm):
    """Trains the judge; see `evaluate_scenes.prepare`."""
    from keras_mdm.levels import read_level
    from keras_mdm.metrics import ClipJudge

    level = mdm.resolution

    def read(split, count):
        source = open_data(settings, split)
        return read_real(source, level, count)

    reference, _, labels = read("train", args.max_real)
    judge = ClipJudge(*read_level(level))
    judging.teach(judge, reference, labels, args.judge_epochs)
    return functools.partial(
        judging.evaluate_splits, args, mdm, judge, reference, read, measure, report
    )


def right(result):
    """Fraction of the clips of which all is as asked for."""
    return result["fractions"]["drawn"]["clips"]
