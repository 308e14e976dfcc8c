"""Conditioners on text: what they have in common, and one that is trained jointly.

Texts become arrays on the host, before any compiled step: `MDM.fit` and `MDM.generate`
see to that. `TextEmbeddings`, for a frozen encoder, is in `embeddings`.
"""

import warnings

import keras
import numpy as np
from keras import ops

from keras_mdm.checks import check_whole
from keras_mdm.conditioning.tokenizers import (
    END,
    PADDING,
    ByteTokenizer,
    WordTokenizer,
    as_strings,
    shortened,
)
from keras_mdm.layers.initializers import HostNormal
from keras_mdm.layers.primitives import LayerNorm, build_children
from keras_mdm.layers.tokens import TokenBlock


class TextConditioner(keras.layers.Layer):
    """Base of the conditioners on text.

    Sub-classes have `size`, `feature_names`, a call `(features, drop)` as every
    conditioner, `check_features(features)`, which raises a `ValueError` if a feature
    in a dict is wrong, and `_encode(texts)`, which returns features, texts that were
    cut (pairs of a text and its rest), and unknown words.
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
        texts = list(as_strings(texts, name))
        features, cut, unknown = self._encode(texts)
        if warn and cut:
            shown = "; ".join(
                f"{shortened(rest)!r} of {shortened(text)!r}" for text, rest in cut[:5]
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


@keras.saving.register_keras_serializable("keras_mdm")
class TextEncoder(TextConditioner):
    """Conditioner that reads text with a small Transformer, trained jointly.

    It needs no download: its tokens are bytes, or the words of its vocabulary. The null
    condition of guidance is the empty text.

    Args:
        size: int. Size of the tokens that it yields, a multiple of `num_heads`.
        vocabulary: Optional sequence of str: words in lower case; see
            `keras_mdm.conditioning.find_vocabulary`. Defaults to `None`: tokens are
            UTF-8 bytes.
        max_tokens: int. Longer texts are cut. Defaults to 128.
        num_layers: int. Transformer layers. Defaults to 2.
        num_heads: int. Attention heads of each. Defaults to 4.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: dict with `token_ids`, an int tensor of shape `(batch, max_tokens)`
            that `encode_texts` made.
        drop: Optional bool tensor of shape `(batch,)`: samples that are given the
            null condition.

    Returns:
        A pair: tokens of shape `(batch, max_tokens, size)`, and a bool mask of shape
        `(batch, max_tokens)`, false for padding.

    Example:

    ```python
    encoder = keras_mdm.TextEncoder(128, max_tokens=64)
    unet = keras_mdm.UNet(
        16, (32, 64), num_attention_layers=(0, 1), conditioner=encoder
    )
    ```
    """

    feature_names = ("token_ids",)

    def __init__(
        self,
        size,
        vocabulary=None,
        max_tokens=128,
        num_layers=2,
        num_heads=4,
        **kwargs,
    ):
        kwargs.setdefault("name", "text_encoder")
        super().__init__(**kwargs)
        # A token and the end mark.
        check_whole(2, max_tokens=max_tokens)
        check_whole(size=size, num_heads=num_heads)
        check_whole(0, num_layers=num_layers)
        if size % num_heads:
            raise ValueError(
                "`size` must be a multiple of `num_heads`. "
                f"Received: size={size}, num_heads={num_heads}"
            )
        self.size = size = int(size)
        self.max_tokens = max_tokens
        self.num_heads = num_heads
        if vocabulary is not None:
            vocabulary = tuple(as_strings(vocabulary, "vocabulary"))
        self.vocabulary = vocabulary
        self.tokenizer = (
            ByteTokenizer(max_tokens)
            if vocabulary is None
            else WordTokenizer(self.vocabulary, max_tokens)
        )
        policy = self.dtype_policy
        self.blocks = [
            TokenBlock(size, num_heads, dtype=policy, name=f"block_{i}")
            for i in range(num_layers)
        ]
        self.norm = LayerNorm(size, dtype=policy, name="norm")

    def build(self, input_shape=None):
        self.table = self.add_weight(
            shape=(self.tokenizer.size, self.size),
            initializer=HostNormal(1.0),
            name="table",
        )
        self.positions = self.add_weight(
            shape=(self.max_tokens, self.size),
            initializer=HostNormal(0.5),
            name="positions",
        )
        build_children(self)

    def call(self, features, drop=None):
        ids = ops.cast(features["token_ids"], "int32")  # (batch, max_tokens)
        if drop is not None:
            empty = np.full(self.max_tokens, PADDING, "int32")
            empty[0] = END
            ids = ops.where(drop[:, None], empty[None, :], ids)
        mask = ids != PADDING
        tokens = ops.take(self.table, ids, axis=0) + self.positions
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.norm(tokens), mask

    def check_features(self, features):
        if features.get("token_ids") is None:
            return
        ids = np.asarray(features["token_ids"])
        if ids.shape[1:] != (self.max_tokens,) or ids.dtype.kind not in "iu":
            raise ValueError(
                f"'token_ids' must be whole numbers of shape (batch, "
                f"{self.max_tokens}). Received: shape={ids.shape}, dtype={ids.dtype}"
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.size:
            raise ValueError(
                f"'token_ids' must be from 0 to {self.tokenizer.size - 1}. "
                f"Received: values from {ids.min()} to {ids.max()}"
            )
        check_mask("token_ids", ids != PADDING)

    def _encode(self, texts):
        found = self.tokenizer(texts)
        return {"token_ids": found.ids}, found.cut, found.unknown

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "size": self.size,
            "vocabulary": None if self.vocabulary is None else list(self.vocabulary),
            "max_tokens": self.max_tokens,
            "num_layers": len(self.blocks),
            "num_heads": self.num_heads,
        }
