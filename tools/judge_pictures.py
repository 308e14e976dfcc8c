"""How good the pictures of a model on text are, to a judge of the real set.

    python tools/judge_pictures.py mdm_emoji_64 pictures/emoji

The folder is one of `get_pictures.py`, or any with captions, classes and splits. A
judge learns the classes of its training pictures. The model draws as many captions that
training saw as there are held-out pictures, then the captions of these. One JSON line
has, for real pictures, both kinds of drawn ones, blurred held-out ones and noise:

- `accuracy`: share whose class, to the judge, is that of the caption.
- `frechet`, `kernel`: distances from the held-out pictures in the judge's features.
  That of as many real training pictures, `train`, is the floor.

`own_nearest` is the share of drawn pictures of seen captions whose nearest training
picture, by pixels, has that caption.
"""

import json
import pathlib

import numpy as np
from shared import (
    choose_backend,
    errors_as_lines,
    make_parser,
    read_captioned,
    text_model,
)


def measure(mdm, folder, epochs, seed):
    """All figures as a dict; see the module."""
    from compare_quality import blur, check_count

    from keras_mdm import metrics
    from keras_mdm.levels import read_level

    resolution = read_level(mdm.resolution)[1]
    train, items, classes = read_captioned(folder, resolution, "train")
    real, real_items, _ = read_captioned(folder, resolution, "validation", "test")
    if classes is None:
        raise ValueError(f"'{folder}' has no classes, which a judge learns.")
    labels = np.array([item["label"] for item in items])
    real_labels = np.array([item["label"] for item in real_items])
    judge = metrics.Judge(resolution, train.shape[-1], classes, seed=seed)
    # Asked now, not after an hour of drawing.
    check_count(judge.features(real), judge.features(train))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(train), min(len(real), len(train)), replace=False)
    captions = [item["caption"] for item in items]
    asked = [captions[i] for i in chosen]
    held_out = [item["caption"] for item in real_items]
    judge.fit(train, labels, epochs=epochs)
    seen = mdm.generate(asked, seed=seed, batch_size=32)
    shown = {
        "train": (train[chosen], labels[chosen]),
        "seen": (seen, labels[chosen]),
        "unseen": (
            mdm.generate(held_out, seed=seed + 1, batch_size=32),
            real_labels,
        ),
        "blurred": (blur(real), real_labels),
        "noise": (rng.integers(0, 256, real.shape).astype("uint8"), real_labels),
    }
    features = judge.features(real)
    found = {"pictures": len(real)}
    found["accuracy_held_out"] = judge.accuracy(real, real_labels)
    for name, (pictures, wanted) in shown.items():
        own = judge.features(pictures)
        found[f"accuracy_{name}"] = judge.accuracy(pictures, wanted)
        found[f"frechet_{name}"] = metrics.frechet_distance(own, features)
        found[f"kernel_{name}"] = metrics.kernel_distance(own, features)
    nearest = metrics.pixel_distances(seen, train).argmin(axis=1)
    named = [captions[i] == caption for i, caption in zip(nearest, asked, strict=True)]
    return {**found, "own_nearest": float(np.mean(named))}


def main(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("model", help="preset name, preset folder or run folder of a model on text")
    add("folder", type=pathlib.Path, help="folder of pictures with captions, classes")
    add("--epochs", type=int, default=12, help="in which the judge learns")
    add("--seed", type=int, default=0, help="of the noise, the choice and the judge")
    add("--backend", help="Keras backend (default: as for the recipes)")
    given = parser.parse_args(arguments)
    with errors_as_lines():
        if given.epochs < 1:
            raise ValueError(f"--epochs must be at least 1. Received: {given.epochs}")
        choose_backend(given.backend)
        mdm = text_model(given.model)
        found = measure(mdm, given.folder.expanduser(), given.epochs, given.seed)
    print(json.dumps({k: round(value, 4) for k, value in found.items()}))


if __name__ == "__main__":
    main()
