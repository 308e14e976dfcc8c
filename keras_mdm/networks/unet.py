"""UNet: the innermost network, which holds most of the parameters."""

import keras
from keras import ops

from keras_mdm.checks import check_whole
from keras_mdm.layers import ResidualBlock, TokenConditioning, standardize
from keras_mdm.levels import level_name
from keras_mdm.networks.blocks import per_frame
from keras_mdm.networks.paths import PathNetwork, check_kinds


@keras.saving.register_keras_serializable("keras_mdm")
class UNet(PathNetwork):
    """U-shaped denoiser of one resolution, on its own or inside a `NestedUNet`.

    Args:
        resolution: int. Height and width of its pictures, in pixels; a multiple
            of `2 ** (len(channels) - 1)`.
        channels: Sequence of int. Width at `resolution`, at half of it, and so on.
        num_residual_blocks: int, or one int for each of `channels`. Residual
            blocks on the way down; the way up has one more. Defaults to 2.
        num_attention_layers: int, or one int for each of `channels`. Attention
            layers after each residual block; 0 for none. Defaults to 0.
        conditioner: Optional layer of `keras_mdm.conditioning` that turns labels
            or text into tokens. Defaults to `None`: unconditional.
        token_projection_size: int or `None`. Size to which tokens are projected
            before they are used. Defaults to `None`: as they are.
        num_token_blocks: int. Transformer blocks over the tokens. Defaults to 0.
        masked_attention: bool. Whether attention leaves out padded tokens.
            Defaults to `True`; the released checkpoints were trained with `False`.
        pooled_condition: bool. Whether the pooled condition is added to the time
            embedding. Defaults to `True`.
        embedding_size: int or `None`. Size of the time embedding, a multiple of 8.
            Defaults to four times the first of `channels`.
        micro_conditioning: dict or `None`. Extra numbers by name with their
            defaults, such as `{"scale": 64.0}`. Defaults to `None`.
        frames: int. Frames of a clip; 1 for pictures. Layers other than temporal
            attention work on each frame on its own. Defaults to 1.
        num_temporal_attention_layers: int, or one int for each of `channels`.
            Attention layers over frames after each residual block. They start as the
            identity. Defaults to 0.
        rotary_positions: bool. Whether these know the places of frames. Defaults to
            `False`.
        mid_blocks: bool. Whether two residual blocks with one attention layer
            stand at the lowest resolution. Defaults to `True`.
        num_heads: int. Heads of every attention layer. Defaults to 8.
        attention_feed_forward: bool. Whether attention is followed by a
            feed-forward layer. Defaults to `True`.
        groups: int. Groups of the normalizations. Defaults to 32.
        dropout: float. Share of features dropped in training. Defaults to 0.
        image_channels: int. Channels of the pictures. Defaults to 3.
        remat: bool. Whether activations are computed again in the backward pass,
            which saves memory and costs about a third more time. Defaults to `False`.
        dtype: Dtype policy, such as `"mixed_bfloat16"`.
        name: str. Defaults to `unet_{resolution}`.

    Call arguments:
        inputs: dict with `images` (a list of one tensor of shape
            `(batch, resolution, resolution, image_channels)`), `timesteps` of
            shape `(batch,)` and the features that the conditioner reads.

    Returns:
        A list of one float32 tensor of the shape of the picture.

    Example:

    ```python
    network = keras_mdm.UNet(16, channels=(32, 64), num_attention_layers=(0, 1))
    network({"images": [noisy], "timesteps": timesteps})
    ```
    """

    def __init__(
        self,
        resolution,
        channels,
        num_residual_blocks=2,
        num_attention_layers=0,
        conditioner=None,
        token_projection_size=None,
        num_token_blocks=0,
        masked_attention=True,
        pooled_condition=True,
        embedding_size=None,
        micro_conditioning=None,
        frames=1,
        num_temporal_attention_layers=0,
        rotary_positions=False,
        mid_blocks=True,
        num_heads=8,
        attention_feed_forward=True,
        groups=32,
        dropout=0.0,
        image_channels=3,
        remat=False,
        dtype=None,
        name=None,
    ):
        # Of both is its name, which Keras would refuse in other words.
        check_whole(resolution=resolution, frames=frames)
        check_whole(0, num_token_blocks=num_token_blocks)
        if token_projection_size is not None:
            check_whole(token_projection_size=token_projection_size)
            token_projection_size = int(token_projection_size)
        check_kinds(channels, micro_conditioning, mid_blocks=mid_blocks)
        options = {
            "resolution": resolution,
            "channels": tuple(channels),
            "num_residual_blocks": num_residual_blocks,
            "num_attention_layers": num_attention_layers,
            "token_projection_size": token_projection_size,
            "num_token_blocks": num_token_blocks,
            "masked_attention": masked_attention,
            "pooled_condition": pooled_condition,
            "embedding_size": embedding_size,
            "micro_conditioning": dict(micro_conditioning or {}),
            "frames": frames,
            "num_temporal_attention_layers": num_temporal_attention_layers,
            "rotary_positions": rotary_positions,
            "mid_blocks": mid_blocks,
            "num_heads": num_heads,
            "attention_feed_forward": attention_feed_forward,
            "groups": groups,
            "dropout": dropout,
            "image_channels": image_channels,
            "remat": remat,
        }
        super().__init__(
            options,
            conditioner=conditioner,
            dtype=dtype,
            name=name or f"unet_{level_name(resolution, frames)}",
        )
        factor = 2 ** (len(self.channels) - 1)
        if resolution < factor or resolution % factor:
            raise ValueError(
                f"`resolution` must be a multiple of {factor} for "
                f"{len(self.channels)} widths in `channels`. "
                f"Received: resolution={resolution}"
            )
        self.tokens = None
        if conditioner is not None:
            self.tokens = TokenConditioning(
                conditioner.size,
                self.embedding_size,
                token_projection_size,
                num_token_blocks,
                masked_attention,
                dtype=self.dtype_policy,
                name="tokens",
            )
            self.token_size = self.tokens.token_size
        self._make_paths()
        self.mid_block = self.mid_residual = None
        if mid_blocks:
            width = self.channels[-1]
            last = len(self.channels) - 1
            self.mid_block = self._block([(width, width)], last, "mid_block", layers=1)
            self.mid_residual = ResidualBlock(
                width,
                width,
                self.embedding_size,
                groups,
                dropout,
                dtype=self.dtype_policy,
                name="mid_residual",
            )
        self.build()

    def encode_condition(self, features, drop=None):
        if self.own_conditioner is None:
            return None
        tokens, mask = self.own_conditioner(features, drop=drop)
        tokens, embedding = self.tokens(tokens, mask)
        tokens = standardize(tokens)
        return {
            "embedding": embedding,
            "tokens": tokens,
            "mask": mask,
            "keys_values": {
                block.name: block.keys_values(tokens) for _, block in self.blocks()
            },
        }

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outer_features=None,
        training=False,
    ):
        embedding = ops.silu(self.embed(timesteps, condition, features or {}))
        prediction, x = self.denoise_embedded(
            images[-1], embedding, condition, outer_features, training
        )
        return [prediction], x

    def denoise_embedded(
        self, image, embedding, condition, outer_features, training, hook=None
    ):
        """`denoise` of pictures whose timesteps and conditions are embedded already.

        Args:
            image: Noisy pictures or clips.
            embedding: Tensor of shape `(batch, embedding_size)`: what `embed` returns,
                after its SiLU.
            condition, outer_features, training: See `denoise`.
            hook: Optional function, see `ResolutionBlock.down`.

        Returns:
            A pair: the prediction and the last features.
        """
        keys_values, mask = {}, None
        if condition is not None:
            keys_values = condition["keys_values"]
            mask = condition["mask"] if self.masked_attention else None
        inputs = (embedding, keys_values, mask, training)
        x, skips = self._go_down(self._enter(image, outer_features), *inputs, hook)
        if self.mid_block is not None:
            pairs = keys_values.get(self.mid_block.name)
            x = self.mid_block.middle(
                x, embedding, pairs, mask, training, self.frames, hook
            )
            embeddings = per_frame(embedding, self.frames)
            x = self.mid_residual(x, embeddings, training=training)
        x = self._go_up(x, skips, *inputs, hook)
        return self._predict(x), x

    def blocks(self):
        """Pairs of the place of a block on the path, 0 the outermost, and the block."""
        last = len(self.channels) - 1
        yield from enumerate(self.down_blocks)
        if self.mid_block is not None:
            yield last, self.mid_block
        for i, block in enumerate(self.up_blocks):
            yield last - i, block
