"""From a clean picture to the levels of a nest, by average pooling."""

from keras import ops


def image_pyramid(images, resolutions):
    """Pools pictures down to every resolution.

    Args:
        images: Tensor of shape `(batch, resolutions[0], resolutions[0], channels)`.
        resolutions: Sequence of int, largest first, each a divisor of the one before.

    Returns:
        List of tensors of shape `(batch, resolution, resolution, channels)`.

    Reference:
        - [Gu et al., 2023](https://arxiv.org/abs/2310.15111), 3.1
    """
    pyramid = [images]
    for larger, smaller in zip(resolutions, resolutions[1:], strict=False):
        factor = larger // smaller
        pyramid.append(
            ops.average_pool(pyramid[-1], factor, factor, data_format="channels_last")
        )
    return pyramid
