"""Models and encoders on text for the tests, small and without any download."""

import numpy as np

import keras_mdm

WORDS = ("a", "blue", "circle", "red", "square")


class FakeEncoder:
    """An encoder in the interface of `T5Encoder`: a token for each word."""

    size = 8
    max_tokens = 6

    def __init__(self):
        self.encoded = []

    def encode(self, texts):
        self.encoded += texts
        mask = np.zeros((len(texts), self.max_tokens), "bool")
        embeddings = np.zeros((*mask.shape, self.size), "float32")
        for row, text in enumerate(texts):
            words = text.split()[: self.max_tokens - 1]
            mask[row, : len(words) + 1] = True
            for place, word in enumerate(words):
                rng = np.random.default_rng(sum(word.encode()))
                embeddings[row, place] = rng.normal(size=self.size)
        return embeddings, mask


def text_mdm(conditioner, resolution=8, masked_attention=True, **options):
    """A tiny `MDM` with attention to the conditioner's tokens."""
    network = keras_mdm.UNet(
        resolution,
        (32,),
        num_residual_blocks=1,
        num_attention_layers=1,
        conditioner=conditioner,
        masked_attention=masked_attention,
        num_heads=2,
        groups=8,
        image_channels=1,
        mid_blocks=False,
    )
    options = {"ema_momentum": None, "seed": 0, "sampling": {"num_steps": 2}, **options}
    return keras_mdm.MDM(network, **options)


def word_encoder(**options):
    options = {"max_tokens": 6, "num_layers": 1, "num_heads": 2, **options}
    return keras_mdm.TextEncoder(8, vocabulary=WORDS, **options)
