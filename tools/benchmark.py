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

Times are medians of `--repeat` samples; `min_s` has the smallest ones. `flops` are those
of one forward pass of one sample, `share_of_peak` the share of `matmul_gflops` that a
timing achieves, with three forward passes for a training step. `matmul_gflops` is the
best float32 square matrix product of the backend in this process, before and after the
rest; where machines differ, compare seconds times it (`normalized`).
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import time

TIMINGS = {
    "forward": "forward_s",
    "train": "train_step_s",
    "sample": "sample_step_s",
}
OFFICIAL_TIMES = pathlib.Path(__file__).with_name("official_times.json")
# Text models are timed with captions of this length, as the recorded numbers were.
TEXT_TOKENS = 32
GUIDANCE_SCALE = 7.5
# Steps of the short and of the long sampling run.
SHORT_RUN, LONG_RUN = 1, 6


def parse_arguments(argv=None):
    """Reads the command line; ends the program with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--preset", help="built-in preset, or a preset or run folder")
    model.add_argument(
        "--config",
        metavar="FILE",
        help="JSON file: a configuration of the official implementation (`unet_config`, "
        "`px`, `lm_dim`, or `shipped`), or an MDM as `keras.saving` serializes it; or a "
        "preset folder",
    )
    parser.add_argument(
        "--backend",
        choices=("jax", "tensorflow", "torch"),
        default=os.environ.get("KERAS_BACKEND", "jax"),
        help="default: KERAS_BACKEND, or jax",
    )
    parser.add_argument("--batch", type=_positive, default=1, help="default: 1")
    parser.add_argument(
        "--dtype",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "bfloat16"),
        default="float32",
        help="dtype policy of the network; default: float32",
    )
    parser.add_argument(
        "--repeat",
        type=_positive,
        default=5,
        help="samples of each timing, after one that compiles; default: 5",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(TIMINGS),
        default=tuple(TIMINGS),
        help="leave out the other timings (their values are null)",
    )
    parser.add_argument(
        "--jit",
        choices=("auto", "on", "off"),
        default="auto",
        help="`jit_compile` of the model; generate() is always compiled on JAX",
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        help="compute activations again in the backward pass",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="keep a moving average of the weights; off as in the recorded numbers",
    )
    parser.add_argument(
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


def read_json(path):
    """The object in a JSON file, with an error that names the file."""
    try:
        value = json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise ValueError(f"can't read '{path}': {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not a JSON file. Cause: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' must hold a JSON object.")
    return value


def make_model(arguments):
    """The MDM that the command line names, with random weights, compiled."""
    from keras_mdm import MDM

    path = arguments.config
    if path is None or pathlib.Path(path).is_dir():
        options = {} if arguments.ema else {"ema_momentum": None}
        mdm = MDM.from_preset(
            arguments.preset or path,
            load_weights=False,
            dtype=arguments.dtype,
            **options,
        )
    else:
        mdm = _model_from_file(path, arguments)
    if arguments.remat:
        for layer in mdm.network._flatten_layers():
            if hasattr(layer, "remat"):
                layer.remat = True
    # The default optimizer is the one that is to be timed.
    mdm.compile(jit_compile={"auto": "auto", "on": True, "off": False}[arguments.jit])
    return mdm


def _model_from_file(path, arguments):
    import keras

    from keras_mdm import MDM
    from keras_mdm.interop.ml_mdm import network_from_config
    from keras_mdm.interop.released import RELEASED

    config = read_json(path)
    ema_momentum = 0.9999 if arguments.ema else None
    if config.get("class_name") == "MDM":
        config["config"]["ema_momentum"] = ema_momentum
        _set_dtype(config["config"]["network"], arguments.dtype)
        return keras.saving.deserialize_keras_object(config)
    if "shipped" in config:
        if config["shipped"] not in RELEASED:
            raise ValueError(
                f"`shipped` must be one of {sorted(RELEASED)}. "
                f"Received: shipped={config['shipped']!r} in '{path}'"
            )
        config = {**RELEASED[config["shipped"]], **config}
    missing = [key for key in ("unet_config", "px") if key not in config]
    if missing:
        raise ValueError(
            f"'{path}' is neither a serialized MDM nor an official configuration: it "
            f"lacks {missing}. It has: {sorted(config)}"
        )
    try:
        network = network_from_config(
            config["unet_config"],
            config["px"],
            config.get("lm_dim"),
            dtype=arguments.dtype,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' is not an official configuration. Cause: {error!r}"
        ) from error
    return MDM(
        network, loss_target="epsilon", condition_dropout=0.0, ema_momentum=ema_momentum
    )


def _set_dtype(network, dtype):
    """Sets the dtype policy of a serialized network and of those inside it."""
    network["config"]["dtype"] = dtype
    if network["config"].get("inner") is not None:
        _set_dtype(network["config"]["inner"], dtype)


def make_condition(mdm, count):
    """Features of `count` random conditions, and the number of tokens of each."""
    import numpy as np

    numbers = np.random.default_rng(0)
    conditioner = mdm.network.conditioner
    names = getattr(conditioner, "feature_names", ())
    if "labels" in names:
        labels = numbers.integers(0, conditioner.num_classes, count)
        return {"labels": labels.astype("int32")}, 1
    if "text_embeddings" in names:
        shape = (count, TEXT_TOKENS, conditioner.size)
        tokens = numbers.standard_normal(shape, dtype="float32")
        mask = np.ones(shape[:2], dtype="int32")
        return {"text_embeddings": tokens, "text_mask": mask}, TEXT_TOKENS
    if conditioner is not None:
        raise ValueError(
            f"can't make conditions for {type(conditioner).__name__}, which reads {names}"
        )
    return {}, 1


def _random_pictures(count, resolution, channels):
    import numpy as np

    shape = (count, resolution, resolution, channels)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")


def time_steps(kind, run, samples):
    """Times every batch of a `fit` or `predict`.

    Args:
        kind: str. `"train"` or `"predict"`.
        run: Callable that takes a list of callbacks.
        samples: int. Batches that `run` sees; the first one compiles.

    Returns:
        A pair: list of seconds of all batches but the first, and seconds from the
        start of `run` to the end of the first batch.
    """
    import keras

    begins, ends = [], []

    def end(batch, logs):
        # Reading a result waits for it.
        keras.tree.map_structure(keras.ops.convert_to_numpy, logs)
        ends.append(time.perf_counter())

    timer = keras.callbacks.LambdaCallback(
        **{
            f"on_{kind}_batch_begin": lambda *_: begins.append(time.perf_counter()),
            f"on_{kind}_batch_end": end,
        }
    )
    start = time.perf_counter()
    run([timer])
    seconds = [e - b for b, e in zip(begins, ends, strict=True)]
    if len(seconds) != samples:
        raise RuntimeError(f"timed {len(seconds)} steps, expected {samples}")
    return seconds[1:], ends[0] - start


def time_forward(mdm, batch, repeat):
    """Median, minimum and compile seconds of the network's forward pass."""
    import numpy as np

    count = batch * (repeat + 1)
    channels = mdm.network.image_channels
    data = {
        **make_condition(mdm, count)[0],
        "images": [_random_pictures(count, r, channels) for r in mdm.resolutions],
        "timesteps": np.arange(count, dtype="int32") % mdm.schedule.num_timesteps,
    }
    seconds, first = time_steps(
        "predict",
        lambda c: mdm.predict(data, batch_size=batch, verbose=0, callbacks=c),
        repeat + 1,
    )
    return summary(seconds, first)


def time_training(mdm, batch, repeat):
    """Median, minimum and compile seconds of the training step."""
    count = batch * (repeat + 1)
    channels = mdm.network.image_channels
    data = {
        **make_condition(mdm, count)[0],
        "images": _random_pictures(count, mdm.resolution, channels),
    }
    seconds, first = time_steps(
        "train",
        lambda c: mdm.fit(data, batch_size=batch, verbose=0, callbacks=c),
        repeat + 1,
    )
    return summary(seconds, first)


def time_sampling(mdm, batch, repeat):
    """Median, minimum and compile seconds of one step of the compiled sampling loop."""
    condition = make_condition(mdm, batch)[0]
    who = {"num_samples": batch}
    if "labels" in condition:
        who = {"labels": condition["labels"]}
    elif condition:
        who = {"features": condition}

    def run(num_steps):
        start = time.perf_counter()
        mdm.generate(
            **who,
            seed=0,
            sampler="ddim",
            eta=0.0,
            num_steps=num_steps,
            guidance_scale=GUIDANCE_SCALE,
            output="float",
        )
        return time.perf_counter() - start

    first = run(SHORT_RUN)
    pairs = [(run(SHORT_RUN), run(LONG_RUN)) for _ in range(repeat)]
    steps = LONG_RUN - SHORT_RUN
    short, long = (min(seconds) for seconds in zip(*pairs, strict=True))
    return {
        "median": statistics.median((b - a) / steps for a, b in pairs),
        "min": (long - short) / steps,
        "compile": max(0.0, first - statistics.median(a for a, _ in pairs)),
    }


def summary(seconds, first):
    """Median and minimum, and what the first step took beyond the median."""
    median = statistics.median(seconds)
    return {
        "median": median,
        "min": min(seconds),
        "compile": max(0.0, first - median),
    }


def matmul_gflops(size, repeat=8):
    """Rate of the fastest of several float32 products of square matrices."""
    import numpy as np
    from keras import ops

    numbers = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
    a = ops.convert_to_tensor(numbers)
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        product = ops.matmul(a, a)
        float(product[0, 0])  # waits for the result
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def accelerator():
    """Name and peak memory (bytes or `None`) of the accelerator; `None` on a CPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "cpu":
            return None
        stats = device.memory_stats() or {}
        return device.device_kind, stats.get("peak_bytes_in_use")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if not devices:
            return None
        name = tf.config.experimental.get_device_details(devices[0])["device_name"]
        return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def processor():
    """Name of the CPU and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def process_peak_bytes():
    """Largest resident memory that the process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
