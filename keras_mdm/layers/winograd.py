"""3x3 convolution with a quarter of the products: Winograd's F(4x4, 3x3).

Used by `convolution` for wide layers. Pictures are cut into overlapping tiles of 6x6
pixels, each of which gives 4x4 of the result. A tile, the filter and the result are
polynomials of two variables; they are evaluated at 36 places, where a convolution is a
product, for all tiles a product of two matrices.

Reference:
    - [Lavin and Gray, 2015](https://arxiv.org/abs/1509.09308)
"""

import math

import numpy as np
from keras import ops

from keras_mdm import backend

TILE, TAPS = 4, 3
_INPUT = TILE + TAPS - 1
_PLACES = _INPUT**2
# Where polynomials are evaluated, besides infinity. With these the results are half as
# far from float64 as with the usual 0, 1, -1, 2, -2.
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def _transforms():
    """Matrices for a tile of the input, the filter and the result, in one dimension.

    Those of Toom and Cook: `result @ ((filter @ taps) * (tile @ pixels))` are the
    `TILE` values of a correlation.
    """
    tile = np.zeros((_INPUT, _INPUT))
    taps = np.zeros((_INPUT, TAPS))
    result = np.zeros((TILE, _INPUT))
    for i, point in enumerate(_POINTS):
        others = [other for other in _POINTS if other != point]
        tile[i, : len(_POINTS)] = np.poly(others)[::-1]
        taps[i] = point ** np.arange(TAPS) / math.prod(point - o for o in others)
        result[:, i] = point ** np.arange(TILE)
    tile[-1], taps[-1, -1], result[-1, -1] = np.poly(_POINTS)[::-1], 1.0, 1.0
    return tile, taps, result


# In two dimensions, for rows and columns at once.
_FROM_TILE, _FROM_TAPS, _TO_RESULT = (
    np.kron(matrix, matrix).astype("float32") for matrix in _transforms()
)


def fits(shape):
    """Whether pictures of shape `(batch, height, width, channels)` are whole tiles."""
    return all(size is not None and size % TILE == 0 for size in shape[1:3])


def convolve(x, kernel):
    """Convolution with one pixel of zeros on every side.

    Args:
        x: float32 tensor of shape `(batch, height, width, inputs)`; height and width
            are multiples of 4.
        kernel: float32 tensor of shape `(3, 3, inputs, filters)`.

    Returns:
        Tensor of shape `(batch, height, width, filters)`.
    """
    height, width = x.shape[1:3]
    inputs, filters = kernel.shape[2:]
    # Evaluated filters are four times as large: not those of all layers at once.
    kernel = backend.not_before(x, kernel)
    taps = ops.matmul(_FROM_TAPS, ops.reshape(kernel, (TAPS**2, inputs * filters)))
    products = ops.matmul(
        _evaluate_tiles(x), ops.reshape(taps, (_PLACES, inputs, filters))
    )
    values = ops.matmul(_TO_RESULT, ops.reshape(products, (_PLACES, -1)))
    values = ops.reshape(
        values, (TILE, TILE, -1, height // TILE, width // TILE, filters)
    )
    values = ops.transpose(values, (2, 3, 0, 4, 1, 5))
    return ops.reshape(values, (-1, height, width, filters))


def filter_gradient(x, slopes):
    """Gradient of the kernel of `convolve`.

    Args:
        x: Input of the convolution.
        slopes: Gradient of its result, of shape `(batch, height, width, filters)`.

    Returns:
        Tensor of shape `(3, 3, inputs, filters)`.
    """
    height, width, filters = slopes.shape[1:]
    inputs = x.shape[-1]
    # Tiles are evaluated again: twice as large as pictures, they aren't kept.
    x = backend.not_before(slopes, x)
    slopes = ops.reshape(
        slopes, (-1, height // TILE, TILE, width // TILE, TILE, filters)
    )
    slopes = ops.reshape(ops.transpose(slopes, (2, 4, 0, 1, 3, 5)), (TILE**2, -1))
    slopes = ops.reshape(ops.matmul(_TO_RESULT.T, slopes), (_PLACES, -1, filters))
    taps = ops.matmul(ops.transpose(_evaluate_tiles(x), (0, 2, 1)), slopes)
    kernel = ops.matmul(_FROM_TAPS.T, ops.reshape(taps, (_PLACES, inputs * filters)))
    return ops.reshape(kernel, (TAPS, TAPS, inputs, filters))


def _evaluate_tiles(x):
    """Values of each tile's polynomial, of shape `(36, batch * tiles, inputs)`."""
    height, width, inputs = x.shape[1:]
    rows, columns = height + 2, width + 2
    padded = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    first = np.add.outer(
        np.arange(0, height, TILE) * columns, np.arange(0, width, TILE)
    )
    within = np.add.outer(np.arange(_INPUT) * columns, np.arange(_INPUT))
    of_picture = np.add.outer(within.ravel(), first.ravel())[:, None]
    pictures = ops.arange(ops.shape(x)[0], dtype="int32") * (rows * columns)
    # Not `ops.add`: in TensorFlow Keras takes some of these shapes for a bias.
    places = ops.convert_to_tensor(of_picture, "int32") + pictures[None, :, None]
    tiles = ops.take(
        ops.reshape(padded, (-1, inputs)), ops.reshape(places, (-1,)), axis=0
    )
    values = ops.matmul(_FROM_TILE, ops.reshape(tiles, (_PLACES, -1)))
    return ops.reshape(values, (_PLACES, -1, inputs))
