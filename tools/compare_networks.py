"""Networks that only `compare.py` needs, as `Denoiser`s.

`DenseUNet` is the UNet with nodes on its skips, `SuperResolution` the second model of a
cascade, `OneLevel` a nest's layers around a single noisy picture.
"""

import keras
import numpy as np
from keras import ops

import keras_mdm
from keras_mdm.conditioning import ClassLabels
from keras_mdm.layers import Conv3x3, ResidualBlock, Upsample
from keras_mdm.networks import Denoiser


class DenseUNet(keras_mdm.UNet):
    """UNet whose skips pass dense nodes, as in UNet++, without deep supervision.

    Node `(i, j)` at place `i` of the path reads all nodes `(i, 0)` to `(i, j - 1)` and
    node `(i + 1, j - 1)` enlarged; `(i, 0)` is the way down. The way up reads the last
    node of its place instead of the way down.

    Reference:
        - [Zhou et al., 2018](https://arxiv.org/abs/1807.10165)
    """

    def _make_paths(self):
        super()._make_paths()
        if set(self.num_residual_blocks) != {1}:
            raise ValueError(
                "`num_residual_blocks` of a `DenseUNet` must be 1. "
                f"Received: num_residual_blocks={self.num_residual_blocks}"
            )
        widths, self.nodes, self.enlarge = self.channels, {}, {}
        for j in range(1, len(widths) - 1):
            for i in range(len(widths) - 1 - j):
                name = f"node_{i}_{j}"
                self.nodes[name] = ResidualBlock(
                    j * widths[i] + widths[i + 1],
                    widths[i],
                    self.embedding_size,
                    self.groups,
                    name=name,
                )
                self.enlarge[name] = Upsample(widths[i + 1], name=f"enlarge_{i}_{j}")

    def _go_down(self, x, embedding, keys_values, mask, training, hook=None):
        inputs = (embedding, keys_values, mask, training)
        x, skips = super()._go_down(x, *inputs, hook)
        # What goes in and what goes down lie between the results of the blocks.
        places = range(1, len(skips), 2)
        rows = [[skips[place]] for place in places]
        for j in range(1, len(rows) - 1):
            for i in range(len(rows) - 1 - j):
                name = f"node_{i}_{j}"
                below = self.enlarge[name](rows[i + 1][j - 1])
                read = ops.concatenate([*rows[i][:j], below], axis=-1)
                rows[i].append(self.nodes[name](read, embedding, training=training))
        for place, row in zip(places, rows, strict=True):
            skips[place] = row[-1]
        return x, skips


class SmallPicture(ClassLabels):
    """Conditioner of `SuperResolution`: a class, and the picture to be enlarged."""

    feature_names = ("labels", "small")


class SuperResolution(keras_mdm.UNet):
    """UNet that also sees a smaller picture, `small` of the batch, in [-1, 1].

    Enlarged bilinearly, it enters beside the noisy picture, and `sum_levels` adds it to
    the prediction, as a nest with `residual_prediction` does.
    """

    def __init__(self, *args, sum_levels=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.sum_levels = sum_levels

    def _make_paths(self):
        super()._make_paths()
        self.small_in = Conv3x3(self.image_channels, self.channels[0], name="small_in")

    @property
    def predicts_residuals(self):
        return self.sum_levels

    def encode_condition(self, features, drop=None):
        small = ops.cast(features["small"], "float32")
        size = (self.resolution, self.resolution)
        enlarged = ops.image.resize(
            small, size, interpolation="bilinear", data_format="channels_last"
        )
        return {**super().encode_condition(features, drop), "small": enlarged}

    def denoise(self, images, timesteps, condition=None, features=None, **options):
        options["outer_features"] = self.small_in(condition["small"])
        predictions, x = super().denoise(
            images, timesteps, condition, features, **options
        )
        if self.sum_levels:
            predictions = [predictions[0] + condition["small"]]
        return predictions, x


class OneLevel(Denoiser):
    """The layers of a nest as one network of one level: a residual UNet.

    The inner network is shown the noisy picture averaged down. Its prediction is only
    enlarged and added to that of the outer one: it has no noise and no loss of its own.
    Parameters and FLOPs are those of the nest, which has two levels.
    """

    def __init__(self, nest, **kwargs):
        super().__init__({}, **kwargs)
        self.nest = nest
        for name in ("resolution", "image_channels", "embedding_size"):
            setattr(self, name, getattr(nest, name))
        self.feature_channels = nest.feature_channels
        self.own_conditioner = nest.conditioner
        self.build()

    @property
    def predicts_residuals(self):
        return self.nest.predicts_residuals

    def encode_condition(self, features, drop=None):
        return self.nest.encode_condition(features, drop)

    def denoise(self, images, timesteps, *args, **options):
        half, channels = self.resolution // 2, self.image_channels
        blocks = ops.reshape(images[0], (-1, half, 2, half, 2, channels))
        small = ops.mean(blocks, axis=(2, 4))
        predictions, x = self.nest.denoise(
            [images[0], small], timesteps, *args, **options
        )
        return predictions[:1], x


@keras.saving.register_keras_serializable("keras_mdm_compare")
class Shifted:
    """Log-SNR of a named schedule as a level of a nest has it, for a network alone.

    Args:
        name: str. See `keras_mdm.NoiseSchedule`.
        ratio: float. Of the level to the smallest one of the nest.
        power: float. The nest's `shift_power`.
    """

    def __init__(self, name, ratio, power):
        self.name, self.ratio, self.power = name, ratio, power

    def __call__(self, times):
        schedule = keras_mdm.NoiseSchedule(self.name, len(times), self.power)
        signal = schedule.alphas_cumprod(self.ratio)[1:].astype("float64")
        return np.log(signal) - np.log1p(-signal)

    def get_config(self):
        return {"name": self.name, "ratio": self.ratio, "power": self.power}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
