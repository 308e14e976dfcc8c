"""What evaluations by a judge do: train it, and measure distances."""

from keras_mdm_recipes import drawing

# Splits of captions that training has not seen, and what they are called.
SPLITS = {"test": "seen combinations", "test_held_out": "held-out combinations"}


def evaluate_splits(args, mdm, judge, reference, read, measure, report):
    """Draws the captions of splits that training has not seen, judges and reports.

    Args:
        args: Flags of `evaluate.py`.
        mdm: `MDM`.
        judge: `keras_mdm.metrics.Judge`.
        reference: uint8 array of real pictures or clips that it was trained on.
        read: Callable from a split and a number to real pictures or clips, their
            captions and what is in them.
        measure: Callable from the judge, drawn and real ones and what is in them to a
            dict.
        report: Callable that prints such a dict.

    Returns:
        A pair: seconds of drawing, and results by split.
    """
    base, results, seconds = judge.features(reference), {}, 0.0
    for split, title in SPLITS.items():
        real, captions, wanted = read(split, args.num_samples)
        drawn, taken = drawing.draw(args, mdm, captions)
        seconds += taken
        result = {
            "captions": len(drawn),
            **measure(judge, drawn, real, wanted),
            **measure_distances(judge, drawn, real, base),
        }
        level = mdm.resolution
        level = level if isinstance(level, str) else f"{level} pixels"
        print(f"\n{level}, {len(drawn)} captions, {title}:")
        report(result)
        print_distances(result)
        results[split] = result
    return seconds, results


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
    """Prints what `measure_distances` found, with floor and ceiling."""
    for name in ("frechet", "kernel"):
        values = result[name]
        print(
            f"  {name} distance {values['drawn']:.4g}"
            f"  (real test ones {values['real_test']:.4g}, "
            f"noise {values['noise']:.4g})"
        )
