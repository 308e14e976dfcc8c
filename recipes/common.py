"""What the recipes share: choice of the backend, run folders, labels, curves.

Nothing here imports Keras at the top: the backend must be chosen before that.
"""

import argparse
import csv
import importlib.util
import json
import math
import os
import pathlib
import sys
import time
import traceback

BACKENDS = ("jax", "tensorflow", "torch")


def call(function, *args):
    """Calls what a recipe does; an error that was foreseen ends it with one line.

    Errors that nobody foresaw are bugs and keep their traceback.
    """
    try:
        function(*args)
    except Exception as error:
        if not is_foreseen(error):
            raise
        sys.exit(f"error: {error}")


def is_foreseen(error):
    """Whether an error tells the user of a mistake, not of a bug.

    It does if a `raise` of the package or of a recipe made it, with words for the user,
    or if the system refused a file by its name.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return True
    if isinstance(error, ModuleNotFoundError):
        # One that is not installed.
        return (error.name or "").partition(".")[0] != "keras_mdm"
    if not isinstance(error, (ValueError, OSError, ImportError, ArithmeticError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    package = importlib.util.find_spec("keras_mdm").submodule_search_locations
    folders = [pathlib.Path(__file__).parent, *map(pathlib.Path, package)]
    ours = any(folder in pathlib.Path(last.filename).parents for folder in folders)
    return ours and (last.line or "").startswith("raise ")


class HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Shows the defaults of flags, and a module's docstring as it was written."""

    def _get_help_string(self, action):
        # "default: None" says nothing: those flags explain it in words.
        if action.default is None or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


def backend_choices(parser):
    """Adds the flag `--backend`."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="Keras backend (default: that of KERAS_BACKEND, or else the first "
        "installed of jax, tensorflow, torch)",
    )


def choose_backend(name, preset=None):
    """Sets the Keras backend, and this process for it, before Keras is imported.

    Args:
        name: str or `None` for a choice by what is installed.
        preset: Preset or run that will be computed with, or `None` for a small one.

    Returns:
        The backend's name.
    """
    # Names of folders need not be text that the terminal can show.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    name = name or os.environ.get("KERAS_BACKEND")
    if name is None:
        installed = [b for b in BACKENDS if importlib.util.find_spec(b)]
        if not installed:
            sys.exit("error: no backend is installed; try `pip install jax`.")
        name = installed[0]
    if importlib.util.find_spec(name) is None:
        sys.exit(f"error: backend '{name}' is not installed; try `pip install {name}`.")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN off on CPUs without AVX-512, where it is faster too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if name == "jax":
        # Compiled functions are kept, so that a second run starts sooner.
        cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        os.environ.setdefault(
            "JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "keras_mdm", "jax")
        )
    return name


def read_run(folder):
    """`config.json` of a run folder as a dict; empty if there is none."""
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file() or not (path.parent / "preset").is_dir():
        return {}
    return read_json(path)


def read_json(path):
    """A JSON file as a dict, with or without the byte order mark that editors write."""
    # Not by the package, which would import Keras before its backend is chosen.
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: it is not JSON. {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' is damaged: it is no JSON object.")
    return value


def spread_labels(num_samples, num_classes):
    """Labels for a grid: classes in turn, or some from all over if they don't fit.

    Args:
        num_samples: int.
        num_classes: int.

    Returns:
        List of `num_samples` int.
    """
    stride = 1
    if num_samples < num_classes:
        # Neighbouring classes are often alike: colours of a shape, breeds of a dog.
        stride = max(1, num_classes // 4)
        while math.gcd(stride, num_classes) != 1:
            stride += 1
    return [i * stride % num_classes for i in range(num_samples)]


def path(text):
    """A file or folder that was given as a flag; `~` is the user's home folder."""
    return os.path.expanduser(text)


def level(text):
    """A resolution that was given as a flag: `64`, or `"8x64"` with frames."""
    return int(text) if text.isdecimal() else text


def class_title(label, class_names):
    """Name of a class, or its number."""
    return class_names[label] if class_names else str(label)


def draw(args, mdm, *captions, **options):
    """Draws as the flags of `evaluate.py` say.

    Args:
        args: Flags of `evaluate.py`.
        mdm: `MDM`.
        *captions: List of str, unless labels are drawn from.
        **options: Arguments of `MDM.generate` that are no flags.

    Returns:
        A pair: what `MDM.generate` returns, and the seconds that it took.
    """
    start = time.perf_counter()
    drawn = mdm.generate(
        *captions,
        **options,
        seed=args.seed,
        batch_size=args.batch_size,
        sampler=args.sampler,
        num_steps=args.num_steps,
        guidance_scale=args.guidance_scale,
    )
    return drawn, time.perf_counter() - start


def teach(judge, real, labels, epochs):
    """Trains a judge, which takes minutes, in view of the user."""
    what = "clips" if real.ndim == 5 else "pictures"
    print(f"\nThe judge learns from {len(real)} real {what}:", flush=True)
    judge.fit(real, labels, epochs=epochs, progress=True)


def measure_distances(judge, drawn, real, base):
    """Distances of pictures or clips from real ones, in the features of a judge.

    Args:
        judge: `keras_mdm.metrics.Judge`.
        drawn: uint8 array of drawn pictures.
        real: uint8 array of real ones that the judge has not seen: the floor.
        base: Features of the real ones from which all are measured.

    Returns:
        dict with `frechet` and `kernel`, each a dict of float: `drawn`, `real_test` and
        `noise`, the ceiling.
    """
    import numpy as np

    from keras_mdm import metrics

    noise = np.random.default_rng(0).integers(0, 256, drawn.shape).astype("uint8")
    features = {
        "drawn": judge.features(drawn),
        "real_test": judge.features(real),
        "noise": judge.features(noise),
    }
    return {
        name: {key: distance(value, base) for key, value in features.items()}
        for name, distance in (
            ("frechet", metrics.frechet_distance),
            ("kernel", metrics.kernel_distance),
        )
    }


def print_distances(result):
    """Prints the feature distances that `evaluate.py` measured, with floor and ceiling.

    Args:
        result: dict with `frechet` and `kernel`.
    """
    for name in ("frechet", "kernel"):
        values = result[name]
        print(
            f"  {name} distance {values['drawn']:.4g}"
            f"  (real test ones {values['real_test']:.4g}, "
            f"noise {values['noise']:.4g})"
        )


def plot_losses(history, path):
    """Draws the loss of each resolution over all stages.

    Args:
        history: Path of `history.csv`.
        path: Path of the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from keras_mdm.files import whole_file

    with open(history, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    ends, steps, before = {}, [], 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        steps.append(before + int(row["step"]))
        if following is None or following["stage"] != row["stage"]:
            before = steps[-1]
            ends[row["stage"]] = (row["resolution"], before)
    for key in [key for key in rows[0] if key.startswith("loss_")]:
        points = [
            (step, float(row[key]))
            for step, row in zip(steps, rows, strict=True)
            if row[key]
        ]
        if points:
            marker = "o" if len(points) == 1 else None
            label = f"{key.removeprefix('loss_')} pixels"
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
    for resolution, end in ends.values():
        axes.axvline(end, color="0.8", linewidth=1, zorder=0)
        axes.annotate(
            f"stage of {resolution} px",
            (end, 0.98),
            xycoords=("data", "axes fraction"),
            # Upright: stages may end close to each other.
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
        )
    axes.set(xlabel="steps", ylabel="mean squared error", yscale="log")
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
