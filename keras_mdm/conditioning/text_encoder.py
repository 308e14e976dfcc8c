"""A small text encoder that is trained together with the network."""

import keras
import numpy as np
from keras import ops

from keras_mdm.conditioning.text import TextConditioner, check_mask
from keras_mdm.conditioning.tokenizers import (
    END,
    PADDING,
    ByteTokenizer,
    WordTokenizer,
)
from keras_mdm.layers.initializers import HostNormal
from keras_mdm.layers.primitives import LayerNorm, build_children
from keras_mdm.layers.tokens import TokenBlock


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
        if max_tokens < 2:
            raise ValueError(
                "`max_tokens` must be at least 2: a token and the end mark. "
                f"Received: max_tokens={max_tokens}"
            )
        self.size = size
        self.vocabulary = None
        self.tokenizer = ByteTokenizer(max_tokens)
        if vocabulary is not None:
            self.vocabulary = tuple(vocabulary)
            self.tokenizer = WordTokenizer(self.vocabulary, max_tokens)
        self.max_tokens = max_tokens
        self.num_heads = num_heads
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
        ids = ops.cast(features["token_ids"], "int32")
        if drop is not None:
            empty = ops.where(
                ops.arange(self.max_tokens, dtype="int32") == 0, END, PADDING
            )
            ids = ops.where(drop[:, None], ops.cast(empty, "int32")[None, :], ids)
        mask = ids != PADDING
        tokens = ops.take(self.table, ids, axis=0) + self.positions
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.norm(tokens), mask

    def check_features(self, features):
        ids = features.get("token_ids")
        if ids is None:
            return
        ids = np.asarray(ids)
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
