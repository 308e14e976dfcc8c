"""Averages chosen after training: snapshots of a run, `--ema`, and the sweep."""

import pathlib
import sys

from keras_mdm_recipes import start

KEPT = (0.05, 0.1)  # Lengths of the averages that training keeps.
SWEEP = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2)
_FOLDER = "averages"
_HELP = (
    "length sigma_rel of the average whose weights are used, such as 0.05, of a run "
    "with run.averages_every (default: the average that the run has saved)"
)


def add_flag(parser, sweep=False):
    """Adds the flag `--ema`; `sweep` is a value too for programs that compare."""
    if sweep:
        more = f"; 'sweep': a table of {', '.join(map(str, SWEEP))} and the saved one"
        parser.add_argument("--ema", type=_length, metavar="SIGMA", help=_HELP + more)
    else:
        parser.add_argument("--ema", type=float, metavar="SIGMA", help=_HELP)


def _length(text):
    return text if text == "sweep" else float(text)


def callbacks(settings, output):
    """The callbacks that write a run's snapshots, if the settings ask for them."""
    from keras_mdm.callbacks import AverageSnapshots
    from keras_mdm.paths import own_folder

    every = settings.run.averages_every
    if every is None:
        return []
    return [AverageSnapshots(own_folder(output, _FOLDER), every)]


def check(args, run):
    """Raises a `ValueError` if `--ema` is given, and a run has no snapshots."""
    folder = pathlib.Path(run) / _FOLDER
    if args.ema is not None and not any(folder.glob("*.npz")):
        raise ValueError(
            f"--ema {args.ema}: there are no snapshots of averages in '{folder}'. Runs "
            "write them with --set run.averages_every=STEPS."
        )


def take(mdm, run, length):
    """Gives a model the average of a length, if any; warns if it can't be made well."""
    if length is None:
        return
    folder = pathlib.Path(run) / _FOLDER
    error = mdm.load_average(folder, length)
    last = _last(run)
    if last is not None and not (folder / last).is_file():
        print(
            f"Warning: '{folder / last}' is missing, the snapshot of the end of "
            "training: the average is of what came before.",
            file=sys.stderr,
        )
    if error > 0.1:
        print(
            f"Warning: the snapshots are too few for an average of sigma_rel {length}: "
            f"its profile over training is missed by {error:.0%}.",
            file=sys.stderr,
        )


def _last(run):
    """Name of the last snapshot of a run, or `None` if its `config.json` has none."""
    try:
        stages = start.read_run(run)["stages"]
        return f"stage{len(stages)}_step{int(stages[-1]['steps'])}.npz"
    except (LookupError, TypeError, ValueError):
        return None


def sweep(mdm, run, measure, right):
    """Measures the average that a run has saved, and those of several lengths.

    Args:
        mdm: `MDM`, with the weights that the run has saved.
        run: Path of the run folder.
        measure: Callable that draws with the model's weights, and returns seconds and
            results, a dict of resolution or split to dict.
        right: Callable from such a dict to the fraction of right pictures.

    Returns:
        A pair: seconds, and results by length, with `"saved"`.
    """
    results, seconds = {}, 0.0
    for length in ("saved", *SWEEP):
        print(f"\nAverage {length}:")
        if length != "saved":
            take(mdm, run, length)
        taken, results[str(length)] = measure()
        seconds += taken
    for name in results["saved"]:
        print(
            f"\n{name}:\n  {'sigma_rel':<10}{'right':>8}{'frechet':>10}{'kernel':>12}"
        )
        for length, found in results.items():
            result = found[name]
            frechet, kernel = (result[key]["drawn"] for key in ("frechet", "kernel"))
            print(f"  {length:<10}{right(result):>8.1%}{frechet:>10.4g}{kernel:>12.4g}")
    return seconds, results
