"""Texts become the numbers that the papers say, and what is cut is told."""

import numpy as np

from keras_mdm.conditioning.tokenizers import (
    ByteTokenizer,
    WordTokenizer,
    find_vocabulary,
)


def test_bytes_are_those_of_byt5():
    # ByT5's tokenizer gives these numbers for "Life é".
    found = ByteTokenizer(9)(["Life é", ""])
    assert found.ids.dtype == np.int32
    assert found.ids.tolist() == [
        [79, 108, 105, 104, 35, 198, 172, 1, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert found.cut == ()


def test_bytes_are_cut_between_characters():
    found = ByteTokenizer(4)(["aéé", "abc"])
    assert bytes(b - 3 for b in found.ids[0] if b > 2).decode() == "aé"
    assert found.ids[0, 3] == 1
    assert found.cut == (("aéé", "é"),)


def test_words_and_marks():
    tokenizer = WordTokenizer(["red", "circle", ","], 6)
    found = tokenizer(["Red circle, red!", " \n"])
    assert found.ids.tolist() == [[3, 4, 5, 3, 2, 1], [1, 0, 0, 0, 0, 0]]
    assert found.unknown == ("!",) and tokenizer.size == 6


def test_words_that_are_too_many_are_told():
    found = WordTokenizer(["red"], 3)(["red Red  RED circle"])
    assert found.ids.tolist() == [[3, 3, 1]]
    assert found.cut == (("red Red  RED circle", "RED circle"),)
    # Words that were cut off are not unknown as well.
    assert found.unknown == ()


def test_vocabulary_has_the_frequent_words_first():
    texts = ["b a, b", "B c"]
    assert find_vocabulary(texts) == ["b", ",", "a", "c"]
    assert find_vocabulary(texts, max_words=2) == ["b", ","]
