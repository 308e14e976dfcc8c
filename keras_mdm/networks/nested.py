"""NestedUNet: one more level around any network."""

import keras
from keras import ops

from keras_mdm.layers import Conv3x3
from keras_mdm.levels import first, level_name
from keras_mdm.networks.paths import PathNetwork, check_kinds
from keras_mdm.networks.protocol import Denoiser


@keras.saving.register_keras_serializable("keras_mdm")
class NestedUNet(PathNetwork):
    """Denoiser of a larger resolution around a network of the resolution below.

    Its way down ends at the resolution of `inner`. There its features, through a
    zero-initialized 3x3 convolution, are added to the inner network's input; the
    inner network's last features come back through another one; then follows its
    way up. A new level therefore does not disturb the network inside it.

    Args:
        inner: `Denoiser`, such as `UNet`, `NestedUNet` or `InflatedUNet`. The network
            of the level below.
        channels: Sequence of int. Width at each resolution of the path, largest
            first. Its resolution is `inner.resolution * 2 ** (len(channels) - 1)`.
        num_residual_blocks: int, or one int for each of `channels`. Defaults to 2.
        num_attention_layers: int, or one int for each of `channels`. Defaults to 0.
        temporal_resampling: bool. Whether the path changes the number of frames rather
            than height and width. Defaults to `False`.
        num_temporal_attention_layers, rotary_positions: See `UNet`.
        normalize_input: bool. Whether each noisy picture is divided by its
            standard deviation. Defaults to `False`.
        masked_attention: bool. Whether attention layers of this network leave out
            padded tokens. Defaults to `True`.
        pooled_condition: bool. Whether the inner network's pooled condition is
            added to the time embedding of this network. Defaults to `True`.
        residual_prediction: bool. Whether the inner network's prediction, enlarged
            bilinearly or its frames repeated, is added to that of this one, which
            then learns what the smaller picture lacks and starts from it. For models
            that predict `"x0"`; the paper's have none. Defaults to `False`.
        micro_conditioning, num_heads, attention_feed_forward, groups, dropout,
            remat, dtype: See `UNet`.
        name: str. Defaults to `nested_unet_{resolution}`.

    Call arguments:
        inputs: dict with `images` (a list of one tensor for each resolution,
            largest first), `timesteps` of shape `(batch,)` and the features that
            the conditioner reads.

    Returns:
        A list of float32 tensors in the order and shapes of `images`.

    Example:

    ```python
    inner = keras_mdm.UNet(64, (256, 512, 768), num_attention_layers=(0, 1, 5))
    network = keras_mdm.NestedUNet(inner, (64, 128, 256), (2, 2, 1))  # 256 pixels
    ```

    Reference:
        - [Gu et al., 2023](https://arxiv.org/abs/2310.15111), 3.2
    """

    def __init__(
        self,
        inner,
        channels,
        num_residual_blocks=2,
        num_attention_layers=0,
        temporal_resampling=False,
        num_temporal_attention_layers=0,
        rotary_positions=False,
        normalize_input=False,
        masked_attention=True,
        pooled_condition=True,
        residual_prediction=False,
        micro_conditioning=None,
        num_heads=8,
        attention_feed_forward=True,
        groups=32,
        dropout=0.0,
        remat=False,
        dtype=None,
        name=None,
    ):
        if not isinstance(inner, Denoiser):
            raise ValueError(
                "`inner` must be a `Denoiser`, such as `UNet` or `NestedUNet`. "
                f"Received: inner={inner!r} (of type {type(inner).__name__})"
            )
        check_kinds(
            channels,
            micro_conditioning,
            temporal_resampling=temporal_resampling,
            normalize_input=normalize_input,
            residual_prediction=residual_prediction,
        )
        channels = tuple(channels)
        if len(channels) < 2:
            raise ValueError(
                "`channels` must have at least two widths: one at the resolution "
                "of `inner` and one for each doubling. "
                f"Received: channels={channels}"
            )
        factor = 2 ** (len(channels) - 1)
        pixels, frames = (1, factor) if temporal_resampling else (factor, 1)
        options = {
            "channels": channels,
            "num_residual_blocks": num_residual_blocks,
            "num_attention_layers": num_attention_layers,
            "temporal_resampling": temporal_resampling,
            "num_temporal_attention_layers": num_temporal_attention_layers,
            "rotary_positions": rotary_positions,
            "normalize_input": normalize_input,
            "masked_attention": masked_attention,
            "pooled_condition": pooled_condition,
            "residual_prediction": residual_prediction,
            "micro_conditioning": dict(micro_conditioning or {}),
            "num_heads": num_heads,
            "attention_feed_forward": attention_feed_forward,
            "groups": groups,
            "dropout": dropout,
            "remat": remat,
        }
        # The pooled condition is shared by all networks, hence one embedding size.
        derived = {
            "resolution": inner.resolution * pixels,
            "frames": inner.frames * frames,
            "embedding_size": inner.embedding_size,
            "image_channels": inner.image_channels,
            "token_size": inner.token_size,
        }
        level = level_name(derived["resolution"], derived["frames"])
        super().__init__(
            {**options, **derived},
            inner=inner,
            dtype=dtype,
            name=name or f"nested_unet_{level}",
        )
        self._option_names = tuple(options)
        self._make_paths()
        outer_width, inner_width = self.channels[-1], inner.feature_channels
        self.adapter_in = Conv3x3(
            outer_width,
            inner_width,
            zero=True,
            dtype=self.dtype_policy,
            name="adapter_in",
        )
        self.adapter_out = Conv3x3(
            inner_width,
            outer_width,
            zero=True,
            dtype=self.dtype_policy,
            name="adapter_out",
        )
        self.build()

    def encode_condition(self, features, drop=None):
        inner = self.inner.encode_condition(features, drop)
        if inner is None:
            return None
        tokens = inner["tokens"]
        blocks = [*self.down_blocks, *self.up_blocks]
        return {
            "inner": inner,
            "embedding": inner["embedding"],
            "tokens": tokens,
            "mask": inner["mask"],
            "keys_values": {block.name: block.keys_values(tokens) for block in blocks},
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
        features = features or {}
        image = images[0]
        samples = image.shape[0]  # of this level: the first ones of a mixed batch
        embedding = ops.silu(self.embed(first(timesteps, samples), condition, features))
        keys_values, mask = {}, None
        if condition is not None:
            keys_values = {
                name: [(first(k, samples), first(v, samples)) for k, v in pairs]
                for name, pairs in condition["keys_values"].items()
            }
            if self.masked_attention and condition["mask"] is not None:
                mask = first(condition["mask"], samples)
        frames = self.inner.frames
        if outer_features is not None:
            outer_features = first(outer_features, samples and samples * self.frames)
        inputs = (embedding, keys_values, mask, training)
        x, skips = self._go_down(self._enter(image, outer_features), *inputs)
        inner_input = self.adapter_in(x)
        rest = images[1].shape[0]
        if samples != rest:
            missing = (rest - samples) * frames
            inner_input = ops.pad(inner_input, [[0, missing], [0, 0], [0, 0], [0, 0]])
        predictions, inner_features = self.inner.denoise(
            images[1:],
            timesteps,
            condition["inner"] if condition is not None else None,
            features,
            outer_features=inner_input,
            training=training,
        )
        x = x + self.adapter_out(first(inner_features, samples and samples * frames))
        x = self._go_up(x, skips, *inputs)
        prediction = self._predict(x)
        if self.residual_prediction:
            prediction = prediction + self._enlarge(first(predictions[0], samples))
        return [prediction, *predictions], x

    def _enlarge(self, smaller):
        """The inner network's prediction at this network's resolution and frames."""
        if self.temporal_resampling:
            clips = smaller if self.inner.frames > 1 else smaller[:, None]
            return ops.repeat(clips, self.frames // self.inner.frames, axis=1)
        pictures = ops.reshape(smaller, (-1, *smaller.shape[-3:]))
        enlarged = ops.image.resize(
            pictures,
            (self.resolution, self.resolution),
            interpolation="bilinear",
            data_format="channels_last",
        )
        return self._as_clip(enlarged)
