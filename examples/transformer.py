"""A small transformer as the innermost level inside a `NestedUNet`.

    python examples/transformer.py --steps 400

Everything that is particular to it is the class `Transformer`, a `Denoiser`. Training,
drawing at each resolution, progressive stages and presets come from `MDM` and
`NestedUNet`. Trains on scikit-learn's handwritten digits and draws some.
"""

import argparse

import keras
import numpy as np
from keras import ops
from PIL import Image

import keras_mdm
from keras_mdm import data
from keras_mdm.layers import (
    Conv3x3,
    Dense,
    LayerNorm,
    TimestepEmbedding,
    TokenBlock,
    TokenConditioning,
    standardize,
)


@keras.saving.register_keras_serializable("examples")
class Transformer(keras_mdm.Denoiser):
    """Transformer over patches of a small picture; time and class are tokens.

    Args:
        resolution: int. Height and width, a multiple of `patch`.
        width: int. Size of a token, a multiple of 8.
        num_blocks: int.
        patch: int. Height and width of a patch. Defaults to 2.
        feature_channels: int. Channels of what it shares with the network around it.
        image_channels: int. Defaults to 3.
        conditioner: Optional layer of `keras_mdm.conditioning`.
        dtype: Dtype policy.
        name: str.

    Reference:
        - [Peebles and Xie, 2022](https://arxiv.org/abs/2212.09748), 3.2, "in-context"
    """

    def __init__(
        self,
        resolution,
        width,
        num_blocks,
        patch=2,
        feature_channels=32,
        image_channels=3,
        conditioner=None,
        dtype=None,
        name="transformer",
    ):
        options = {
            "resolution": resolution,
            "width": width,
            "num_blocks": num_blocks,
            "patch": patch,
            "feature_channels": feature_channels,
            "image_channels": image_channels,
        }
        super().__init__(options, conditioner=conditioner, dtype=dtype, name=name)
        self.embedding_size = width
        policy = self.dtype_policy
        self.time_embedding = TimestepEmbedding(
            width, dtype=policy, name="time_embedding"
        )
        self.tokens = None
        if conditioner is not None:
            self.token_size = width
            self.tokens = TokenConditioning(
                conditioner.size, width, width, dtype=policy, name="tokens"
            )
        self.count = (resolution // patch) ** 2
        self.enter = Conv3x3(
            image_channels, feature_channels, dtype=policy, name="enter"
        )
        area = patch * patch * feature_channels
        self.to_tokens = Dense(area, width, dtype=policy, name="to_tokens")
        self.blocks = [
            TokenBlock(width, dtype=policy, name=f"block_{i}")
            for i in range(num_blocks)
        ]
        self.norm = LayerNorm(width, dtype=policy, name="norm")
        self.to_features = Dense(width, area, dtype=policy, name="to_features")
        self.leave = Conv3x3(
            feature_channels, image_channels, zero=True, dtype="float32", name="leave"
        )
        self.build()

    def build(self, input_shape=None):
        self.places = self.add_weight(
            shape=(self.count, self.width),
            initializer=keras.initializers.RandomNormal(0.02, seed=0),
            name="places",
        )
        super().build()

    def encode_condition(self, features, drop=None):
        if self.own_conditioner is None:
            return None
        tokens, mask = self.own_conditioner(features, drop=drop)
        tokens, embedding = self.tokens(tokens, mask)
        return {"embedding": embedding, "tokens": standardize(tokens), "mask": mask}

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outer_features=None,
        training=False,
    ):
        x = self.enter(ops.cast(images[-1], self.compute_dtype))
        if outer_features is not None:
            x = x + outer_features
        tokens = self.to_tokens(self._patches(x)) + ops.cast(
            self.places, self.compute_dtype
        )
        context = [self.time_embedding(timesteps)[:, None]]
        if condition is not None:
            context.append(condition["embedding"][:, None])
        sequence = ops.concatenate(
            [tokens, *(ops.cast(c, tokens.dtype) for c in context)], axis=1
        )
        for block in self.blocks:
            sequence = block(sequence)
        h = self.to_features(self.norm(sequence[:, : self.count]))
        x = x + self._pixels(h)
        return [self.leave(ops.cast(x, "float32"))], x

    def _patches(self, x):
        side, patch = self.resolution // self.patch, self.patch
        x = ops.reshape(x, (-1, side, patch, side, patch, self.feature_channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, self.count, patch * patch * self.feature_channels))

    def _pixels(self, tokens):
        side, patch = self.resolution // self.patch, self.patch
        x = ops.reshape(tokens, (-1, side, side, patch, patch, self.feature_channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(
            x, (-1, self.resolution, self.resolution, self.feature_channels)
        )


def make_network(width=96, num_blocks=4):
    """32 pixels by convolutions around 16 pixels by a transformer."""
    inner = Transformer(
        16,
        width,
        num_blocks,
        image_channels=1,
        conditioner=keras_mdm.ClassLabels(10, size=64),
    )
    return keras_mdm.NestedUNet(inner, (16, 32), num_residual_blocks=1, groups=8)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="training steps (400)")
    parser.add_argument("--output", default="transformer.png", help="image to write")
    args = parser.parse_args(arguments)
    mdm = keras_mdm.MDM(make_network(), ema_momentum=0.99, seed=0)
    mdm.compile(keras_mdm.AdamW(1e-3))
    digits = data.open_source("digits")
    dataset = data.make_dataset(digits, 32, batch_size=32, repeat=True, seed=0)
    mdm.fit(dataset, steps_per_epoch=args.steps)
    images = mdm.generate(labels=range(10), num_steps=20, seed=0)
    Image.fromarray(np.concatenate(list(images[..., 0]), axis=1)).save(args.output)
    print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
