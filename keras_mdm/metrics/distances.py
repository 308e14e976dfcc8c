"""Distances between two sets of images, taken on features of them.

Features come from `Judge.features`, or any other network. Plain numpy, float64.
"""

import numpy as np


def frechet_distance(first, second):
    """Squared Frechet distance of the Gaussians fitted to two sets of features.

    `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`. Small sets are overrated: compare
    sets of equal size, or quote the distance of real images to real ones beside.

    Args:
        first: Array of shape `(samples, size)`, of at least 2 samples.
        second: Array of shape `(samples, size)`.

    Returns:
        float, at least 0.

    Reference:
        - [Heusel et al., 2017](https://arxiv.org/abs/1706.08500), eq. 6
    """
    first, second = _check(first, second)
    one, other = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (first, second))
    return gaussian_distance(*one, *other)


def gaussian_distance(mean, covariance, other_mean, other_covariance):
    """Squared Frechet distance of two Gaussians; see `frechet_distance`.

    Args:
        mean: float64 array of shape `(size,)`.
        covariance: float64 array of shape `(size, size)`.
        other_mean, other_covariance: Arrays like these.

    Returns:
        float, at least 0.
    """
    means = mean - other_mean
    one, other = map(np.atleast_2d, (covariance, other_covariance))
    # tr (S1 S2)^(1/2) from a symmetric matrix with the same eigenvalues.
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ other @ root)
    mixed = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    distance = means @ means + np.trace(one) + np.trace(other) - 2.0 * mixed
    return float(max(distance, 0.0))


def kernel_distance(first, second):
    """Squared kernel distance (KID) of two sets of features.

    The unbiased estimate of the maximum mean discrepancy with the kernel
    `(x . y / size + 1)^3`; it can be a little below 0.

    Args:
        first: Array of shape `(samples, size)`, of at least 2 samples.
        second: Array of shape `(samples, size)`.

    Returns:
        float.

    Reference:
        - [Binkowski et al., 2018](https://arxiv.org/abs/1801.01401), section 4
    """
    first, second = _check(first, second)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def within(x):
        matrix = kernel(x, x)
        count = len(x)
        return (matrix.sum() - np.trace(matrix)) / (count * (count - 1))

    mixed = kernel(first, second).mean()
    return float(within(first) + within(second) - 2.0 * mixed)


def frame_change(features):
    """How far the features of neighboring frames lie apart, on average.

    Clips that move as real ones do change as much from frame to frame; those that
    flicker or jump change more, frozen ones less.

    Args:
        features: Array of shape `(clips, frames, size)`, of at least 2 frames.

    Returns:
        float: root of the mean squared distance.
    """
    features = np.asarray(features, dtype="float64")
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(
            "features must have the shape (clips, frames, size), with at least 2 "
            f"frames. Received: shape {features.shape}"
        )
    steps = np.diff(features, axis=1)
    return float(np.sqrt(np.mean(np.sum(np.square(steps), axis=-1))))


def _check(first, second):
    first = np.asarray(first, dtype="float64")
    second = np.asarray(second, dtype="float64")
    shapes = first.shape, second.shape
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "features must have the shape (samples, size), with one size. "
            f"Received: shapes {shapes[0]} and {shapes[1]}"
        )
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"a distance needs at least 2 samples of each. Received: shapes {shapes}"
        )
    return first, second


def pixel_distances(pictures, others):
    """Distances between the pixels of pictures.

    Args:
        pictures: uint8 array `(n, height, width, channels)`.
        others: uint8 array `(m, height, width, channels)`.

    Returns:
        float64 array `(n, m)`: root of the mean squared difference of pixels.
    """
    a = pictures.reshape(len(pictures), -1).astype("float64")
    b = others.reshape(len(others), -1).astype("float64")
    squared = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.sqrt(np.maximum(squared, 0) / a.shape[1])
