"""Convolution, projection and layer norm with MDM's conventions.

Each knows its input width at construction, so that a layer composed of them can
build itself without data (`build_children`). The choice of initializer and of
padding stands here once. Used by the other layers and by `keras_mdm.networks`.
"""

import inspect
import math

import keras
from keras import ops

from keras_mdm.backend import sublayers
from keras_mdm.layers.flops import record
from keras_mdm.layers.initializers import HostConstant, HostUniform


def build_children(layer):
    """Builds every direct sublayer of `layer`, in the order of creation.

    Called from a layer's `build`, where Keras has opened the name scope: this
    gives every variable its full path before any data is seen, which presets,
    moving averages and sharding rules need.
    """
    for child in sublayers(layer):
        if not child.built:
            child.build()


class Layer(keras.layers.Layer):
    """Base of the layers: each builds itself, and is saved by its own arguments.

    What a constructor is given is kept as attributes of the same names.
    """

    def build(self, input_shape=None):
        build_children(self)

    def get_config(self):
        parameters = inspect.signature(type(self)).parameters.values()
        several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        names = [p.name for p in parameters if p.kind not in several]
        config = super().get_config()
        return {name: getattr(self, name) for name in names} | config


def check_divisible(channels, groups, what):
    """Raises a `ValueError` unless `channels` is a positive multiple of `groups`."""
    if channels < 1 or channels % groups:
        raise ValueError(
            f"`channels` must be a positive multiple of the {groups} {what}. "
            f"Received: channels={channels}"
        )


def _initializers(fan_in, zero):
    """Kernel and bias initializers: zeros, or uniform in +-1/sqrt(fan_in)."""
    if zero:
        zeros = HostConstant(0.0)
        return {"kernel_initializer": zeros, "bias_initializer": zeros}
    bound = 1.0 / math.sqrt(fan_in)
    return {
        "kernel_initializer": HostUniform(bound),
        "bias_initializer": HostUniform(bound),
    }


def rows(x):
    """Number of vectors in a tensor, none where a size is not known."""
    return math.prod(size or 0 for size in x.shape[:-1])


class Dense(keras.layers.Dense):
    """Projection of the last axis (on pictures: a 1x1 convolution).

    Args:
        inputs: int. Size of the last axis of the input.
        units: int. Size of the last axis of the output.
        zero: bool. Whether kernel and bias start at zero. Defaults to `False`:
            uniform in plus or minus `1 / sqrt(inputs)`.
        **kwargs: Arguments of `keras.layers.Dense`.
    """

    def __init__(self, inputs, units, *, zero=False, **kwargs):
        super().__init__(units, **_initializers(inputs, zero), **kwargs)
        self.inputs = inputs
        self.zero = zero

    def build(self, input_shape=None):
        super().build((None, self.inputs))

    def call(self, x):
        record(rows(x) * self.inputs * self.units)
        return super().call(x)

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "inputs": self.inputs,
            "units": self.units,
            "zero": self.zero,
            "use_bias": self.use_bias,
        }


class Conv3x3(keras.layers.Conv2D):
    """3x3 convolution with one pixel of zeros on every side.

    Keras' `padding="same"` puts the zeros of a strided convolution behind the
    picture only; the official weights expect one pixel in front as well.

    Args:
        inputs: int. Number of input channels.
        filters: int. Number of output channels.
        stride: int. 1 keeps height and width, 2 halves them. Defaults to 1.
        zero: bool. Whether kernel and bias start at zero. Defaults to `False`:
            uniform in plus or minus `1 / sqrt(9 * inputs)`.
        **kwargs: Arguments of `keras.layers.Conv2D`.
    """

    def __init__(self, inputs, filters, *, stride=1, zero=False, **kwargs):
        super().__init__(
            filters,
            3,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            data_format="channels_last",
            **_initializers(9 * inputs, zero),
            **kwargs,
        )
        self.inputs = inputs
        self.stride = stride
        self.zero = zero

    def build(self, input_shape=None):
        super().build((None, None, None, self.inputs))

    def convolution_op(self, inputs, kernel):
        if self.stride > 1:
            inputs = ops.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
        result = super().convolution_op(inputs, kernel)
        record(rows(result) * 9 * self.inputs * self.filters)
        return result

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "inputs": self.inputs,
            "filters": self.filters,
            "stride": self.stride,
            "zero": self.zero,
        }


class EnlargingConv3x3(Conv3x3):
    """3x3 convolution of a picture whose pixels were doubled, without doubling them.

    The nine products at a pixel meet four different pixels of the small picture: as a
    transposed convolution with the 4x4 kernel of their sums it multiplies 4/9 as often,
    and the enlarged picture is never in memory.

    Args: of `Conv3x3`, without `stride`.
    """

    def convolution_op(self, inputs, kernel):
        kernel = ops.pad(ops.cast(kernel, "float32"), [[1, 1], [1, 1], [0, 0], [0, 0]])
        kernel = kernel[:-1] + kernel[1:]
        kernel = ops.transpose(kernel[:, :-1] + kernel[:, 1:], (0, 1, 3, 2))
        kernel = ops.cast(ops.flip(kernel, (0, 1)), inputs.dtype)
        record(rows(inputs) * 16 * self.inputs * self.filters)
        return ops.conv_transpose(
            inputs, kernel, 2, "same", data_format="channels_last"
        )


class FrameConv(keras.layers.Conv2D):
    """Convolution over three neighboring frames, at each place on its own.

    Frames before the first and after the last are zeros.

    Args:
        inputs: int. Number of input channels.
        filters: int. Number of output channels.
        stride: int. 1 keeps the number of frames, 2 halves it. Defaults to 1.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Call arguments:
        x: Tensor of shape `(batch, frames, places, inputs)`.

    Returns:
        Tensor of shape `(batch, frames // stride, places, filters)`.
    """

    def __init__(self, inputs, filters, *, stride=1, **kwargs):
        super().__init__(
            filters,
            (3, 1),
            strides=(stride, 1),
            padding="valid",
            data_format="channels_last",
            **_initializers(3 * inputs, zero=False),
            **kwargs,
        )
        self.inputs = inputs
        self.stride = stride

    def build(self, input_shape=None):
        super().build((None, None, None, self.inputs))

    def call(self, x):
        result = super().call(ops.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]]))
        record(rows(result) * 3 * self.inputs * self.filters)
        return result

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "inputs": self.inputs,
            "filters": self.filters,
            "stride": self.stride,
        }


class LayerNorm(Layer):
    """Layer normalization over the last axis with epsilon 1e-5, in float32.

    Args:
        inputs: int. Size of the last axis.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor whose last axis has `inputs` entries.
        standardized: bool. Whether `x` is what `standardize` returned: several layers
            may share that, and each adds its own gain and bias. Defaults to `False`.

    Returns:
        Tensor of the shape of `x` in the layer's dtype.

    Reference:
        - [Ba et al., 2016](https://arxiv.org/abs/1607.06450)
    """

    def __init__(self, inputs, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.inputs = inputs

    def build(self, input_shape=None):
        shape = (self.inputs,)
        self.gamma = self.add_weight(
            shape=shape, initializer=HostConstant(1.0), autocast=False, name="gamma"
        )
        self.beta = self.add_weight(
            shape=shape, initializer=HostConstant(0.0), autocast=False, name="beta"
        )

    def call(self, x, standardized=False):
        x = x if standardized else standardize(x)
        gamma, beta = (ops.cast(v, "float32") for v in (self.gamma, self.beta))
        return ops.cast(x * gamma + beta, self.compute_dtype)


def standardize(x):
    """`x` with mean 0 and variance 1 over its last axis, as float32."""
    x = ops.cast(x, "float32")
    x = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(variance + 1e-5)
