"""SiLU and GELU, their gradients written out. Used by the other layers and networks.

Where nothing fuses element by element (TensorFlow without XLA), each operation of a
formula is one more pass over memory, and in bfloat16 TensorFlow's own are two to five
times slower than in float32. So both are computed in float32 and rounded once.
"""

import math

import keras
from keras import ops


def silu(x):
    """Sigmoid-weighted linear unit, `x * sigmoid(x)`.

    Args:
        x: Float tensor of any shape.

    Returns:
        Tensor of the shape and dtype of `x`.

    Reference:
        - [Elfwing et al., 2017](https://arxiv.org/abs/1702.03118)
    """

    def slope(x):
        gate = ops.sigmoid(x)
        return gate * (1.0 + x * (1.0 - gate))

    return _with_slope(ops.silu, slope, x)


def gelu(x):
    """Gaussian error linear unit, `x * P(X <= x)` with `X` standard normal; exact.

    Args:
        x: Float tensor of any shape.

    Returns:
        Tensor of the shape and dtype of `x`.

    Reference:
        - [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415)
    """

    def share(x):
        # In TensorFlow `erfc`, which `ops.gelu` takes, costs thrice as much.
        return 0.5 * (1.0 + ops.erf(x * math.sqrt(0.5)))

    def value(x):
        wide = ops.cast(x, "float32")
        return ops.cast(wide * share(wide), x.dtype)

    def slope(x):
        density = ops.exp(-0.5 * ops.square(x)) / math.sqrt(2.0 * math.pi)
        return share(x) + x * density

    return _with_slope(value, slope, x)


def _with_slope(value, slope, x):
    """`value(x)`, whose derivative is `slope` of `x` as float32."""

    @ops.custom_gradient
    def both(x):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            slopes = slope(ops.cast(x, "float32"))
            return upstream * ops.cast(slopes, x.dtype)

        return value(x), gradient

    return both(keras.ops.convert_to_tensor(x))
