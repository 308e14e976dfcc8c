"""Denoiser: what any network must offer to be drawn with, trained, or nested.

A network of another kind, such as a transformer as the innermost one, is a subclass in
one file: see `examples/transformer.py`. `MDM`, `NestedUNet` and the sampling run call
nothing but what stands here.
"""

import keras

from keras_mdm.backend import deserialize, serialize, sublayers
from keras_mdm.layers.primitives import build_children
from keras_mdm.levels import level_name


class Denoiser(keras.Model):
    """Base of every denoising network: noisy pictures in, a prediction for each out.

    It maps noisy pictures of one or more levels, a timestep and a condition to one
    prediction for each level, and knows nothing of noise schedules or losses. A
    subclass sets the attributes below in its constructor, defines `encode_condition`
    and `denoise`, and calls `self.build()` at the end of the constructor.

    Args:
        options: dict of arguments of the subclass' constructor with JSON values. They
            become attributes, and are what `get_config` returns.
        inner: Optional `Denoiser`: the network of the level below, inside this one.
        conditioner: Optional layer of `keras_mdm.conditioning`.
        dtype: Dtype policy, such as `"mixed_bfloat16"`.
        name: str.

    Attributes:
        resolution: int. Height and width of the largest level, in pixels.
        frames: int. Frames of its clips; 1 for pictures.
        image_channels: int. Channels of pictures.
        feature_channels: int. Channels of the features that it takes and returns.
        embedding_size: int. Size of the pooled embedding of the condition.
        token_size: int or `None`. Size of the condition's tokens.
        micro_conditioning: dict of names of further numbers to their defaults.
        remat: bool. Whether activations are computed again in the backward pass.
    """

    resolution: int
    image_channels: int
    feature_channels: int
    embedding_size: int
    frames = 1
    token_size = None
    micro_conditioning = {}
    remat = False

    def __init__(self, options, inner=None, conditioner=None, dtype=None, name=None):
        # Timesteps must stay float32, so each layer casts its own input.
        super().__init__(autocast=False, dtype=dtype, name=name)
        for key, value in options.items():
            setattr(self, key, value)
        self._option_names = tuple(options)
        self.inner = inner
        self.own_conditioner = conditioner

    def build(self, input_shape=None):
        build_children(self)

    # === To be defined ===

    def encode_condition(self, features, drop=None):
        """Encodes what does not depend on time, once for all timesteps.

        Args:
            features: dict of the features that the conditioner reads.
            drop: Optional bool tensor of shape `(batch,)`: samples that are given
                the null condition instead.

        Returns:
            A nested structure of tensors, the batch first, for `denoise`, or `None`
            without a conditioner. Outer networks read of it `embedding`, of shape
            `(batch, embedding_size)`, `tokens`, float32 of shape
            `(batch, length, token_size)`, standardized once for all layers by
            `keras_mdm.layers.standardize`, and `mask`, bool of shape
            `(batch, length)` or `None`.
        """
        raise NotImplementedError

    def denoise(
        self,
        images,
        timesteps,
        condition=None,
        features=None,
        outer_features=None,
        training=False,
    ):
        """Predicts every level from an encoded condition.

        Args:
            images: List of tensors of shape `(batch, height, width, channels)`, or
                `(batch, frames, height, width, channels)` where there are several
                frames, largest level first. A larger level may have fewer samples: it
                then belongs to the first ones of the batch.
            timesteps: Tensor of shape `(batch,)`, from 0 to `num_timesteps - 1`.
            condition: What `encode_condition` returned.
            features: dict of micro-conditioning values by name, each of shape
                `(batch,)`. Missing ones take their default.
            outer_features: Optional features from the network around this one, of
                shape `(batch * frames, height, width, feature_channels)`.
            training: bool.

        Returns:
            A pair: list of float32 predictions in the order and shapes of `images`, and
            the last features, of the shape of `outer_features`.
        """
        raise NotImplementedError

    # === What follows from that ===

    def call(self, inputs, training=False):
        """Predicts every level.

        Args:
            inputs: dict with `images`, a list of noisy pictures, largest level first;
                `timesteps` of shape `(batch,)`; and the features that the conditioner
                and the micro-conditions read.
            training: bool. Whether dropout and rematerialization are on.

        Returns:
            A list of float32 predictions in the order and shapes of `images`.
        """
        given = inputs if isinstance(inputs, dict) else {}
        images = given.get("images")
        listed = isinstance(images, list | tuple) and len(images) == len(self.levels)
        if not listed or "timesteps" not in given:
            raise ValueError(
                f"{type(self).__name__} must be called with a dict that has `images`, "
                f"a list of noisy pictures of each of the levels {self.levels}, and "
                "`timesteps`. Received: "
                f"{sorted(given) if given else type(inputs).__name__}"
                f"{'' if listed or not given else f', images={type(images).__name__}'}"
            )
        condition = self.encode_condition(inputs, inputs.get("condition_drop"))
        predictions, _ = self.denoise(
            inputs["images"], inputs["timesteps"], condition, inputs, training=training
        )
        return predictions

    @property
    def networks(self):
        """Tuple of networks from this one to the innermost."""
        return (self, *(self.inner.networks if self.inner is not None else ()))

    @property
    def levels(self):
        """Tuple of the levels, largest first; see `keras_mdm.levels`."""
        return tuple(network.level for network in self.networks)

    @property
    def level(self):
        """The largest level: `64`, or `"16x64"` for clips of 16 frames."""
        return level_name(self.resolution, self.frames)

    @property
    def innermost(self):
        """The network of the smallest level, which holds the conditioner."""
        return self.networks[-1]

    @property
    def conditioner(self):
        """The layer that turns labels or text into tokens, or `None`."""
        return self.innermost.own_conditioner

    @property
    def micro_names(self):
        """Set of the names of micro-conditions that a network of the nest reads."""
        return {
            name for network in self.networks for name in network.micro_conditioning
        }

    @property
    def predicts_residuals(self):
        """Whether a network adds its prediction to that of the one inside it."""
        return any(getattr(n, "residual_prediction", False) for n in self.networks)

    def at_level(self, level):
        """Returns the network whose largest level is `level`.

        Args:
            level: int, in pixels, or str such as `"16x64"` for clips.

        Returns:
            `Denoiser`.

        Raises:
            ValueError: if no network of the nest has that level.
        """
        for network in self.networks:
            if isinstance(level, int | str) and network.level == level:
                return network
        raise ValueError(
            f"`resolution` must be one of the network's resolutions "
            f"{self.levels}. Received: resolution={level}"
        )

    @property
    def own_layers(self):
        """Layers of this network without those of the networks inside it."""
        return [layer for layer in sublayers(self) if not isinstance(layer, Denoiser)]

    @property
    def own_variables(self):
        """Variables of this network without those of the networks inside it."""
        inner = self.inner.variables if self.inner is not None else []
        inside = {id(variable) for variable in inner}
        return [v for v in self.variables if id(v) not in inside]

    def level_numbers(self):
        """The number of the level, 0 the largest, of each of `weights`, as a list."""
        owners = {
            id(variable): number
            for number, network in enumerate(self.networks)
            for variable in network.own_variables
        }
        return [owners[id(variable)] for variable in self.weights]

    def set_remat(self, levels=True):
        """Chooses the networks whose activations are computed again going backward.

        That saves most of their memory and costs about a third more time; on a CPU,
        XLA undoes it. Takes effect on models that are compiled afterwards.

        Args:
            levels: bool for all or none, or sequence of levels, such as `["16x256"]`.

        Raises:
            ValueError: if the nest has no such level.
        """
        if isinstance(levels, bool):
            levels = self.levels if levels else ()
        if not isinstance(levels, list | tuple | set):
            raise ValueError(
                "`levels` must be True, False or a list of levels, such as ['16x256']. "
                f"Received: levels={levels!r}"
            )
        chosen = [self.at_level(level) for level in levels]
        for network in self.networks:
            network.remat = any(network is one for one in chosen)
            for layer in network.own_layers:
                if hasattr(layer, "remat"):
                    layer.remat = network.remat

    def get_config(self):
        config = {key: getattr(self, key) for key in self._option_names}
        # Keras tracks dicts that are attributes.
        config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
        for key, part in (("inner", self.inner), ("conditioner", self.own_conditioner)):
            if part is not None:
                config[key] = serialize(part)
        return {**config, "name": self.name, "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("inner", "conditioner"):
            if config.get(key) is not None:
                config[key] = deserialize(config[key])
        return cls(**config)

    def __dir__(self):
        # Keras saves whatever it finds here, under the first name it meets. These are
        # views of what has a name already: `networks`, which holds the network itself,
        # would make loading endless, and the names of the weights would depend on it.
        views = {
            "networks",
            "innermost",
            "conditioner",
            "own_layers",
            "own_variables",
            "level",
        }
        return [name for name in super().__dir__() if name not in views]
