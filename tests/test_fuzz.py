"""A part of the odd arguments of `fuzz.py`; all of them with `python tests/fuzz.py`."""

import fuzz
import keras
import pytest

pytestmark = pytest.mark.once


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="arguments, not numbers")
@pytest.mark.parametrize("seed", [0])
def test_odd_arguments_are_refused_in_words_or_work(seed, tmp_path):
    assert fuzz.run(100, seed, tmp_path) == []
