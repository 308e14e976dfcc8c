"""Text embeddings that were computed beforehand."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mdm")
class TextEmbeddings(keras.layers.Layer):
    """Conditioner that takes the embeddings of a text encoder as they are.

    Args:
        size: int. Size of an embedding, such as 2048 for FLAN-T5-XL.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: dict with `text_embeddings` of shape `(batch, length, size)` and
            optionally `text_mask` of shape `(batch, length)`, true for tokens and
            false for padding.
        drop: Optional bool tensor of shape `(batch,)`: samples that are given the
            null condition, a single token of zeros.

    Returns:
        A pair: tokens of shape `(batch, length, size)`, and the mask or `None`.
    """

    feature_names = ("text_embeddings", "text_mask")

    def __init__(self, size, **kwargs):
        kwargs.setdefault("name", "text_embeddings")
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape=None):
        pass

    def call(self, features, drop=None):
        tokens = ops.cast(features["text_embeddings"], self.compute_dtype)
        mask = features.get("text_mask")
        if mask is not None:
            mask = ops.cast(mask, "bool")
        if drop is not None:
            tokens = ops.where(drop[:, None, None], ops.zeros_like(tokens), tokens)
            first = ops.arange(tokens.shape[1]) == 0
            if mask is None:
                mask = ops.ones(ops.shape(tokens)[:2], dtype="bool")
            mask = ops.where(drop[:, None], first[None, :], mask)
        return tokens, mask

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "size": self.size,
        }
