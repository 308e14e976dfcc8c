"""Digits against scikit-learn's own arrays."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_mdm.data import open_source

pytestmark = pytest.mark.once


def test_splits_are_stratified_and_disjoint():
    train, test = open_source("digits"), open_source("digits", split="test")
    assert len(train) + len(test) == 1797
    assert abs(len(test) / 1797 - 0.2) < 0.01
    total = np.bincount(load_digits().target)
    found = np.bincount([item["label"] for item in test])
    assert np.abs(found - total / 5).max() <= 0.5
    pictures = {item["image"].tobytes() for item in train}
    assert not pictures & {item["image"].tobytes() for item in test}


def test_pictures_are_the_originals_enlarged():
    """Averaged back to 8x8, each is nearest to an original of its class."""
    data = load_digits()
    originals = data.images.reshape(-1, 64) * (255 / 16)
    source = open_source("digits", split="test")
    for index in range(0, len(source), 20):
        item = source[index]
        assert item["image"].shape == (32, 32, 1)
        assert item["image"].dtype == np.uint8
        small = item["image"].reshape(8, 4, 8, 4).mean(axis=(1, 3)).reshape(-1)
        errors = np.abs(originals - small).mean(axis=1)
        assert data.target[errors.argmin()] == item["label"]
        # One of the 17 grey levels.
        assert errors.min() < 16


def test_attributes():
    source = open_source("digits")
    assert source.num_classes == 10
    assert source.class_names == tuple("0123456789")
    assert source.channels == 1


def test_same_every_time():
    one, other = open_source("digits")[3], open_source("digits")[3]
    np.testing.assert_array_equal(one["image"], other["image"])


def test_unknown_split():
    with pytest.raises(ValueError, match="'train', 'test'.*Received: split='dev'"):
        open_source("digits", split="dev")
