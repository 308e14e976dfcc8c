"""Kills a training recipe at random moments, resumes it, and compares what it leaves.

    python tools/kill_training.py --kills 50 --backend jax --output killed

A recipe of two stages runs once without a kill. Then it runs again, is ended by SIGKILL
(by the clock: by SIGALRM, whose default ends a process as well) at moments drawn from a
seed, in the middle of a step or of one of each kind of write, and goes on with
`--resume` after each, until it ends by itself; and so on until there were so many
kills. Each run must leave what the first one left, bit for bit: the state of training,
the preset, the grids, and every row of the history but for its speed.

Needs a system that can fork. One JSON line with what was found goes to the standard
output, progress to the standard error.
"""

import collections
import contextlib
import csv
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback

from shared import errors_as_lines, make_parser

# Figures of speed, which differ from run to run.
SPEED = ("images_per_second", "teraflops", "share_of_peak", "waited_for_data")
_KILLS_A_RUN = 5
_SIZE, _NUMBER = 16, 24  # Pixels of the pictures, and how many.


def parse_arguments(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=50, help="how many")
    add("--seed", type=int, default=0, help="of the moments")
    add("--backend", choices=("jax", "tensorflow"), default="jax", help="of Keras")
    add("--workers", type=int, default=0, help="processes that read")
    add("--output", help="folder to write, kept (default: a temporary one)")
    args = parser.parse_args(argv)
    if args.kills < 1:
        raise ValueError(f"--kills must be at least 1. Received: {args.kills}")
    return args


class Killer:
    """Ends this process at a moment, and counts the moments there are.

    Args:
        target: Pair of a kind of moment and its number from 1, a pair of `"time"` and
            seconds from now, or `None`.
    """

    def __init__(self, target):
        self.counts = collections.Counter()
        self.target = target
        if target is not None and target[0] == "time":
            # The system ends it, in the middle of whatever runs. A handler of Python's
            # would wait for the end of the step.
            signal.setitimer(signal.ITIMER_REAL, target[1])

    @staticmethod
    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def moment(self, kind):
        self.counts[kind] += 1
        if self.target == (kind, self.counts[kind]):
            self.kill()

    def before(self, owner, name, kind):
        """Makes each call of a function such a moment, before it does anything."""
        function = getattr(owner, name)

        def called(*args, **kwargs):
            self.moment(kind)
            return function(*args, **kwargs)

        setattr(owner, name, called)

    def install(self):
        """Takes the functions that training writes with."""
        import numpy as np

        from keras_mdm import files
        from keras_mdm.fitting import interrupts
        from keras_mdm.training import callbacks, rows, state_file

        self.before(interrupts.StopAtInterrupt, "on_train_batch_begin", "step")
        self.before(np.lib.format, "write_array", "array of a state")
        self.before(files, "_to_disk", "file, written but not named")
        self.before(files.os, "replace", "name of a file")
        self.before(files, "finish_replacement", "files of a folder")
        self.before(callbacks, "save_picture", "grid, drawn but not written")
        self.before(state_file, "write", "state")
        append, moment = rows.Rows.append, self.moment

        def half_a_row(self, *given):
            if given:
                append(self)  # The header, which is never half written.
                end = self.path.stat().st_size
                append(self, given[0])
                os.truncate(self.path, (end + self.path.stat().st_size) // 2)
                moment("half a row")
                os.truncate(self.path, end)
            append(self, *given)

        rows.Rows.append = half_a_row


def in_child(function):
    """Runs a function in a child of this process.

    Returns:
        int. Exit code, or the negative number of the signal that ended it.
    """
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except SystemExit as end:
            print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def prepare(folder):
    """Writes pictures of three classes, and a preset of a few weights."""
    import numpy as np
    from PIL import Image

    import keras_mdm

    rng = np.random.default_rng(0)
    for number in range(_NUMBER):
        path = folder / "pictures" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (_SIZE, _SIZE), dtype="uint8")
        Image.fromarray(pixels).save(path)
    random.seed(0)
    network = keras_mdm.NestedUNet(
        keras_mdm.UNet(
            _SIZE // 2,
            (8,),
            num_residual_blocks=1,
            num_attention_layers=0,
            mid_blocks=False,
            groups=4,
            image_channels=1,
            conditioner=keras_mdm.ClassLabels(3, size=8),
        ),
        (8, 8),
        1,
        groups=4,
    )
    keras_mdm.MDM(network, ema_momentum=0.9).save_to_preset(folder / "small")


def run(folder, name, args, target=None, resume=False):
    """Runs the recipe in a child process.

    Returns:
        As `in_child`.
    """

    def child():
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        killer = Killer(target)
        killer.install()
        from keras_mdm_recipes import train_image

        train_image.main(
            ["--output", str(folder / name), "--resume"]
            if resume
            else [
                *("--output", str(folder / name), "--preset", str(folder / "small")),
                *("--dataset", f"folder:{folder / 'pictures'}", "--batch-size", "4"),
                *("--backend", args.backend, "--steps", "7", "9", "--save-every", "3"),
                *("--sample-every", "6", "--learning-rate", "0.01"),
                *("--set", "data.split=all", "data.flip=true", "stage.accumulate=2"),
                *("samples.num_samples=2", "samples.num_steps=2"),
                *(f"data.num_workers={args.workers}", f"run.cache_dir={folder}/jax"),
            ]
        )
        if target is None:
            counts = json.dumps(killer.counts)
            (folder / f"{name}.counts").write_text(counts)

    return in_child(child)


def outcome(folder):
    """What a finished run has left, by name: text, bytes or arrays."""
    from keras_mdm.training import state_file, state_folder

    found = {}
    for name in ("history.csv", "noise_levels.csv"):
        with open(folder / name, newline="") as file:
            for row in csv.DictReader(file):
                place = " ".join(row[key] for key in ("stage", "step"))
                place += f" {row.get('level', '')} {row.get('log_snr_from', '')}"
                if f"{name}: {place}" in found:
                    raise ValueError(f"{name} has two rows of {place}")
                values = {key: v for key, v in row.items() if key not in SPEED}
                found[f"{name}: {place}"] = values
    # Not `state.newest`, which asks JAX for its processes: no fork is safe after that.
    (path,) = state_folder.listed(folder / "state")[-1].paths
    with state_file.opened(path) as (values, arrays):
        found |= {f"state: {name}": array.tobytes() for name, array in arrays}
        found |= {f"state: {key}": values[key] for key in ("progress", "places")}
    for path in (*folder.glob("samples/[!.]*"), *folder.glob("preset/[!.]*")):
        if path.name != "metadata.json":  # It has the date.
            found[str(path.relative_to(folder))] = path.read_bytes()
    found["left over"] = [p.name for p in folder.rglob(".*") if p.name != ".lock"]
    return found


def choose(rng, counts, seconds):
    """A moment to kill at: half of them by the clock, half at one kind of write."""
    kind = rng.choice(["time", *counts])
    if rng.random() < 0.4:
        kind = "time"
    if kind == "time":
        return "time", rng.uniform(0.0, seconds)
    return kind, rng.randint(1, counts[kind])


def measure(folder, args):
    """Runs everything; returns figures as a dict."""
    start = time.monotonic()
    if in_child(lambda: prepare(folder)):
        raise RuntimeError("the preset could not be made")
    if run(folder, "whole", args):
        raise RuntimeError("the run without a kill failed")
    # Its programs are compiled by now, as those of the others are.
    begin = time.monotonic()
    if run(folder, "again", args):
        raise RuntimeError("the second run without a kill failed")
    seconds = time.monotonic() - begin
    counts = json.loads((folder / "again.counts").read_text())
    expected = outcome(folder / "whole")
    report = {"kills": {}, "runs": 0, "different": {}}
    different = compare(expected, outcome(folder / "again"))
    if different:
        report["different"]["again"] = different
    rng, kills, killed = random.Random(args.seed), 0, collections.Counter()
    while kills < args.kills:
        name, resume, left = f"run{report['runs']}", False, _KILLS_A_RUN
        while True:
            target = (
                choose(rng, counts, seconds) if left and kills < args.kills else None
            )
            code = run(folder, name, args, target, resume)
            if code in (-signal.SIGKILL, -signal.SIGALRM):
                kills, left = kills + 1, left - 1
                killed[target[0]] += 1
            elif code:
                raise RuntimeError(f"{name} failed after {target}: {code}")
            if code == 0:
                break
            resume = (folder / name / "config.json").is_file()
        report["runs"] += 1
        different = compare(expected, outcome(folder / name))
        if different:
            report["different"][name] = different
        print(f"{name}: {kills} kills so far, different: {different}", file=sys.stderr)
    report["kills"] = dict(killed)
    return {**report, "seconds": round(time.monotonic() - start)}


def compare(expected, found):
    """Names of what is missing, new, or of another value."""
    names = sorted({*expected, *found})
    return [name for name in names if expected.get(name) != found.get(name)]


def main(argv=None):
    args = parse_arguments(argv)
    os.environ["KERAS_BACKEND"] = args.backend
    with contextlib.ExitStack() as stack:
        if args.output is None:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = pathlib.Path(args.output).absolute()
            folder.mkdir(parents=True)
        # Children find them imported; nothing is computed here, so a fork is safe.
        import grain  # noqa: F401
        import keras_mdm_recipes.train_image  # noqa: F401
        import tensorboardX  # noqa: F401

        import keras_mdm.callbacks  # noqa: F401

        report = measure(folder, args)
    print(json.dumps(report))
    if report["different"]:
        sys.exit("runs that were killed left something else: see above")
    return report


if __name__ == "__main__":
    with errors_as_lines():
        main()
