"""Checks a GPU, TPU or CPU in at most eight minutes, and prints one table.

    python tools/check_device.py

Each line is there as soon as it is known:

- the device and its peak;
- parity: a network recorded from the official implementation, in full float32;
- for `small_nested`, `mdm_base_64`, `cc12m_64` and `cc12m_256` in bfloat16 the training
  step (noise, loss, clipped gradients, AdamW) and the guided sampling step: seconds of
  compilation, milliseconds of a step, images a second, share of the device's peak and
  the largest memory that the process had on the device (on a CPU, at all);
- images a second of a training recipe, with the share of time that it waited for data.

Each is a process of its own, ended at its time limit, and the table then says so. On an
accelerator the programs are compiled at the same time first, since a compiler uses few
cores, and timed one after the other; seconds of compilation are those beside the
others. On a CPU, or with `--quick`, a small network stands for the four. JAX alone.
"""

import concurrent.futures
import csv
import functools
import json
import os
import pathlib
import sys
import tempfile
import time

from limited_process import Failed, TooLong, run
from shared import make_parser

TOOLS = pathlib.Path(__file__).parent
ROOT = TOOLS.parent
CONFIGS = TOOLS / "benchmark_configs"
# Name and what `benchmark.py` is told of it: a model, and the batch to train and draw.
MODELS = {
    "small_nested": ("--config", CONFIGS / "small_nested.json", "--batch", 32),
    "mdm_base_64": ("--preset", "mdm_base_64", "--batch", 32),
    "cc12m_64": ("--config", CONFIGS / "cc12m_64.json", "--batch", 32),
    "cc12m_256": ("--config", CONFIGS / "cc12m_256.json", "--batch", 8),
}
QUICK = {"mdm_tiny_32": ("--preset", "mdm_tiny_32", "--batch", 2)}
COLUMNS = {
    "what": 28,
    "compile s": 10,
    "step ms": 9,
    "images/s": 10,
    "TFLOP/s": 9,
    "of peak": 8,
    "GiB": 6,
}
DEVICE = """
import json, sys
from keras_mdm import backend
peak, measured = backend.peak_flops(sys.argv[1])
print(json.dumps([backend.device_kind(), backend.on_cpu(), peak, measured]))
"""
# Seconds that a step may take.
LIMITS = {"device": 60, "parity": 90, "compile": 240, "time": 60, "recipe": 120}


def show(values):
    """One line of the table; a note stands in place of the numbers."""
    cells = [f"{values['what']:<{COLUMNS['what']}}"]
    for name, width in list(COLUMNS.items())[1:]:
        cells.append(f"{values.get(name, ''):>{width}}")
    print("".join(cells).rstrip() + f"  {values.get('note', '')}".rstrip(), flush=True)


def timings(what, line, compiled):
    """The line of the table that a result of `benchmark.py` makes.

    Args:
        what: `"train"` or `"sample"`.
        line: dict that `benchmark.py` printed.
        compiled: float. Seconds of compilation.
    """
    key = {"train": "train_step_s", "sample": "sample_step_s"}[what]
    seconds, share = line[key], line["share_of_peak"][key]
    values = {
        "compile s": f"{compiled:.1f}",
        "step ms": f"{1e3 * seconds:.1f}",
        "TFLOP/s": f"{share * line['peak_gflops'] / 1e3:.3g}",
        "of peak": f"{share:.1%}",
        "GiB": f"{line['peak_memory_bytes'] / 2**30:.1f}",
        "note": f"batch {line['batch']}, {line['dtype']}",
    }
    if what == "train":
        values["images/s"] = f"{line['batch'] / seconds:.1f}"
    return values


class Check:
    """The steps of the check, within a budget of seconds.

    Args:
        arguments: What `parse_arguments` returned.
        folder: Path for compiled programs and for the run of the recipe.
    """

    def __init__(self, arguments, folder):
        self.end = time.monotonic() + arguments.budget
        self.quick = arguments.quick
        self.folder = folder
        self.ended = True
        self.environment = {
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
            ),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def run(self, command, limit, **environment):
        """Output of a process within a limit and what is left of the budget."""
        left = self.end - time.monotonic()
        return run(command, min(limit, left), {**self.environment, **environment}, ROOT)

    def line(self, what, step):
        """Prints the line of a step, or why there are no numbers."""
        try:
            values = step()
        except (TooLong, Failed) as error:
            self.ended = False
            values = {"note": str(error)}
        show({"what": what, **values})

    def benchmark(self, model, what, repeat, limit):
        options = ("--only", what, "--repeat", repeat, "--dtype", self.dtype)
        # Of several processes none may take all of the memory.
        text = self.run(
            (TOOLS / "benchmark.py", *self.models[model], *options),
            limit,
            XLA_PYTHON_CLIENT_PREALLOCATE="false",
        )
        return json.loads(text)

    def device(self):
        text = self.run(("-c", DEVICE, "bfloat16"), LIMITS["device"])
        kind, on_cpu, peak, measured = json.loads(text.splitlines()[-1])
        self.quick = self.quick or on_cpu
        self.on_cpu, self.kind = on_cpu, kind
        how = "measured by a product" if measured else "by its data sheet"
        return {"note": f"{kind}: {peak / 1e12:.3g} TFLOP/s in bfloat16, {how}"}

    def parity(self):
        # The tests ask for full float32 themselves (tests/conftest.py).
        test = ROOT / "tests" / "parity" / "test_parity_forward.py"
        began = time.monotonic()
        command = ("-m", "pytest", "-q", "-k", "nested_basic", test)
        text = self.run(command, LIMITS["parity"])
        note = f"nested_basic in float32: {text.strip().splitlines()[-1]}"
        return {"compile s": f"{time.monotonic() - began:.1f}", "note": note}

    def recipe(self):
        steps, size = (20, 16) if self.quick else (400, 64)
        output = self.folder / "run"
        self.run(
            (
                *(ROOT / "recipes" / "train_image.py", "--output", output),
                *("--dataset", "digits", "--preset", "mdm_tiny_32", "--resolutions"),
                *(16, "--max-steps", steps, "--batch-size", size),
                *("--set", "samples.num_samples=2", "samples.num_steps=4"),
            ),
            LIMITS["recipe"],
        )
        with (output / "history.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        seconds = size / float(last["images_per_second"])
        return {
            "step ms": f"{1e3 * seconds:.1f}",
            "images/s": f"{float(last['images_per_second']):.1f}",
            "TFLOP/s": f"{float(last['teraflops']):.3g}",
            "of peak": f"{float(last['share_of_peak']):.1%}",
            "note": f"batch {size}, waited for data "
            f"{float(last['waited_for_data']):.1%} of the time",
        }

    def compile_at_once(self, programs):
        """Compiles programs beside each other, each in a process.

        Returns:
            dict of program to seconds, without those that took too long; `None` for
            those that failed, as for want of memory: they may still run alone.
        """
        seconds = {}
        with concurrent.futures.ThreadPoolExecutor(len(programs)) as pool:
            running = {
                pool.submit(self.benchmark, *program, 1, LIMITS["compile"]): program
                for program in programs
            }
            for done in concurrent.futures.as_completed(running):
                program = running[done]
                values = {"what": f"{' '.join(program)} (compiled)"}
                try:
                    seconds[program] = done.result()["compile_s"]
                    values["compile s"] = f"{seconds[program]:.1f}"
                except TooLong as error:
                    values["note"] = str(error)
                except Failed as error:
                    seconds[program] = None
                    values["note"] = f"beside others: {error}"
                show(values)
        return seconds

    def all(self):
        """Every step; whether all of them ended."""
        self.line("device", self.device)
        if not self.ended:
            return False
        self.models = QUICK if self.quick else MODELS
        self.dtype = "float32" if self.on_cpu else "mixed_bfloat16"
        self.line("parity", self.parity)
        programs = [(m, what) for m in self.models for what in ("train", "sample")]
        compiled = None if self.on_cpu else self.compile_at_once(programs)
        for program in programs:
            step = functools.partial(self.timed, *program, compiled)
            self.line(" ".join(program), step)
        self.line("recipe train_image", self.recipe)
        return self.ended

    def timed(self, model, what, compiled):
        if compiled is None:
            line = self.benchmark(model, what, 3, LIMITS["compile"])
            return timings(what, line, line["compile_s"])
        if (model, what) not in compiled:
            raise TooLong("was not compiled in time")
        seconds = compiled[model, what]
        line = self.benchmark(model, what, 10, LIMITS["time" if seconds else "compile"])
        return timings(what, line, seconds or line["compile_s"])


def parse_arguments(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="one small network in place of the four, as on a CPU",
    )
    add(
        "--budget",
        type=float,
        default=460.0,
        metavar="SECONDS",
        help="that all steps take together at most",
    )
    arguments = parser.parse_args(argv)
    if not arguments.budget > 0:
        parser.error(f"--budget must be above 0. Received: {arguments.budget}")
    return arguments


def main(argv=None):
    arguments = parse_arguments(argv)
    show({name: name for name in COLUMNS})
    with tempfile.TemporaryDirectory(prefix="check_device_") as folder:
        ended = Check(arguments, pathlib.Path(folder)).all()
    sys.exit(0 if ended else 1)


if __name__ == "__main__":
    main()
