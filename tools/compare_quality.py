"""How good pictures are, to the set's own judge and to a random network."""

import dataclasses

import numpy as np

from keras_mdm import data, metrics

NEIGHBORS = 5
MOST_TRAIN = 1500  # Real pictures of a split that a source of any size gives.
MOST_HELD_OUT = 400
HELD_OUT = {"digits": ("test",), "shapes": ("test",)}  # Else validation and test.


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of a set at one resolution, uint8, and their classes."""

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    num_classes: int


def read_set(name, resolution):
    """Reads a set by the name of its source, such as `"digits"` or `"folder:PATH"`.

    Raises:
        ValueError: if its pictures have no classes, or are fewer than distances need.
    """
    splits = HELD_OUT.get(name, ("validation", "test"))
    train = data.open_source(name, "train")
    if train.num_classes is None:
        raise ValueError(f"--set must have classes. {name!r} has none.")
    parts = [_read([train], resolution, MOST_TRAIN)]
    held_out = [data.open_source(name, split) for split in splits]
    parts.append(_read(held_out, resolution, MOST_HELD_OUT))
    pictures = Pictures(*parts[0], *parts[1], train.num_classes)
    # As many are drawn as are held out: asked now, not after hours of training.
    eye = metrics.Judge(*pictures.train.shape[2:], pictures.num_classes)
    check_count(eye.features(pictures.held_out), eye.features(pictures.train))
    return pictures


def _read(sources, resolution, most):
    items = [(source, i) for source in sources for i in range(len(source))]
    if len(items) > most:
        chosen = np.random.default_rng(0).permutation(len(items))[:most]
        items = [items[i] for i in np.sort(chosen)]
    found = [source[i] for source, i in items]
    pictures = [
        data.prepare_picture(
            item["image"], resolution, upscale=True, channels=sources[0].channels
        )
        for item in found
    ]
    return np.stack(pictures), np.array([item["label"] for item in found])


class Examiner:
    """Measures drawn pictures of one set. The same set gives the same examiner."""

    def __init__(self, pictures):
        self.pictures = pictures
        resolution, channels = pictures.train.shape[2:]
        shape = (resolution, channels, pictures.num_classes)
        judge = metrics.Judge(*shape)
        judge.fit(pictures.train, pictures.train_labels)
        self._judge = judge
        self._eyes = {"judge": judge, "random": metrics.Judge(*shape, seed=1)}
        self._real = {k: e.features(pictures.train) for k, e in self._eyes.items()}
        self._units = {k: float(np.sqrt(np.mean(f**2))) for k, f in self._real.items()}
        self._usual = np.median(self._nearest_train(pictures.held_out))

    def measure(self, drawn, labels):
        """Measures pictures.

        Args:
            drawn: uint8 array of shape `(pictures, height, width, channels)`.
            labels: int array of shape `(pictures,)`: the classes asked for.

        Returns:
            dict of float: `kernel_judge`, `frechet_judge`, `kernel_random`,
            `frechet_random`, `accuracy`, `density`, `coverage`, `nearer_to_train`.

        Raises:
            ValueError: if there are fewer pictures than a distance needs.
        """
        found, features = {}, {}
        for name, eye in self._eyes.items():
            real = self._real[name] / self._units[name]
            features[name] = eye.features(drawn) / self._units[name]
            check_count(features[name], real)
            found[f"kernel_{name}"] = metrics.kernel_distance(features[name], real)
            found[f"frechet_{name}"] = metrics.frechet_distance(features[name], real)
        real = self._real["judge"] / self._units["judge"]
        density, coverage = density_and_coverage(real, features["judge"])
        nearer = np.mean(self._nearest_train(drawn) < self._usual)
        return {
            **found,
            "accuracy": self._judge.accuracy(drawn, labels),
            "density": density,
            "coverage": coverage,
            "nearer_to_train": float(nearer),
        }

    def bounds(self):
        """Measures of held-out pictures, the floor, and of blurred ones and noise."""
        real, labels = self.pictures.held_out, self.pictures.held_out_labels
        noise = np.random.default_rng(0).integers(0, 256, real.shape).astype("uint8")
        shown = {"held_out": real, "blurred": blur(real), "noise": noise}
        return {name: self.measure(shown[name], labels) for name in shown}

    def _nearest_train(self, pictures):
        return metrics.pixel_distances(pictures, self.pictures.train).min(axis=1)


def check_count(features, real):
    """Raises a `ValueError` unless a covariance of features can have full rank."""
    needed = real.shape[1] + 1
    fewest = min(len(features), len(real))
    if fewest < needed:
        raise ValueError(
            f"the Frechet distance of {real.shape[1]} features needs at least {needed} "
            f"pictures of each set. Received: {len(features)} drawn, {len(real)} real"
        )


def density_and_coverage(real, drawn, neighbors=NEIGHBORS):
    """How densely drawn features lie where real ones are, and how many they cover.

    Each real picture has a ball that reaches its `neighbors`-th nearest real one.
    Density is the mean number of balls around a drawn picture, over `neighbors`;
    coverage the share of balls with a drawn picture inside.

    Args:
        real: Array of shape `(real, size)`.
        drawn: Array of shape `(drawn, size)`.
        neighbors: int.

    Returns:
        A pair of float.

    Raises:
        ValueError: if there are too few real pictures.

    Reference:
        - [Naeem et al., 2020](https://arxiv.org/abs/2002.09797), 3
    """
    if len(real) <= neighbors:
        raise ValueError(
            f"density and coverage need more than {neighbors} real pictures. "
            f"Received: {len(real)}"
        )
    # The nearest is the picture itself.
    radii = np.partition(_squares(real, real), neighbors, axis=1)[:, neighbors]
    inside = _squares(drawn, real) < radii
    return float(inside.sum() / neighbors / len(drawn)), float(inside.any(0).mean())


def blur(pictures):
    """Pictures averaged over squares of 4 by 4 pixels."""
    count, height, width, channels = pictures.shape
    blocks = pictures.reshape(count, height // 4, 4, width // 4, 4, channels)
    small = np.rint(blocks.mean(axis=(2, 4))).astype("uint8")
    return small.repeat(4, axis=1).repeat(4, axis=2)


def _squares(first, second):
    """Squared distances of all pairs, of shape `(first, second)`."""
    products = first @ second.T
    ones, others = ((x * x).sum(axis=1) for x in (first, second))
    return np.maximum(ones[:, None] + others - 2 * products, 0.0)
