"""Classifier-free guidance and the thresholding of the clean picture it predicts."""

from keras import ops

THRESHOLDS = ("none", "static", "dynamic")


def guide(unconditional, conditional, scale, rescale):
    """Classifier-free guidance with rescaling.

    `u + scale * (c - u)` ([Ho and Salimans, 2022](https://arxiv.org/abs/2207.12598),
    eq. 6), then a share `rescale` of the result is brought back to the standard
    deviation of `c` ([Lin et al., 2023](https://arxiv.org/abs/2305.08891), eq. 15-16).

    Args:
        unconditional: Tensor of shape `(batch, height, width, channels)`.
        conditional: Tensor of the same shape.
        scale: Scalar. 1 gives `conditional`.
        rescale: Scalar in [0, 1], or `None` to leave the standard deviation as it is.

    Returns:
        Tensor of the same shape.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale is None:
        return guided
    axes = tuple(range(1, len(guided.shape)))
    wanted = ops.std(conditional, axis=axes, keepdims=True)
    present = ops.std(guided, axis=axes, keepdims=True)
    factor = wanted / ops.maximum(present, 1e-8)
    return guided * (1.0 + rescale * (factor - 1.0))


def threshold(kind, x0, percentile, maximum):
    """Keeps the predicted clean picture in its range.

    Args:
        kind: str. `"none"`; `"static"`: cut to [-1, 1]; `"dynamic"`: each sample is
            cut at the `percentile` of its magnitudes, taken between 1 and `maximum`,
            and divided by it ([Saharia et al., 2022](
            https://arxiv.org/abs/2205.11487), 2.3).
        x0: Tensor of shape `(batch, height, width, channels)`.
        percentile: Scalar in (0, 1).
        maximum: Scalar, at least 1.

    Returns:
        Tensor of the shape of `x0`.
    """
    if kind == "none":
        return x0
    if kind == "static":
        return ops.clip(x0, -1.0, 1.0)
    magnitudes = ops.reshape(ops.abs(x0), (x0.shape[0], -1))
    limit = ops.quantile(magnitudes, percentile, axis=1)
    limit = ops.clip(limit, 1.0, maximum)
    limit = ops.reshape(limit, (-1,) + (1,) * (len(x0.shape) - 1))
    return ops.clip(x0, -limit, limit) / limit
