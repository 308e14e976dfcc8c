"""The way down and the way up that `UNet` and `NestedUNet` have in common."""

from keras import ops

from keras_mdm.checks import between, check_flags, check_number, check_whole
from keras_mdm.layers import (
    Conv3x3,
    GroupNormalization,
    MicroConditioning,
    TimestepEmbedding,
)
from keras_mdm.levels import first
from keras_mdm.networks.blocks import ResolutionBlock
from keras_mdm.networks.protocol import Denoiser


def per_place(name, values, channels):
    """Tuple of int, one for each of `channels`, of an option that may have one for all.

    Raises:
        ValueError: that names the option, if it has anything else.
    """
    if isinstance(values, int):
        values = (values,) * len(channels)
    listed = isinstance(values, tuple | list)
    whole = listed and all(between(value, 0, whole=True) for value in values)
    if not whole or len(values) != len(channels):
        raise ValueError(
            f"`{name}` must have one whole number from 0 for each of the "
            f"{len(channels)} resolutions of `channels`={channels}. "
            f"Received: {name}={values!r}"
        )
    return tuple(int(value) for value in values)


def check_kinds(channels, micro_conditioning, **switches):
    """Raises a `ValueError` unless options are of the kinds that they must be."""
    kinds = {"channels": (tuple, list), "micro_conditioning": (dict, type(None))}
    given = {"channels": channels, "micro_conditioning": micro_conditioning}
    for argument, value in (given | switches).items():
        wanted = kinds.get(argument, (bool,))
        if not isinstance(value, wanted):
            raise ValueError(
                f"`{argument}` must be a {wanted[0].__name__}. "
                f"Received: {argument}={value!r}"
            )


# Options of every such network.
_FLAGS = (
    *("masked_attention", "pooled_condition", "rotary_positions"),
    *("attention_feed_forward", "remat"),
)


class PathNetwork(Denoiser):
    """Base of `UNet` and `NestedUNet`: embeddings, both paths, input and output.

    Subclasses call `_make_paths` in their constructor.
    """

    # What only a `NestedUNet` may have otherwise.
    normalize_input = False
    temporal_resampling = False

    def __init__(self, options, **kwargs):
        super().__init__(options, **kwargs)
        self._check_options()

    @property
    def feature_channels(self):
        return self.channels[0]

    def _check_options(self):
        check_flags(**{name: getattr(self, name) for name in _FLAGS})
        channels = self.channels
        if not channels or not all(between(c, 1, whole=True) for c in channels):
            raise ValueError(
                "`channels` must have at least one positive number. "
                f"Received: channels={channels}"
            )
        self.channels = channels = tuple(int(width) for width in channels)
        if self.embedding_size is None:
            self.embedding_size = 4 * channels[0]
        names = ("embedding_size", "num_heads", "groups")
        check_whole(**{name: getattr(self, name) for name in names})
        # Keras' layers take no whole numbers of NumPy.
        for name in names:
            setattr(self, name, int(getattr(self, name)))
        check_number(0, below=1, dropout=self.dropout)
        for key in (
            "num_residual_blocks",
            "num_attention_layers",
            "num_temporal_attention_layers",
        ):
            setattr(self, key, per_place(key, getattr(self, key), channels))
        if min(self.num_residual_blocks) < 1:
            raise ValueError(
                "`num_residual_blocks` must be at least 1 at every resolution. "
                f"Received: num_residual_blocks={self.num_residual_blocks}"
            )
        check_whole(image_channels=self.image_channels)
        for name, default in self.micro_conditioning.items():
            check_number(**{f"micro_conditioning[{name!r}]": default})
        check_temporal_attention(
            self.num_temporal_attention_layers,
            [self.level_shape(place) for place in range(len(channels))],
        )
        for width in channels:
            if width % self.groups:
                raise ValueError(
                    f"every width of `channels` must be a multiple of `groups` "
                    f"({self.groups}). Received: channels={channels}"
                )

    def level_shape(self, place):
        """Frames and pixels at a place of the path, 0 the outermost."""
        if self.temporal_resampling:
            return self.frames >> place, self.resolution
        return self.frames, self.resolution >> place

    def _make_paths(self):
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
                self._block(pairs, level, f"down_{level}", resample)
            )
            x = width
            skip_widths += [width] * (blocks + (resample is not None))
        for level in range(last, -1, -1):
            width, pairs = widths[level], []
            for _ in range(self.num_residual_blocks[level] + 1):
                pairs.append((x + skip_widths.pop(), width))
                x = width
            resample = "up" if level > 0 else None
            self.up_blocks.append(self._block(pairs, level, f"up_{level}", resample))
        self.norm_out = GroupNormalization(
            widths[0], self.groups, dtype=policy, name="norm_out"
        )
        # Predictions are float32 whatever the policy: they go straight into
        # the loss or into a sampler step.
        self.conv_out = Conv3x3(
            widths[0], self.image_channels, zero=True, dtype="float32", name="conv_out"
        )

    def _block(self, widths, level, name, resample=None, layers=None):
        temporal = self.num_temporal_attention_layers[level]
        if layers is None:
            layers = self.num_attention_layers[level]
        return ResolutionBlock(
            widths,
            layers,
            embedding_size=self.embedding_size,
            token_size=self.token_size,
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

    def _enter(self, image, outer_features):
        """First features of a noisy picture or clip, as `batch * frames` pictures."""
        shape = (-1, self.resolution, self.resolution, self.image_channels)
        x = image if self.frames == 1 else ops.reshape(image, shape)
        if self.normalize_input:
            x = x / _standard_deviation(x)
        x = self.conv_in(ops.cast(x, self.compute_dtype))
        return x if outer_features is None else x + outer_features

    def _go_down(self, x, embedding, keys_values, mask, training, hook=None):
        """Runs the way down; returns its end and the stack of skips."""
        skips = [x]
        for level, block in enumerate(self.down_blocks):
            pairs, (frames, _) = keys_values.get(block.name), self.level_shape(level)
            x = block.down(x, skips, embedding, pairs, mask, training, frames, hook)
        return x, skips

    def _go_up(self, x, skips, embedding, keys_values, mask, training, hook=None):
        """Runs the way up."""
        for level, block in zip(
            reversed(range(len(self.channels))), self.up_blocks, strict=True
        ):
            pairs, (frames, _) = keys_values.get(block.name), self.level_shape(level)
            x = block.up(x, skips, embedding, pairs, mask, training, frames, hook)
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


def check_temporal_attention(counts, shapes):
    """Raises a `ValueError` where attention over frames can't be.

    Args:
        counts: Sequence of int: its layers at each place of a path.
        shapes: Sequence of pairs: frames and pixels at each.
    """
    if not isinstance(shapes[0][0], int) or shapes[0][0] < 1:
        raise ValueError(
            f"`frames` must be a whole number from 1. Received: frames={shapes[0][0]}"
        )
    if shapes[0][0] == 1 and any(counts):
        raise ValueError(
            "`num_temporal_attention_layers` are for clips, but this network has "
            f"one frame. Received: num_temporal_attention_layers={counts}"
        )
    for place, (count, (_, pixels)) in enumerate(zip(counts, shapes, strict=True)):
        if count and pixels % 2:
            raise ValueError(
                "temporal attention halves its pictures, so they must have even sides. "
                f"Place {place} of a path of {shapes[0][1]} pixels has {pixels}."
            )


def _standard_deviation(image):
    """Unbiased standard deviation of each picture, shape `(batch, 1, 1, 1)`."""
    axes = (1, 2, 3)
    count = image.shape[1] * image.shape[2] * image.shape[3]
    image = ops.cast(image, "float32")
    return ops.sqrt(ops.var(image, axis=axes, keepdims=True) * (count / (count - 1)))
