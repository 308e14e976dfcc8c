"""What the innermost network and every doll around it have in common."""

import math

import keras
from keras import ops

from keras_mdm.layers import (
    Conv3x3,
    GroupNormalization,
    MicroConditioning,
    TimestepEmbedding,
)
from keras_mdm.layers.primitives import build_children
from keras_mdm.networks.blocks import ResolutionBlock
from keras_mdm.networks.nest_views import NestViews


def per_resolution(name, values, channels):
    """Checks an option that has one whole number for each resolution.

    Args:
        name: str. Name of the option, for the error.
        values: int (the same at every resolution) or sequence of int.
        channels: tuple. The network's channels, one for each resolution.

    Returns:
        A tuple of int.
    """
    if isinstance(values, int):
        values = (values,) * len(channels)
    values = tuple(int(value) for value in values)
    if len(values) != len(channels) or min(values, default=-1) < 0:
        raise ValueError(
            f"`{name}` must have one whole number from 0 for each of the "
            f"{len(channels)} resolutions of `channels`={channels}. "
            f"Received: {name}={values}"
        )
    return values


def first(x, count):
    """The first `count` samples of `x`; all of them if that is all there are.

    `count` may be `None`, a size that TensorFlow does not know when it traces: then
    the batch is not a mixed one.
    """
    return x if count is None or x.shape[0] in (None, count) else x[:count]


def serialize(layer):
    """What `keras.saving.deserialize_keras_object` makes a copy of the layer from.

    Keras' own function would import TensorFlow, on any backend, if it is installed.
    """
    kind = type(layer)
    return {
        "module": kind.__module__,
        "class_name": kind.__name__,
        "config": layer.get_config(),
        "registered_name": keras.saving.get_registered_name(kind),
    }


class DenoisingNetwork(NestViews, keras.Model):
    """Base of `UNet` and the dolls around it: embeddings, both paths, input and output.

    A network knows nothing of diffusion: it maps noisy pictures of one or more
    resolutions, a timestep and a condition to one prediction for each resolution.
    It builds itself when it is made.

    Subclasses call `_make_paths` in their constructor and define
    `encode_condition` and `denoise`.
    """

    # What only a `NestedUNet` may have otherwise.
    normalize_input = False
    temporal_resampling = False

    def __init__(self, options, dtype=None, name=None):
        # Timesteps must stay float32, so each layer casts its own input.
        super().__init__(autocast=False, dtype=dtype, name=name)
        for key, value in options.items():
            setattr(self, key, value)
        self._option_names = tuple(options)
        self._check_options()

    def build(self, input_shape=None):
        build_children(self)

    def _check_options(self):
        channels = tuple(int(width) for width in self.channels)
        if not channels or min(channels) < 1:
            raise ValueError(
                "`channels` must have at least one positive number. "
                f"Received: channels={channels}"
            )
        self.channels = channels
        self.embedding_size = self.embedding_size or 4 * channels[0]
        for key in (
            "num_residual_blocks",
            "num_attention_layers",
            "num_temporal_attention_layers",
        ):
            setattr(self, key, per_resolution(key, getattr(self, key), channels))
        if min(self.num_residual_blocks) < 1:
            raise ValueError(
                "`num_residual_blocks` must be at least 1 at every resolution. "
                f"Received: num_residual_blocks={self.num_residual_blocks}"
            )
        if self.image_channels < 1:
            raise ValueError(
                "`image_channels` must be at least 1. "
                f"Received: image_channels={self.image_channels}"
            )
        for name, default in getattr(self, "micro_conditioning", {}).items():
            if not math.isfinite(default):
                raise ValueError(
                    "`micro_conditioning` must have finite defaults. "
                    f"Received: micro_conditioning={{{name!r}: {default}}}"
                )
        self._check_frames()
        for width in channels:
            if width % self.groups:
                raise ValueError(
                    f"every width of `channels` must be a multiple of `groups` "
                    f"({self.groups}). Received: channels={channels}"
                )

    def _check_frames(self):
        if not isinstance(self.frames, int) or self.frames < 1:
            raise ValueError(
                "`frames` must be a whole number from 1. "
                f"Received: frames={self.frames}"
            )
        if self.frames == 1 and any(self.num_temporal_attention_layers):
            raise ValueError(
                "`num_temporal_attention_layers` are for clips, but this network has "
                "one frame. Received: num_temporal_attention_layers="
                f"{self.num_temporal_attention_layers}"
            )
        for level, count in enumerate(self.num_temporal_attention_layers):
            if count and self.level_shape(level)[1] % 2:
                raise ValueError(
                    "temporal attention halves its pictures, so they must have even "
                    f"sides. Level {level} of a network of {self.resolution} pixels "
                    f"has {self.level_shape(level)[1]}."
                )

    def level_shape(self, level):
        """Frames and pixels at a level of the path, 0 the outermost."""
        if self.temporal_resampling:
            return self.frames >> level, self.resolution
        return self.frames, self.resolution >> level

    def _make_paths(self, token_size):
        """Makes the layers that every network has."""
        size, policy = self.embedding_size, self.dtype_policy
        self.time_embedding = TimestepEmbedding(
            size, dtype=policy, name="time_embedding"
        )
        self.micro_embeddings = [
            MicroConditioning(size, feature, default, dtype=policy, name=f"{feature}")
            for feature, default in self.micro_conditioning.items()
        ]
        widths = self.channels
        self.conv_in = Conv3x3(
            self.image_channels, widths[0], dtype=policy, name="conv_in"
        )
        skip_widths = [widths[0]]
        self.down_blocks, self.up_blocks = [], []
        last = len(widths) - 1
        x = widths[0]
        for level, width in enumerate(widths):
            blocks = self.num_residual_blocks[level]
            pairs = [(x if i == 0 else width, width) for i in range(blocks)]
            resample = "down" if level < last else None
            self.down_blocks.append(
                self._block(pairs, level, token_size, f"down_{level}", resample)
            )
            x = width
            skip_widths += [width] * (blocks + (resample is not None))
        for level in range(last, -1, -1):
            width, pairs = widths[level], []
            for _ in range(self.num_residual_blocks[level] + 1):
                pairs.append((x + skip_widths.pop(), width))
                x = width
            resample = "up" if level > 0 else None
            self.up_blocks.append(
                self._block(pairs, level, token_size, f"up_{level}", resample)
            )
        self.norm_out = GroupNormalization(
            widths[0], self.groups, dtype=policy, name="norm_out"
        )
        # Predictions are float32 whatever the policy: they go straight into
        # the loss or into a sampler step.
        self.conv_out = Conv3x3(
            widths[0], self.image_channels, zero=True, dtype="float32", name="conv_out"
        )

    def _block(self, widths, level, token_size, name, resample=None, layers=None):
        temporal = self.num_temporal_attention_layers[level]
        if layers is None:
            layers = self.num_attention_layers[level]
        return ResolutionBlock(
            widths,
            layers,
            embedding_size=self.embedding_size,
            token_size=token_size,
            groups=self.groups,
            num_heads=self.num_heads,
            feed_forward=self.attention_feed_forward,
            dropout=self.dropout,
            remat=self.remat,
            num_temporal_attention_layers=temporal,
            rotary_positions=self.rotary_positions,
            resample=resample,
            temporal_resampling=self.temporal_resampling,
            dtype=self.dtype_policy,
            name=name,
        )

    def embed(self, timesteps, condition, features):
        """Sum of the embeddings of time, condition and micro-conditions."""
        embedding = self.time_embedding(timesteps)
        if condition is not None and self.pooled_condition:
            pooled = first(condition["embedding"], timesteps.shape[0])
            embedding = embedding + ops.cast(pooled, embedding.dtype)
        for layer in self.micro_embeddings:
            values = features.get(layer.feature)
            if values is None:
                values = ops.full_like(ops.cast(timesteps, "float32"), layer.default)
            else:
                values = first(values, timesteps.shape[0])
            embedding = embedding + layer(values)
        return embedding

    def _enter(self, image, outside):
        """First features of a noisy picture or clip, as `batch * frames` pictures."""
        shape = (-1, self.resolution, self.resolution, self.image_channels)
        x = image if self.frames == 1 else ops.reshape(image, shape)
        if self.normalize_input:
            x = x / _standard_deviation(x)
        x = self.conv_in(ops.cast(x, self.compute_dtype))
        return x if outside is None else x + outside

    def _go_down(self, x, embedding, keys_values, mask, training, between=None):
        """Runs the way down; returns its end and the stack of skips."""
        skips = [x]
        for level, block in enumerate(self.down_blocks):
            pairs, (frames, _) = keys_values.get(block.name), self.level_shape(level)
            x = block.down(x, skips, embedding, pairs, mask, training, frames, between)
        return x, skips

    def _go_up(self, x, skips, embedding, keys_values, mask, training, between=None):
        """Runs the way up."""
        for level, block in zip(
            reversed(range(len(self.channels))), self.up_blocks, strict=True
        ):
            pairs, (frames, _) = keys_values.get(block.name), self.level_shape(level)
            x = block.up(x, skips, embedding, pairs, mask, training, frames, between)
        return x

    def _predict(self, x):
        """The prediction, a clip if there are several frames."""
        h = ops.silu(self.norm_out(x))
        return self._as_clip(self.conv_out(ops.cast(h, "float32")))

    def _as_clip(self, x):
        """Turns `batch * frames` pictures into clips; those of one frame stay."""
        return (
            x if self.frames == 1 else ops.reshape(x, (-1, self.frames, *x.shape[1:]))
        )

    def call(self, inputs, training=False):
        """Predicts every resolution.

        Args:
            inputs: dict with `images`, a list of noisy pictures, largest
                resolution first; `timesteps` of shape `(batch,)`; and the features
                that the conditioner and the micro-conditions read.
            training: bool. Whether dropout and rematerialisation are on.

        Returns:
            A list of float32 predictions in the order and shapes of `images`.
        """
        condition = self.encode_condition(inputs, inputs.get("condition_drop"))
        predictions, _ = self.denoise(
            inputs["images"], inputs["timesteps"], condition, inputs, training=training
        )
        return predictions

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outside=None,
        training=False,
    ):
        """Predicts every resolution from an encoded condition.

        Args:
            images: List of tensors of shape `(batch, height, width, channels)`, or
                `(batch, frames, height, width, channels)` where there are several
                frames, largest resolution first. A larger resolution may have fewer
                samples: it then belongs to the first ones of the batch.
            timesteps: Tensor of shape `(batch,)`, from 0 to `num_timesteps - 1`.
            condition: What `encode_condition` returned.
            features: dict of micro-conditioning values by name, each of shape
                `(batch,)`. Missing ones take their default.
            outside: Optional features from the doll around this network, of shape
                `(batch * frames, height, width, channels[0])`.
            training: bool.

        Returns:
            A pair: list of predictions, and the last features, of shape
            `(batch * frames, height, width, channels[0])`.
        """
        raise NotImplementedError

    def encode_condition(self, features, drop=None):
        """Encodes what does not depend on time, once for all timesteps.

        Args:
            features: dict of the features that the conditioner reads.
            drop: Optional bool tensor of shape `(batch,)`: samples that are given
                the null condition instead.

        Returns:
            A nested structure of tensors for `denoise`, or `None` without a
            conditioner.
        """
        raise NotImplementedError

    def get_config(self):
        config = {key: getattr(self, key) for key in self._option_names}
        if "micro_conditioning" in config:
            config["micro_conditioning"] = dict(self.micro_conditioning)
        return {**config, "name": self.name, "dtype": self.dtype_policy.name}


def _standard_deviation(image):
    """Unbiased standard deviation of each picture, shape `(batch, 1, 1, 1)`."""
    axes = (1, 2, 3)
    count = image.shape[1] * image.shape[2] * image.shape[3]
    image = ops.cast(image, "float32")
    return ops.sqrt(ops.var(image, axis=axes, keepdims=True) * (count / (count - 1)))
