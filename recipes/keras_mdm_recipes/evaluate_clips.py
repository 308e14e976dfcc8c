"""Measures a text-to-video run on moving shapes: do its clips show what captions say?

Called by `evaluate.py` for runs of `train_video.py`.
"""

import numpy as np

from keras_mdm_recipes import judging
from keras_mdm_recipes.evaluate_scenes import SPLITS

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


def shares_right(judge, clips, labels):
    """Share of the clips of which each attribute is read right, and all of them."""
    from keras_mdm.metrics import CLIP_ATTRIBUTES

    right = judge.classify(clips) == labels
    result = dict(zip(CLIP_ATTRIBUTES, right.mean(axis=0).tolist(), strict=True))
    return {**result, "clips": float(right.all(axis=1).mean())}


def measure(judge, drawn, real, labels, base):
    """What the judge says of drawn and of real clips of the same captions."""
    from keras_mdm.metrics import frame_change

    result = {
        "captions": len(drawn),
        "shares": {},
        "frame_change": {},
        **judging.measure_distances(judge, drawn, real, base),
    }
    shown = {"drawn": drawn, "real_test": real}
    # The control: clips whose frames are as good, and whose motion is not.
    shown |= {f"{key}_shuffled": shuffle_frames(clips) for key, clips in shown.items()}
    for key, clips in shown.items():
        result["shares"][key] = shares_right(judge, clips, labels)
        result["frame_change"][key] = frame_change(judge.frame_features(clips))
    return result


def report(title, level, result):
    print(f"\n{level}, {result['captions']} captions, {title}:")
    names = list(result["shares"]["drawn"])
    print(f"  {'share right':<17}" + "".join(f"{name:>11}" for name in names), end="")
    print(f"{'frame change':>14}")
    for key, row in (
        ("drawn", "drawn"),
        ("real_test", "judge on real"),
        ("drawn_shuffled", "drawn, shuffled"),
        ("real_test_shuffled", "real, shuffled"),
    ):
        shares = "".join(f"{result['shares'][key][name]:>11.1%}" for name in names)
        print(f"  {row:<17}{shares}{result['frame_change'][key]:>14.3f}")
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
    from keras_mdm.levels import read_level
    from keras_mdm.metrics import ClipJudge

    level = mdm.resolution

    def read(split, count):
        source = data.open_source(settings["dataset"], split, settings["data_dir"])
        return read_real(source, level, count)

    reference, _, labels = read("train", args.max_real)
    judge = ClipJudge(*read_level(level))
    judging.teach(judge, reference, labels, args.judge_epochs)
    base = judge.features(reference)
    results, seconds = {}, 0.0
    for split, title in SPLITS.items():
        real, captions, labels = read(split, args.num_samples)
        drawn, taken = judging.draw(args, mdm, captions)
        seconds += taken
        results[split] = measure(judge, drawn, real, labels, base)
        report(title, level, results[split])
    return seconds, results
