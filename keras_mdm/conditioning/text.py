"""What conditioners on text have in common: texts go in, the batch's features come out.

`TextEncoder` and `TextEmbeddings` derive from `TextConditioner`. Texts become arrays on
the host, before any compiled step: `MDM.fit` and `MDM.generate` see to that.
"""

import warnings

import keras
import numpy as np


class TextConditioner(keras.layers.Layer):
    """Base of the conditioners on text.

    Sub-classes have `size`, `feature_names`, a call `(features, drop)` as every
    conditioner, `check_features(features)` and `_encode(texts)`.
    """

    def encode_texts(self, texts, name="captions", warn=True):
        """Turns texts into the features that the conditioner reads.

        Args:
            texts: Sequence of str. An empty one gives the null condition.
            name: str. What the texts are called in errors and warnings.
            warn: bool. Whether texts that were cut, and words that the vocabulary
                lacks, are told of. Defaults to `True`.

        Returns:
            dict of numpy arrays, by the names in `feature_names`.

        Raises:
            ValueError: if a text is not a string, or there is nothing to encode with.
        """
        texts = check_texts(texts, name)
        features, cut, unknown = self._encode(texts)
        if warn and cut:
            shown = "; ".join(
                f"{_shortened(rest)!r} of {_shortened(text)!r}"
                for text, rest in cut[:5]
            )
            warnings.warn(
                f"`{name}`: {len(cut)} of {len(texts)} texts are longer than the "
                f"{self.max_tokens} tokens that the model reads. Cut off: {shown}",
                stacklevel=3,
            )
        if warn and unknown:
            warnings.warn(
                f"`{name}`: the model does not know the words {sorted(unknown)[:20]} "
                "and takes each for the same unknown word.",
                stacklevel=3,
            )
        return features

    def encode_prompts(self, texts, name):
        """Turns the texts of one call of `generate` into features; see `encode_texts`.

        They may have another length than those of `fit`, which never changes.
        """
        return self.encode_texts(texts, name)

    def check_features(self, features):
        """Raises a `ValueError` if a feature in a dict has a wrong shape."""
        raise NotImplementedError

    def _encode(self, texts):
        """Features, texts that were cut (with their rest), and unknown words."""
        raise NotImplementedError


def check_texts(texts, name):
    """Returns texts as a list of str.

    Args:
        texts: Sequence or array of str, or of UTF-8 bytes as tf.data yields them.
        name: str. What the texts are called in the error.

    Raises:
        ValueError: if one is not a string.
    """
    if hasattr(texts, "numpy"):
        texts = texts.numpy()  # A string tensor of tf.data.
    texts = texts.tolist() if isinstance(texts, np.ndarray) else list(texts)
    for number, text in enumerate(texts):
        if isinstance(text, bytes):
            texts[number] = text.decode("utf-8", "replace")
        elif not isinstance(text, str):
            raise ValueError(
                f"`{name}` must be strings. Received: {_shortened(repr(text))} of type "
                f"{type(text).__name__} at {number}"
            )
    return texts


def check_mask(name, mask):
    """Raises a `ValueError` if a text has no token at all: their mean would be NaN.

    Args:
        name: str. What the mask, or the ids it was made of, is called in the error.
        mask: Bool array of shape `(texts, tokens)`, true for tokens.
    """
    empty = ~np.asarray(mask).any(axis=1)
    if empty.any():
        raise ValueError(
            f"'{name}' must have a token in each entry; that of an empty text is the "
            f"end mark or a token of zeros. Received: none in entry {np.argmax(empty)}"
        )


def _shortened(text, length=200):
    return text if len(text) <= length else f"{text[:length]}..."
