"""Embeddings of a frozen text encoder: computed beforehand, or by one attached."""

import keras
import numpy as np
from keras import ops

from keras_mdm.checks import check_flags, check_whole
from keras_mdm.conditioning.text import TextConditioner, check_mask


@keras.saving.register_keras_serializable("keras_mdm")
class TextEmbeddings(TextConditioner):
    """Conditioner that takes the embeddings of a text encoder as they are.

    Batches bring embeddings that were computed beforehand (`tools/encode_captions.py`).
    To give texts instead, set `encoder`: the model neither trains nor saves it.

    Args:
        size: int. Size of an embedding, such as 2048 for FLAN-T5-XL.
        max_tokens: int. Length of the rows of embeddings that `encode_texts` makes.
            Defaults to 128.
        encoder_name: Optional str. Which encoder the model was trained with, such as
            `"google/flan-t5-xl"`: for people and errors, nothing is loaded by it.
        as_encoded: bool. Whether `generate` takes embeddings as the encoder makes them:
            prompts are padded to the longest of them and of their negative prompts, and
            the empty text is embedded like any other. So were the released models
            trained, which attend to padding and have no null condition. Defaults to
            `False`: rows have `max_tokens`, and the empty text is the null condition.
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

    def __init__(
        self, size, max_tokens=128, encoder_name=None, as_encoded=False, **kwargs
    ):
        kwargs.setdefault("name", "text_embeddings")
        super().__init__(**kwargs)
        self.size = size
        self.max_tokens = max_tokens
        self.encoder_name = encoder_name
        check_whole(size=size, max_tokens=max_tokens)
        check_flags(as_encoded=as_encoded)
        self.as_encoded = as_encoded
        # In a function: Keras tracks and saves a layer that is an attribute.
        self._attached = lambda: None

    def build(self, input_shape=None):
        pass

    @property
    def encoder(self):
        """Encoder of texts, or `None`.

        An object with `size` and `encode(texts)`, which returns float32 embeddings of
        shape `(texts, tokens, size)` and a bool mask of shape `(texts, tokens)`. If it
        also has `find_cut(texts)`, which returns texts that are too long, each with the
        part that is cut off, a warning shows them.
        """
        return self._attached()

    @encoder.setter
    def encoder(self, encoder):
        if encoder is not None and encoder.size != self.size:
            raise ValueError(
                f"`encoder` must yield embeddings of the size {self.size} that the "
                f"model's conditioner was made for. Received: size {encoder.size}"
            )
        self._attached = lambda: encoder

    def call(self, features, drop=None):
        tokens = ops.cast(features["text_embeddings"], self.compute_dtype)
        mask = features.get("text_mask")
        if mask is not None:
            mask = ops.cast(mask, "bool")
        if drop is not None:
            tokens = ops.where(drop[:, None, None], ops.zeros_like(tokens), tokens)
            first = ops.arange(tokens.shape[1], dtype="int32") == 0
            if mask is None:
                mask = ops.ones(ops.shape(tokens)[:2], dtype="bool")
            mask = ops.where(drop[:, None], first[None, :], mask)
        return tokens, mask

    def check_features(self, features):
        embeddings = features.get("text_embeddings")
        if embeddings is None:
            return
        shape = tuple(embeddings.shape)
        if len(shape) != 3 or shape[-1] != self.size:
            raise ValueError(
                f"'text_embeddings' must have the shape (batch, tokens, {self.size}): "
                f"the model's conditioner was made for the size {self.size}. "
                f"Received: shape={shape}"
            )
        if not shape[1]:
            raise ValueError(
                "'text_embeddings' must have at least one token. "
                f"Received: shape={shape}"
            )
        _check_finite("text_embeddings", np.asarray(embeddings))
        if features.get("text_mask") is None:
            return
        mask = np.asarray(features["text_mask"])
        if mask.shape != shape[:2]:
            raise ValueError(
                f"'text_mask' must have the shape {shape[:2]} of the embeddings. "
                f"Received: shape={mask.shape}"
            )
        _check_finite("text_mask", mask)
        check_mask("text_mask", mask != 0)

    def _encode(self, texts):
        if self.encoder is None:
            which = self.encoder_name or f"with embeddings of size {self.size}"
            raise ValueError(
                "the model reads embeddings of texts, and no text encoder is attached. "
                "Give `text_embeddings` and `text_mask`, or set "
                f"`mdm.text_encoder` to an encoder ({which}), such as "
                "`keras_mdm.conditioning.t5.T5Encoder.from_hugging_face(folder)`."
            )
        encoded, encoded_mask = self.encoder.encode(texts)
        cut = list(getattr(self.encoder, "find_cut", lambda texts: ())(texts))
        for text, count in zip(texts, np.sum(encoded_mask, axis=1), strict=True):
            if count > self.max_tokens:
                rest = f"the last {count - self.max_tokens} of its {count} tokens"
                cut.append((text, rest))
        embeddings = np.zeros((len(texts), self.max_tokens, self.size), "float32")
        mask = np.zeros(embeddings.shape[:2], "bool")
        length = min(np.shape(encoded)[1], self.max_tokens)
        mask[:, :length] = encoded_mask[:, :length]
        embeddings[:, :length] = encoded[:, :length]
        # Padding is zero, as in training data that were read from disk.
        embeddings[~mask] = 0.0
        if not self.as_encoded:
            null = [not text.strip() for text in texts]
            embeddings[null] = 0.0
            mask[null] = np.arange(self.max_tokens) == 0
        return {"text_embeddings": embeddings, "text_mask": mask}, cut, ()

    def encode_prompts(self, texts, name):
        features = super().encode_prompts(texts, name)
        if not self.as_encoded:
            return features
        longest = int(features["text_mask"].sum(axis=1).max())
        return {key: value[:, :longest] for key, value in features.items()}

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "size": self.size,
            "max_tokens": self.max_tokens,
            "encoder_name": self.encoder_name,
            "as_encoded": self.as_encoded,
        }


def _check_finite(name, values):
    """Raises a `ValueError` unless an array has nothing but finite numbers."""
    if values.dtype.kind in "OSUMmc":
        raise ValueError(f"'{name}' must be numbers. Received: dtype={values.dtype}")
    # As steps take them: wide numbers may be too large for float32.
    with np.errstate(over="ignore"):
        narrow = values if values.dtype.itemsize <= 4 else values.astype("float32")
    finite = np.isfinite(narrow).all(axis=tuple(range(1, narrow.ndim)))
    if not finite.all():
        raise ValueError(
            f"'{name}' must be finite numbers. Received: NaN or infinity in entry "
            f"{int(np.argmin(finite))}"
        )
