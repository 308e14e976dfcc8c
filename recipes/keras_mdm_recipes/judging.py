"""What all evaluations do: draw, train a judge, measure distances."""

import time


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
