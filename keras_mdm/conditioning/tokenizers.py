"""Text to token ids, in plain Python: for the input pipeline, not for the step.

Both tokenizers put the end mark after the text and padding after that, and cut what is
too long. `TextEncoder` owns one; the ids 0 and 1 have the meaning of ByT5's.
"""

import collections
import re
import typing
from collections import abc

import numpy as np

from keras_mdm.text_files import whole_characters

PADDING, END = 0, 1


class Tokenized(typing.NamedTuple):
    """Token ids of some texts, and what got lost on the way.

    Attributes:
        ids: int32 array of shape `(texts, max_tokens)`.
        cut: Tuple of `(text, rest)`: texts that were too long, and the part of each
            that was cut off.
        unknown: Tuple of the words that the vocabulary lacks.
    """

    ids: np.ndarray
    cut: tuple = ()
    unknown: tuple = ()


class ByteTokenizer:
    """UTF-8 bytes as tokens: byte b is the token b + 3, as in ByT5.

    Args:
        max_tokens: int. Length of a row of tokens, the end mark included.

    Example:

    >>> ByteTokenizer(5)(["hi"]).ids
    array([[107, 108,   1,   0,   0]], dtype=int32)

    Reference:
        - [ByT5, Xue et al., 2021](https://arxiv.org/abs/2105.13626), 3.1
    """

    size = 256 + 3  # Padding, end and ByT5's unknown token, which bytes never need.

    def __init__(self, max_tokens):
        self.max_tokens = max_tokens

    def __call__(self, texts):
        rows, cut = [], []
        for text in texts:
            data = text.strip().encode("utf-8", "replace")
            kept = data[: self.max_tokens - 1]
            # A character is kept whole or not at all.
            kept = kept.decode("utf-8", "ignore").encode() if kept != data else data
            if kept != data:
                cut.append((text, data[len(kept) :].decode("utf-8", "replace")))
            rows.append([byte + 3 for byte in kept])
        return Tokenized(_padded(rows, self.max_tokens), tuple(cut))


class WordTokenizer:
    """Words and punctuation marks, in lower case, as tokens.

    Args:
        vocabulary: Sequence of str. Word i is the token i + 3; token 2 stands for
            every other word.
        max_tokens: int. Length of a row of tokens, the end mark included.

    Example:

    >>> WordTokenizer(["red", "circle"], 5)(["Red circle!"]).ids
    array([[3, 4, 2, 1, 0]], dtype=int32)
    """

    def __init__(self, vocabulary, max_tokens):
        self.max_tokens = max_tokens
        self.size = len(vocabulary) + 3
        self._ids = {word: i + 3 for i, word in enumerate(vocabulary)}

    def __call__(self, texts):
        rows, cut, unknown = [], [], {}
        for text in texts:
            found = list(_WORD.finditer(text.lower()))
            kept = found[: self.max_tokens - 1]
            if len(kept) < len(found):
                # Lower case may be longer: the rest is counted from the end.
                rest = len(text.lower()) - found[len(kept)].start()
                cut.append((text, text[len(text) - rest :]))
            words = [match.group() for match in kept]
            unknown.update(dict.fromkeys(w for w in words if w not in self._ids))
            rows.append([self._ids.get(word, 2) for word in words])
        return Tokenized(_padded(rows, self.max_tokens), tuple(cut), tuple(unknown))


_WORD = re.compile(r"\w+|[^\w\s]")


def find_vocabulary(texts, max_words=20_000):
    """Words of some texts for a `WordTokenizer`, the most frequent first.

    Args:
        texts: Sequence or iterator of str.
        max_words: int. Rarer words are left out.

    Returns:
        List of str; words that are equally frequent are sorted.
    """
    counts = collections.Counter(
        word
        for text in as_strings(texts, "texts")
        for word in _WORD.findall(text.lower())
    )
    return sorted(counts, key=lambda word: (-counts[word], word))[:max_words]


def as_strings(texts, name):
    """Yields each of some texts, with U+FFFD for halves of characters.

    Args:
        texts: Sequence, iterator, array or tensor of str, or of UTF-8 bytes as of
            tf.data.
        name: str. What the texts are called in errors.

    Raises:
        ValueError: if they are something else. A single str is, whose letters were
            meant by nobody, and so is a set, whose order nobody knows.
    """
    texts = texts.numpy() if hasattr(texts, "numpy") else texts
    texts = texts.tolist() if isinstance(texts, np.ndarray) else texts
    unordered = isinstance(texts, str | bytes | abc.Mapping | abc.Set)
    if unordered or not isinstance(texts, abc.Iterable):
        raise ValueError(
            f"`{name}` must be a sequence of strings. Received: "
            f"{shortened(repr(texts))} of type {type(texts).__name__}"
        )
    for index, text in enumerate(texts):
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        elif not isinstance(text, str):
            raise ValueError(
                f"`{name}` must be strings. Received: {shortened(repr(text))} of type "
                f"{type(text).__name__} at {index}"
            )
        yield whole_characters(text)


def shortened(text, length=200):
    """A text, or its beginning with dots behind it."""
    return text if len(text) <= length else f"{text[:length]}..."


def _padded(rows, length):
    ids = np.full((len(rows), length), PADDING, "int32")
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
        row[len(tokens)] = END
    return ids
