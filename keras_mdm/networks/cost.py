"""FLOPs of one forward pass, counted while the network's shapes are traced.

Convolutions and matrix products are counted, a multiplication and an addition as two.
Nothing is computed, so the count is the same on every backend, dtype and device. Used
by tools.
"""

import keras
import numpy as np

from keras_mdm.layers.flops import counting
from keras_mdm.levels import level_shape


def count_flops(network, features=None):
    """Counts the FLOPs of one forward pass of one sample, for each level.

    A training step costs about three times as much: the backward pass has two products
    for each one of the forward pass.

    Args:
        network: `Denoiser`.
        features: Optional dict of arrays with one entry each: what the conditioner
            reads. Defaults to `None`: a network without conditioner, or on labels.

    Returns:
        dict of level to int, largest first: the network of that level without those
        inside it. The sum of the values is the cost of the whole network.

    Example:

    ```python
    network = keras_mdm.UNet(16, channels=(32, 64))
    sum(count_flops(network).values())
    ```
    """
    return _by_level(network, lambda part: _count(part, part, features))


def count_condition_flops(network, features=None):
    """Counts the part of `count_flops` that does not depend on the timestep.

    This is `encode_condition`: a sampling run does it once, not at every step.

    Args:
        network: `Denoiser`.
        features: See `count_flops`.

    Returns:
        dict of level to int, largest first.
    """
    return _by_level(network, lambda part: _count(_Encoder(part), part, features))


def _by_level(network, count):
    totals = [count(part) for part in network.networks]
    inside = [*totals[1:], 0]
    return {
        part.level: total - inner
        for part, total, inner in zip(network.networks, totals, inside, strict=True)
    }


class _Encoder(keras.layers.Layer):
    """`encode_condition` as a layer, which Keras can trace."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs):
        condition = self.network.encode_condition(inputs)
        return inputs["timesteps"] if condition is None else condition["embedding"]


def _count(layer, network, features):
    """FLOPs of a layer on the inputs of a network."""
    if features is None:
        features = {"labels": np.zeros(1, "int32")}
    features = {key: np.asarray(value) for key, value in features.items()}
    shapes = [
        (1, *level_shape(level, network.image_channels)) for level in network.levels
    ]
    inputs = {
        **{k: keras.KerasTensor(v.shape, str(v.dtype)) for k, v in features.items()},
        "images": [keras.KerasTensor(shape, "float32") for shape in shapes],
        "timesteps": keras.KerasTensor((1,), "int32"),
    }
    with counting() as counted:
        layer.compute_output_spec(inputs)
    return sum(counted)
