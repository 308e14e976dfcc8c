"""How `benchmark.py` times: with `predict`, `fit` and `generate`, as a user would."""

import statistics
import time

from benchmark_model import make_condition

GUIDANCE_SCALE = 7.5
# Steps of the short and of the long sampling run.
SHORT_RUN, LONG_RUN = 1, 6


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
        dict of seconds: `median` and `min` of all batches but the first, and `compile`,
        what the first took beyond the median, from the start of `run`.
    """
    import keras

    begins, ends = [], []

    def begin(batch, logs=None):
        begins.append(time.perf_counter())

    def end(batch, logs=None):
        # Reading a result waits for it.
        keras.tree.map_structure(keras.ops.convert_to_numpy, logs)
        ends.append(time.perf_counter())

    timer = keras.callbacks.LambdaCallback(
        **{f"on_{kind}_batch_begin": begin, f"on_{kind}_batch_end": end}
    )
    start = time.perf_counter()
    run([timer])
    seconds = [e - b for b, e in zip(begins, ends, strict=True)]
    if len(seconds) != samples:
        raise RuntimeError(f"timed {len(seconds)} steps, expected {samples}")
    median = statistics.median(seconds[1:])
    return {
        "median": median,
        "min": min(seconds[1:]),
        "compile": max(0.0, ends[0] - start - median),
    }


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
    network = mdm.network
    network.compile(jit_compile=mdm.jit_compile)
    return time_steps(
        "predict",
        lambda c: network.predict(data, batch_size=batch, verbose=0, callbacks=c),
        repeat + 1,
    )


def time_training(mdm, batch, repeat):
    """Median, minimum and compile seconds of the training step."""
    count = batch * (repeat + 1)
    channels = mdm.network.image_channels
    data = {
        **make_condition(mdm, count)[0],
        "images": _random_pictures(count, mdm.resolution, channels),
    }
    return time_steps(
        "train",
        lambda c: mdm.fit(data, batch_size=batch, verbose=0, callbacks=c),
        repeat + 1,
    )


def time_sampling(mdm, batch, repeat):
    """Median, minimum and compile seconds of one step of the compiled sampling loop."""
    condition = make_condition(mdm, batch)[0]
    who = {"num_samples": batch}
    if "labels" in condition:
        who = {"labels": condition["labels"]}
    elif condition:
        who = {"features": condition}
        if "text_embeddings" in condition:
            # Without an encoder there are no embeddings of the empty text.
            who["negative_features"] = condition

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
