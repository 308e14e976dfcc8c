"""How 3x3 convolutions are computed where a backend's own are slow. For `primitives`.

- In bfloat16, in float32, where there are no instructions for bfloat16.
- Wide ones by Winograd's algorithm; see `winograd`.
- The gradient of the filter as nine products of matrices. Backends compute it as a
  convolution with a kernel as large as the picture, which on a CPU without blocked
  layouts reaches a third to a half of the rate of a product.
"""

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.layers import winograd


def in_fast_dtype(convolve, x, kernel):
    """`convolve(x, kernel)`, in float32 where that is much faster than their dtype."""
    if not backend.convolves_slowly_in(keras.backend.standardize_dtype(x.dtype)):
        return convolve(x, kernel)
    wide = convolve(ops.cast(x, "float32"), ops.cast(kernel, "float32"))
    return ops.cast(wide, x.dtype)


def convolve_3x3(x, kernel):
    """Convolution with one pixel of zeros on every side.

    Args:
        x: Tensor of shape `(batch, height, width, inputs)`.
        kernel: Tensor of shape `(3, 3, inputs, filters)`, of the dtype of `x`.

    Returns:
        Tensor of shape `(batch, height, width, filters)`.
    """
    # Too small for Winograd's algorithm where pictures are not whole tiles.
    size = x.shape[1] * x.shape[2] if winograd.fits(x.shape) else 0
    kind = (min(kernel.shape[2:]), keras.backend.standardize_dtype(x.dtype))
    by_tiles = backend.winograd_pays("convolution", size, *kind)
    if backend.winograd_pays("filter_gradient", size, *kind):
        own_gradient = winograd.filter_gradient
    elif backend.filter_gradient_by_products(*kind):
        own_gradient = filter_gradient
    else:
        return _convolve(x, kernel)

    @ops.custom_gradient
    def convolve(x, kernel):
        def gradient(*args, upstream=None):
            slopes = args[0] if upstream is None else upstream
            if by_tiles:
                turned = ops.transpose(ops.flip(kernel, (0, 1)), (0, 1, 3, 2))
                by_x = winograd.convolve(slopes, turned)
            else:
                by_x = ops.conv_transpose(
                    slopes, kernel, padding="same", data_format="channels_last"
                )
            return by_x, own_gradient(x, slopes)

        result = (winograd.convolve if by_tiles else _convolve)(x, kernel)
        return result, gradient

    # TensorFlow would look for the gradient of a variable itself elsewhere.
    return convolve(x, ops.copy(kernel))


def _convolve(x, kernel):
    return ops.conv(x, kernel, padding="same", data_format="channels_last")


def filter_gradient(x, slopes):
    """Gradient of a 3x3 filter: for each place in it, a product over all pixels.

    Args:
        x: Input of the convolution, of shape `(batch, height, width, inputs)`.
        slopes: Gradient of its result, of shape `(batch, height, width, filters)`.

    Returns:
        Tensor of shape `(3, 3, inputs, filters)`.
    """
    shift = shift_views if backend.slices_are_views() else shift_copies
    shifted, pixels = shift(x, slopes)
    products = [ops.matmul(ops.transpose(matrix), pixels) for matrix in shifted]
    return ops.reshape(ops.stack(products), (3, 3, x.shape[-1], slopes.shape[-1]))


def shift_copies(x, slopes):
    """What the nine places of a filter see, copied.

    Returns:
        A pair: nine matrices with the input that each place multiplies, and one of
        the gradients; all have a row for each pixel.
    """
    height, width, inputs = x.shape[1:]
    padded = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    shifted = [
        ops.reshape(padded[:, i : i + height, j : j + width], (-1, inputs))
        for i in range(3)
        for j in range(3)
    ]
    return shifted, ops.reshape(slopes, (-1, slopes.shape[-1]))


def shift_views(x, slopes):
    """The same as nine ranges of rows of one matrix, which no backend need copy.

    One pixel of zeros behind each row of a picture, and one row of them behind each
    picture, are the border of what follows, too. Gradients there are zero.
    """

    def lines(values):
        padded = ops.pad(values, [[0, 0], [0, 1], [0, 1], [0, 0]])
        return ops.reshape(padded, (-1, values.shape[-1]))

    below = x.shape[2] + 1  # Rows of the matrix from a pixel to the one below it.
    matrix = ops.pad(lines(x), [[below + 1, below + 1], [0, 0]])
    pixels = lines(slopes)
    count = ops.shape(pixels)[0]
    starts = [i * below + j for i in range(3) for j in range(3)]
    return [matrix[start : start + count] for start in starts], pixels
