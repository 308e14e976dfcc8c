"""The judge learns easy classes in seconds and is the same for the same seed."""

import numpy as np
import pytest

from keras_mdm.metrics import Judge
from keras_mdm.metrics.judge import _shifted


def stripes(count, seed):
    """Noisy pictures of class 0 (bright above) or 1 (bright below)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 150
    return images.astype("uint8"), labels


@pytest.fixture(scope="module")
def judge():
    judge = Judge(8, channels=1, num_classes=2, seed=1)
    judge.fit(*stripes(128, 0), epochs=4)
    return judge


def test_reads_new_pictures(judge):
    images, labels = stripes(130, 1)
    assert judge.accuracy(images, labels) > 0.95
    assert judge.accuracy(images, 1 - labels) < 0.05
    assert judge.classify(images).shape == (130,)


def test_features_have_unit_size_and_do_not_depend_on_the_batch(judge):
    images, _ = stripes(130, 0)
    features = judge.features(images)
    assert features.shape == (130, 64)
    assert np.sqrt(np.mean(features**2)) == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(judge.features(images[:3]), features[:3], atol=1e-4)


def test_same_seed_same_judge(judge):
    again = Judge(8, channels=1, num_classes=2, seed=1)
    again.fit(*stripes(128, 0), epochs=4)
    images, _ = stripes(10, 2)
    np.testing.assert_allclose(
        again.features(images), judge.features(images), atol=1e-3
    )


def test_shifts_stay_within_reach():
    image = np.arange(32 * 32, dtype="int32").reshape(1, 32, 32, 1)
    rng = np.random.default_rng(0)
    moved = _shifted(np.repeat(image, 50, axis=0), rng, 2)
    assert moved.shape == (50, 32, 32, 1)
    gap = image[0, 16, 16, 0] - moved[:, 16, 16, 0]
    allowed = {32 * down + right for down in range(-2, 3) for right in range(-2, 3)}
    assert set(gap.tolist()) <= allowed and len(set(gap.tolist())) > 5


def test_wrong_counts_are_told():
    judge = Judge(8, channels=1, num_classes=2)
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        judge.fit(np.zeros((3, 8, 8, 1), "uint8"), [0, 1])
