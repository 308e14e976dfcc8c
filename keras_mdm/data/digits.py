"""Scikit-learn's 1,797 handwritten digits as a source; needs no download.

The originals are 8x8 with 17 gray levels; here they are smoothly enlarged to 32x32,
from which the pipeline averages down to 16 or 8. Opened by `open_source("digits")`.
"""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from keras_mdm.data.source import Source

RESOLUTION = 32
SPLITS = ("train", "test")


class Digits(Source):
    """Handwritten digits: 10 classes, one channel, 32x32 pixels.

    Args:
        path: String. Empty: there is nothing to choose.
        split: `"train"` (four in five) or `"test"`; each class is split alike.
    """

    def __init__(self, path="", split="train"):
        if path or split not in SPLITS:
            raise ValueError(
                f"`split` of 'digits' must be one of {SPLITS}, and nothing stands "
                f"behind its name. Received: split={split!r}, path={path!r}"
            )
        super().__init__("digits", channels=1, class_names=map(str, range(10)))
        data = load_digits()
        chosen = _split(data.target, split)
        self._pictures = [_enlarge(data.images[index]) for index in chosen]
        self._labels = data.target[chosen]

    def __len__(self):
        return len(self._pictures)

    def _read(self, index):
        return {"image": self._pictures[index], "label": int(self._labels[index])}


def _split(labels, split):
    """Returns the sorted indices of a split: every fifth of a class is a test."""
    rng = np.random.default_rng(0)
    chosen = []
    for digit in range(10):
        of_digit = rng.permutation(np.flatnonzero(labels == digit))
        num_test = round(len(of_digit) / 5)
        chosen.extend(of_digit[:num_test] if split == "test" else of_digit[num_test:])
    return np.sort(chosen)


def _enlarge(picture):
    # Float throughout: bicubic overshoot is clipped once, at the end.
    large = Image.fromarray(picture.astype(np.float32) * (255 / 16)).resize(
        (RESOLUTION, RESOLUTION), Image.BICUBIC
    )
    return np.clip(np.rint(np.asarray(large)), 0, 255).astype(np.uint8)[..., None]
