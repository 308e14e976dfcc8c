"""Measures a run: do its pictures show what was asked for?

    keras-mdm evaluate runs/digits --num-samples 500
    keras-mdm evaluate runs/sentences

Of a class-conditional run it draws pictures of all classes alike. At each resolution, a
small classifier (the judge) is trained on the real training pictures; printed are its
accuracy on real test pictures it has not seen, the fraction of drawn pictures it reads
as the class asked for, and the Frechet and the kernel distance (KID) from the training
pictures in the judge's features, with those of real test pictures (as low as one can
hope for) and of noise beside. All of it goes into `evaluation.json` in the run folder.

Of a run of train_text_to_image.py on shapes it draws captions of the test split, and of
`test_held_out`, whose combinations of colour, shape and place training never had; the
judge reads shapes, colours, places and their number at the largest resolution. Of a run
of train_video.py on shapes/clips, whose clips are drawn from captions likewise, a judge
of clips reads shape, colour and direction of motion, and tells how much changes from
frame to frame; as a control it is asked about the same clips with shuffled frames.

With `--fid` or `--clip-score` no judge is trained: 50,000 pictures are drawn and FID is
measured from the statistics that `keras-mdm fid-statistics` wrote, or how well a CLIP
model finds captions of the test split matched. Both need `pip install keras-mdm[fid]`.

Of a run with run.averages_every, --ema takes the average of another length, and
--ema sweep compares several: `evaluation_sweep.json` has all of it by sigma_rel.

The judge knows only these classes: it tells whether a class can be recognised, not
whether a picture is beautiful.
"""

import dataclasses
import functools
import json
import operator
import pathlib

import numpy as np

from keras_mdm_recipes import (
    averages,
    command_line,
    drawing,
    evaluate_clips,
    evaluate_field,
    evaluate_scenes,
    fid,
    judging,
    outside,
    start,
)
from keras_mdm_recipes.labels import check_classes, class_title
from keras_mdm_recipes.settings import Settings
from keras_mdm_recipes.sources import LIMITS_HELP, open_data

JUDGE_EPOCHS = 15
NUM_SAMPLES = 500


def parse_arguments(arguments=None):
    parser = start.make_parser(__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", type=start.path, help="run folder of a training recipe")
    add(
        "--num-samples",
        type=int,
        help="pictures drawn, of all classes or of a split's captions (default: "
        f"{NUM_SAMPLES}, with --fid {fid.NUM_SAMPLES})",
    )
    add(
        "--fid",
        metavar="FILE",
        type=start.path,
        help="statistics (.npz) of real pictures to measure FID from",
    )
    add(
        "--clip-score",
        metavar="MODEL",
        help="CLIP model of the hub, or folder, that scores captions, such as "
        "openai/clip-vit-base-patch16",
    )
    add("--seed", type=int, default=1000, help="of the pictures drawn")
    add("--batch-size", type=int, default=100, help="pictures drawn at once")
    add("--dataset", help="data set of real pictures (default: that of the run)")
    add("--data-dir", type=start.path, help="where TFDS keeps it (default: the run's)")
    add("--limits", type=start.limits, help=f"{LIMITS_HELP} (default: the run's)")
    add("--test-split", default="test", help="split of the real test pictures")
    add("--max-real", type=int, default=8000, help="cap on real pictures of a split")
    add(
        "--judge-epochs",
        type=int,
        help=f"passes that train the judge (default: {JUDGE_EPOCHS} for classes, "
        f"{evaluate_scenes.JUDGE_EPOCHS} for scenes, {evaluate_clips.JUDGE_EPOCHS} for "
        "clips)",
    )
    drawing.add_flags(parser, sweep=True)
    args = parser.parse_args(arguments)
    if args.num_samples is None:
        args.num_samples = NUM_SAMPLES if args.fid is None else fid.NUM_SAMPLES
    return args


def read_real(source, resolution, channels, count, upscale):
    """Up to `count` real pictures and their labels, as arrays."""
    from keras_mdm import data

    batch_size = min(20, len(source))
    dataset = data.make_dataset(
        source,
        resolution,
        batch_size,
        shuffle=len(source) > count,
        upscale=upscale,
        channels=channels,
    )
    batches, found = [], 0
    for batch in dataset:
        batches.append(batch)
        found += batch_size
        if found >= count:
            break
    return tuple(
        np.concatenate([batch[key] for batch in batches])[:count]
        for key in ("images", "labels")
    )


def measure(judge, drawn, wanted, train, test):
    """Accuracies and distances at one resolution, as a dict of plain values."""
    seen = judge.classify(drawn)
    return {
        "judge_accuracy_real": judge.accuracy(*test),
        "accuracy": float(np.mean(seen == wanted)),
        "per_class": {
            int(label): float(np.mean(seen[wanted == label] == label))
            for label in np.unique(wanted)
        },
        "pictures": {
            "drawn": len(drawn),
            "real_train": len(train[0]),
            "real_test": len(test[0]),
        },
        **judging.measure_distances(judge, drawn, test[0], judge.features(train[0])),
    }


def report(resolution, result, class_names):
    real = result["judge_accuracy_real"]
    print(
        f"\n{resolution} pixels: {result['accuracy']:.1%} of "
        f"{result['pictures']['drawn']} drawn pictures are read as the class asked "
        f"for; the judge reads {real:.1%} of "
        f"{result['pictures']['real_test']} unseen real ones right."
    )
    entries = [
        f"{class_title(label, class_names)} {right:.0%}"
        for label, right in result["per_class"].items()
    ]
    width = max(map(len, entries)) + 2
    columns = max(1, 80 // width)
    for begin in range(0, len(entries), columns):
        row = entries[begin : begin + columns]
        print("  " + "".join(f"{entry:<{width}}" for entry in row).rstrip())
    judging.print_distances(result)


def check_num_samples(args, mdm):
    """Raises a `ValueError` unless pictures of all classes can be drawn."""
    num_classes = mdm.batch_spec.num_classes
    if num_classes is None:
        raise ValueError(f"the model of '{args.run}' is not conditional.")
    if args.num_samples < num_classes:
        raise ValueError(
            f"--num-samples must be at least the {num_classes} classes. "
            f"Received: {args.num_samples}"
        )


def prepare_classes(args, settings, mdm, class_names):
    """Trains a judge of each resolution for a class-conditional run.

    Returns:
        Callable that draws, judges and reports, and returns a pair: seconds of drawing,
        and results by resolution.
    """
    from keras_mdm import metrics

    num_classes = mdm.batch_spec.num_classes
    splits = (settings["split"], args.test_split)
    sources = [open_data(settings, split) for split in splits]
    for source in sources:
        check_classes(settings["dataset"], class_names or [], source.class_names or [])
    judges, channels = {}, mdm.network.image_channels
    for resolution in sorted(mdm.resolutions):
        train, test = (
            read_real(source, resolution, channels, args.max_real, settings["upscale"])
            for source in sources
        )
        judge = metrics.Judge(resolution, channels, num_classes)
        judging.teach(judge, *train, args.judge_epochs)
        judges[resolution] = judge, train, test
    each = args.num_samples // num_classes
    wanted = np.repeat(np.arange(num_classes), each)

    def run():
        pyramid, seconds = drawing.draw(
            args,
            mdm,
            labels=list(range(num_classes)),
            num_samples=each,
            return_pyramid=True,
        )
        results = {}
        for resolution, (judge, train, test) in judges.items():
            drawn = pyramid[resolution]
            results[resolution] = measure(judge, drawn, wanted, train, test)
            report(resolution, results[resolution], class_names)
        return seconds, results

    return run


def data_settings(args, config):
    """The section `data` of a run's settings as a dict, with what flags replace.

    Raises:
        ValueError: if they are damaged, or name what only the user may.
    """
    names = ("dataset", "data_dir", "limits")
    flags = {f"data.{name}": getattr(args, name) for name in names}
    named = {key: value for key, value in flags.items() if value is not None}
    file = start.config_of(args.run)
    values = command_line.read_config(config.get("recipe"), file)
    used = {key: values[key] for key in flags if key in values}
    outside.check(file, used, named, "--dataset, --data-dir and --limits")
    return dataclasses.asdict(Settings.of(values | named).data)


def evaluate(args):
    config = start.read_run(args.run)
    if not config:
        raise ValueError(
            f"'{args.run}' is not a finished run: it lacks config.json or preset/."
        )
    start.check_writable(args.run)
    settings = data_settings(args, config)
    mdm = drawing.load_model(args, args.run)
    length = None if args.ema == "sweep" else args.ema
    take = functools.partial(averages.take, mdm, args.run, length)

    from keras_mdm import files
    from keras_mdm.levels import read_level

    if args.fid is not None or args.clip_score is not None:
        evaluate_field.check(args, mdm)
        take()
        run = functools.partial(evaluate_field.evaluate, args, settings, mdm)
    elif mdm.batch_spec.text is not None:
        draws_clips = read_level(mdm.resolution)[0] > 1
        judged = evaluate_clips if draws_clips else evaluate_scenes
        if args.judge_epochs is None:
            args.judge_epochs = judged.JUDGE_EPOCHS
        judged.check(settings["dataset"])
        take()
        right, run = judged.right, judged.prepare(args, settings, mdm)
    else:
        args.judge_epochs = args.judge_epochs or JUDGE_EPOCHS
        check_num_samples(args, mdm)
        take()
        right = operator.itemgetter("accuracy")
        run = prepare_classes(args, settings, mdm, config.get("class_names"))
    name = "evaluation.json"
    if args.ema == "sweep":
        name = "evaluation_sweep.json"
        seconds, results = averages.sweep(mdm, args.run, run, right)
    else:
        seconds, results = run()
    path = pathlib.Path(args.run) / name
    arguments = {key: value for key, value in vars(args).items() if key != "run"}
    found = {"arguments": arguments, "drawing_seconds": seconds, "results": results}
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    print(f"\nDrawing took {seconds:.0f} s. Written to {path}")


def main(arguments=None):
    args = parse_arguments(arguments)
    with start.errors_as_lines():
        evaluate(args)
