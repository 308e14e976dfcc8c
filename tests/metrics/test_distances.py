"""Distances of feature sets against closed forms for Gaussians."""

import numpy as np
import pytest

from keras_mdm.metrics import frame_change, frechet_distance, kernel_distance

pytestmark = pytest.mark.once


def standardized(count, size, seed):
    """Samples whose mean is exactly 0 and whose covariance is exactly 1."""
    x = np.random.default_rng(seed).normal(size=(count, size))
    x -= x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    return x @ (vectors / np.sqrt(values)) @ vectors.T


def test_frechet_of_gaussians_with_diagonal_covariances():
    one, other = standardized(200, 4, 0), standardized(300, 4, 1)
    mean = np.array([1.0, -2.0, 0.5, 0.0])
    first, second = np.array([1.0, 2.0, 3.0, 0.5]), np.array([2.0, 2.0, 1.0, 0.1])
    expected = np.sum(mean**2) + np.sum((first - second) ** 2)
    assert frechet_distance(one * first, other * second + mean) == pytest.approx(
        expected
    )


def test_frechet_of_covariances_that_do_not_commute():
    x = standardized(500, 2, 0)
    a, b = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])
    # tr (A B)^(1/2) of two-by-two matrices: (tr M)^2 = tr AB + 2 sqrt(det AB).
    mixed = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * mixed

    def coloured(matrix):
        return x @ np.linalg.cholesky(matrix).T

    assert frechet_distance(coloured(a), coloured(b)) == pytest.approx(expected)
    assert frechet_distance(coloured(b), coloured(a)) == pytest.approx(expected)


def test_frechet_of_a_set_to_itself_is_zero():
    x = np.random.default_rng(0).normal(size=(10, 20))  # Singular covariance.
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_kernel_distance_is_the_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    def within(z):
        pairs = [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return np.mean(pairs)

    expected = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_kernel_distance_of_gaussians():
    """In one dimension E (xy + 1)^3 is made of the first three moments."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)) + 1.0
    # Moments 1 to 3 of N(0, 1) and N(1, 1), binomial weights of the kernel.
    gaps = np.array([0.0, 1.0, 0.0]) - np.array([1.0, 2.0, 4.0])
    expected = np.array([3.0, 3.0, 1.0]) @ gaps**2
    assert kernel_distance(x, y) == pytest.approx(expected, rel=0.1)
    assert kernel_distance(x[:2000], x[2000:]) == pytest.approx(0.0, abs=0.3)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    values = [kernel_distance(*rng.normal(size=(2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((1, 3), (5, 3)), ((5,), (5,))])
def test_wrong_features_are_told(distance, shapes):
    with pytest.raises(ValueError, match="Received"):
        distance(*map(np.zeros, shapes))


def test_frame_change_of_steady_motion_is_its_step():
    start = np.random.default_rng(0).normal(size=(5, 1, 3))
    moving = start + np.arange(4)[None, :, None] * np.array([3.0, 0.0, 4.0])
    assert frame_change(moving) == pytest.approx(5.0)
    # Steps of 2, 1 and 2 (up, down, up), as squares: 4, 1 and 4 times 25.
    assert frame_change(moving[:, [0, 2, 1, 3]]) == pytest.approx(5 * np.sqrt(3))


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 3)])
def test_frame_change_needs_frames(shape):
    with pytest.raises(ValueError, match="clips, frames, size"):
        frame_change(np.zeros(shape))
