"""InflatedUNet: makes a network of pictures one of clips."""

import keras
from keras import ops

from keras_mdm.checks import check_flags
from keras_mdm.layers import FrameEmbedding, TemporalAttention
from keras_mdm.levels import first, level_name
from keras_mdm.networks.paths import check_temporal_attention, per_place
from keras_mdm.networks.protocol import Denoiser
from keras_mdm.networks.unet import UNet


@keras.saving.register_keras_serializable("keras_mdm")
class InflatedUNet(Denoiser):
    """Denoiser of clips that shares all layers of a `UNet` of pictures.

    Every frame is a picture to the `UNet`, which is given an embedding of the time
    within the clip. Between its layers, attention over frames ties them together. Both
    start as the identity: the clips of a new network are independent pictures. Both
    levels, clip and picture, go through the `UNet` in one batch.

    Args:
        inner: `UNet` of pictures.
        frames: int. Frames of a clip, at least 2.
        num_temporal_attention_layers: int, or one int for each of the `channels` of
            `inner`. Attention layers over frames after each of its residual blocks.
            Defaults to 1.
        rotary_positions: bool. Whether these know the places of frames. Defaults to
            `True`.
        remat: bool. Whether activations, those of the pictures among them, are computed
            again in the backward pass. Defaults to `False`.
        dtype: Dtype policy, such as `"mixed_bfloat16"`.
        name: str. Defaults to `inflated_unet_{frames}x{resolution}`.

    Call arguments:
        inputs: dict with `images` (a list of clips of shape
            `(batch, frames, resolution, resolution, image_channels)` and pictures),
            `timesteps` of shape `(batch,)` and the features that the conditioner
            reads.

    Returns:
        A list of float32 tensors in the order and shapes of `images`.

    Example:

    ```python
    pictures = keras_mdm.UNet(16, (32, 64), num_attention_layers=(0, 1))
    clips = keras_mdm.InflatedUNet(pictures, frames=8)
    network = keras_mdm.NestedUNet(clips, (16, 32))  # 8 frames of 32 pixels
    ```

    Reference:
        - [Ho et al., 2022](https://arxiv.org/abs/2204.03458), 3: a network of pictures
          with attention over frames between its layers
        - [Guo et al., 2023](https://arxiv.org/abs/2307.04725), network inflation
    """

    def __init__(
        self,
        inner,
        frames,
        num_temporal_attention_layers=1,
        rotary_positions=True,
        remat=False,
        dtype=None,
        name=None,
    ):
        if not isinstance(inner, UNet) or inner.frames != 1:
            raise ValueError(
                "`inner` must be a `UNet` of pictures, with `frames=1`. "
                f"Received: inner={inner!r} (of type {type(inner).__name__})"
            )
        if not isinstance(frames, int) or frames < 2:
            raise ValueError(
                f"`frames` must be a whole number from 2. Received: frames={frames}"
            )
        check_flags(rotary_positions=rotary_positions, remat=remat)
        options = {
            "frames": frames,
            "num_temporal_attention_layers": num_temporal_attention_layers,
            "rotary_positions": rotary_positions,
            "remat": remat,
        }
        super().__init__(
            options,
            inner=inner,
            dtype=dtype,
            name=name or f"inflated_unet_{level_name(inner.resolution, frames)}",
        )
        self.resolution = inner.resolution
        self.image_channels = inner.image_channels
        self.feature_channels = inner.feature_channels
        self.embedding_size = inner.embedding_size
        self.token_size = inner.token_size
        counts = per_place(
            "num_temporal_attention_layers",
            num_temporal_attention_layers,
            inner.channels,
        )
        self.num_temporal_attention_layers = counts
        check_temporal_attention(
            counts,
            [
                (frames, inner.level_shape(place)[1])
                for place in range(len(inner.channels))
            ],
        )
        policy = self.dtype_policy
        self.frame_embedding = FrameEmbedding(
            frames, inner.embedding_size, dtype=policy, name="frame_embedding"
        )
        self.temporal_attentions, self.places = [], []
        for place, block in inner.blocks():
            for unit in range(len(block.residuals)):
                for i in range(counts[place]):
                    self.temporal_attentions.append(
                        TemporalAttention(
                            inner.channels[place],
                            rotary_positions,
                            dtype=policy,
                            name=f"{block.name}_{unit}_temporal_attention_{i}",
                        )
                    )
                    self.places.append((block.name, unit))
        self.build()

    def encode_condition(self, features, drop=None):
        condition = self.inner.encode_condition(features, drop)
        if condition is None:
            return None
        shared = ("embedding", "tokens", "mask")
        return {"inner": condition, **{key: condition[key] for key in shared}}

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outer_features=None,
        training=False,
    ):
        clips, pictures = images
        samples = ops.shape(clips)[0]
        rows = samples * self.frames  # Pictures that are frames; they come first.

        def frames_first(value):
            """Values for each frame of the clips, then for each of the pictures."""
            if value is None:
                return None
            framed = ops.repeat(first(value, clips.shape[0]), self.frames, axis=0)
            return ops.concatenate([framed, value], axis=0)

        inner = condition["inner"] if condition is not None else None
        embedding = self.inner.embed(timesteps, inner, features or {})
        own = self.frame_embedding(first(embedding, clips.shape[0]))
        embedding = ops.silu(ops.concatenate([own, embedding], axis=0))
        if inner is not None:
            inner = {
                **inner,
                "mask": frames_first(inner["mask"]),
                "keys_values": {
                    name: [tuple(map(frames_first, pair)) for pair in pairs]
                    for name, pairs in inner["keys_values"].items()
                },
            }
        if outer_features is not None:
            missing = ops.zeros(
                (ops.shape(pictures)[0], *outer_features.shape[1:]),
                outer_features.dtype,
            )
            outer_features = ops.concatenate([outer_features[:rows], missing], axis=0)
        shape = (-1, *clips.shape[2:])
        predictions, x = self.inner.denoise_embedded(
            ops.concatenate([ops.reshape(clips, shape), pictures], axis=0),
            embedding,
            inner,
            outer_features,
            training,
            _TemporalHook(self, rows),
        )
        own = ops.reshape(predictions[:rows], (-1, self.frames, *predictions.shape[1:]))
        return [own, predictions[rows:]], x[:rows]


class _TemporalHook:
    """Attention over frames between two layers of the picture's network, for one batch.

    Args:
        network: `InflatedUNet`.
        rows: int or scalar tensor. Frames of the batch; pictures follow, and stay as
            they are.
    """

    def __init__(self, network, rows):
        self.remat = network.remat
        self._network, self._rows = network, rows

    def __call__(self, x, block, unit):
        network, rows = self._network, self._rows
        layers = [
            layer
            for layer, place in zip(
                network.temporal_attentions, network.places, strict=True
            )
            if place == (block, unit)
        ]
        if not layers:
            return x
        frames = x[:rows]
        for layer in layers:
            frames = layer(frames, frames=network.frames)
        return ops.concatenate([frames, x[rows:]], axis=0)
