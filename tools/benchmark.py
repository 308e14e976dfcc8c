"""Times the forward pass, training step and guided sampling step of a model.

One JSON line goes to the standard output, everything else to the standard error:

    python tools/benchmark.py --preset mdm_tiny_64 --backend jax --batch 4
    python tools/benchmark.py --config small_unet.json --dtype mixed_bfloat16

What is timed is what a user runs: `predict`, `fit` and `generate`.

- `forward_s`: one call of the network on a batch.
- `train_step_s`: noise, loss, gradients clipped to the global norm 2, AdamW; with
  `--ema` the moving average too.
- `sample_step_s`: one DDIM step with guidance, both halves in one batch, inside the
  compiled loop: the difference of a long and a short run, divided by their steps.

Times are medians of `--repeat` samples; `min_s` has the smallest ones. `flops` are
those of one forward pass of one sample, `share_of_peak` is the share of `peak_gflops`
that a timing achieves; a training step counts as three forward passes. The peak is that
of the device in the dtype of the products: as its maker says, or, with `peak_measured`,
that of a product of matrices.
`matmul_gflops` is the fastest float32 product of square matrices that the backend made
in this process, before or after the rest. Where machines differ, compare seconds times
`matmul_gflops`: `normalized_vs_official` is that of ours divided by the recorded one of
the original implementation (below 1: ours is faster).
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

import benchmark_machine as machine
from benchmark_model import make_condition, make_model, read_json
from benchmark_timing import time_forward, time_sampling, time_training
from shared import BACKENDS, errors_as_lines, make_parser

# Key of the result, and what takes the time.
TIMINGS = {
    "forward": ("forward_s", time_forward),
    "train": ("train_step_s", time_training),
    "sample": ("sample_step_s", time_sampling),
}
KEYS = tuple(key for key, _ in TIMINGS.values())
OFFICIAL_TIMES = pathlib.Path(__file__).with_name("official_times.json")


def parse_arguments(argv=None):
    """Reads the command line; ends the program with a message if it is wrong."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    chosen = os.environ.get("KERAS_BACKEND")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--preset", help="built-in preset, or a preset or run folder")
    model.add_argument(
        "--config",
        metavar="FILE",
        help="JSON file: an official configuration (`unet_config`, `px`, `lm_dim`; or "
        "`shipped`), or an MDM as `keras.saving` serializes it; or a preset folder",
    )
    add(
        "--backend",
        choices=BACKENDS,
        default=chosen if chosen in BACKENDS else "jax",
        help="Keras backend, that of the environment variable KERAS_BACKEND if set",
    )
    add("--batch", type=_positive, default=1, help="samples at once")
    add(
        "--dtype",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "bfloat16"),
        default="float32",
        help="dtype policy of the network",
    )
    add(
        "--repeat",
        type=_positive,
        default=5,
        help="samples of each timing, after one that compiles",
    )
    add(
        "--only",
        nargs="+",
        choices=tuple(TIMINGS),
        default=tuple(TIMINGS),
        help="leave out the other timings (their values are null)",
    )
    add(
        "--jit",
        choices=("auto", "on", "off"),
        default="auto",
        help="`jit_compile` of the model; generate() is always compiled on JAX",
    )
    add(
        "--remat",
        nargs="*",
        metavar="RESOLUTION",
        help="compute the activations of these resolutions again in the backward pass; "
        "without values, of all",
    )
    add(
        "--ema",
        action="store_true",
        help="keep a moving average of the weights; off as in the recorded numbers",
    )
    add(
        "--compare",
        metavar="FILE",
        help="a line printed by this tool: `compared` has ours divided by theirs",
    )
    return parser.parse_args(argv)


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return value


def measure(arguments):
    """Everything that is printed, as a dict."""
    other = read_json_line(arguments.compare) if arguments.compare else None
    import keras
    import numpy as np

    import keras_mdm
    from keras_mdm import backend
    from keras_mdm.networks.cost import count_condition_flops, count_flops

    mdm = make_model(arguments)
    network = mdm.network
    features, _ = make_condition(mdm, 1)
    levels = count_flops(network, features)
    flops = sum(levels.values())
    step = flops - sum(count_condition_flops(network, features).values())
    guided = network.conditioner is not None
    work = {"forward": flops, "train": 3 * flops, "sample": step * (1 + guided)}
    rate = machine.matmul_gflops()
    peak, peak_measured = backend.peak_flops(network.compute_dtype)
    load = os.getloadavg()[0]
    timings = {}
    for what, (_, timer) in TIMINGS.items():
        if what in arguments.only:
            print(f"timing {what} ...", file=sys.stderr)
            timings[what] = timer(mdm, arguments.batch, arguments.repeat)
    rate = max(rate, machine.matmul_gflops())
    device = machine.accelerator()
    host = machine.process_peak_bytes()

    def per_timing(value):
        return {TIMINGS[what][0]: value(what) for what in timings}

    result = {
        "configuration": configuration_name(arguments),
        **dict.fromkeys(KEYS),
        **per_timing(lambda what: timings[what]["median"]),
        "min_s": per_timing(lambda what: timings[what]["min"]),
        "compile_s": sum(timing["compile"] for timing in timings.values()),
        "compile_s_per_function": per_timing(lambda what: timings[what]["compile"]),
        "parameters": network.count_params(),
        "parameters_per_level": parameters_per_level(network),
        "flops": flops,
        "flops_per_level": levels,
        "matmul_gflops": rate,
        "peak_gflops": peak / 1e9,
        "peak_measured": peak_measured,
        "share_of_peak": per_timing(
            lambda what: work[what] * arguments.batch / timings[what]["median"] / peak
        ),
        "peak_memory_bytes": (device and device[1]) or host,
        "peak_memory_of": "device" if device and device[1] else "process",
        "process_peak_memory_bytes": host,
        "guided": guided,
        "backend": arguments.backend,
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "repeat": arguments.repeat,
        "jit": arguments.jit,
        "remat": arguments.remat,
        "ema": mdm.ema is not None,
        "device": device[0] if device else machine.processor(),
        "load_average": load,
        "versions": {
            "python": platform.python_version(),
            "keras_mdm": keras_mdm.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            arguments.backend: importlib.metadata.version(arguments.backend),
        },
    }
    official = official_times(result["configuration"], arguments.batch)
    if official is not None:
        result["normalized_vs_official"] = ratios(result, official)["normalized"]
    if other is not None:
        result["compared"] = {"with": arguments.compare, **ratios(result, other)}
    return result


def configuration_name(arguments):
    """The preset, or the name in the configuration file, or that of the file."""
    if arguments.preset is not None:
        return arguments.preset
    path = pathlib.Path(arguments.config)
    return path.name if path.is_dir() else read_json(path).get("name", path.stem)


def parameters_per_level(network):
    """Parameters of each network without those inside it, by resolution."""
    counts = [inner.count_params() for inner in network.networks] + [0]
    return {
        resolution: whole - inside
        for resolution, whole, inside in zip(
            network.levels, counts, counts[1:], strict=False
        )
    }


def official_times(configuration, batch):
    """Recorded timings of the original for a configuration, or `None`."""
    recorded = read_json(OFFICIAL_TIMES)
    times = recorded["times"].get(configuration, {}).get(str(batch))
    return times and {**times, "matmul_gflops": recorded["matmul_gflops"]}


def ratios(ours, theirs):
    """Our timings divided by theirs: below 1 is faster.

    Returns:
        dict of two dicts by timing: `seconds`, and `normalized`, where seconds are
        multiplied by the machine's `matmul_gflops` first.
    """
    machines = ours["matmul_gflops"] / theirs["matmul_gflops"]
    seconds = {
        key: ours[key] / theirs[key]
        for key in KEYS
        if ours.get(key) and theirs.get(key)
    }
    return {
        "seconds": seconds,
        "normalized": {key: value * machines for key, value in seconds.items()},
    }


def read_json_line(path):
    """A line that this tool printed: the last one of a file."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
        value = json.loads(lines[-1])
    except (OSError, IndexError, ValueError) as error:
        raise ValueError(f"'{path}' has no JSON line. Cause: {error!r}") from error
    if not isinstance(value, dict) or "matmul_gflops" not in value:
        raise ValueError(f"'{path}' is not a result of this tool: no 'matmul_gflops'.")
    return value


@contextlib.contextmanager
def stdout_to_stderr():
    """Sends all output, also that of libraries, to the standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main(argv=None):
    arguments = parse_arguments(argv)
    os.environ["KERAS_BACKEND"] = arguments.backend
    # As the recipes do; TensorFlow turns it off on CPUs without AVX-512.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with errors_as_lines(), stdout_to_stderr():
        result = measure(arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
