"""The multi-resolution loss and its weighting over noise levels."""

import numpy as np
from keras import ops

WEIGHTINGS = ("uniform", "snr", "min_snr", "sigmoid", "vdm")


def loss_weights(
    weighting,
    loss_target,
    alphas_cumprod,
    min_snr_gamma=5.0,
    bias=-1.0,
    unshifted=None,
):
    """Weight of the squared error at each noise level.

    Except for `"uniform"`, a weighting is defined on the error of the clean picture
    (x0) and carried over to the loss target: an error of epsilon is `1 / snr`, one of
    v `1 / (snr + 1)` of it.

    Args:
        weighting: str.
            - `"uniform"`: 1 on whatever the loss target is.
            - `"snr"`: the signal-to-noise ratio, that is 1 on epsilon.
            - `"min_snr"`: at most `min_snr_gamma` ([Hang et al., 2023](
              https://arxiv.org/abs/2303.09556)).
            - `"sigmoid"`: `sigmoid(bias - log_snr)` on epsilon ([Hoogeboom et al.,
              2024](https://arxiv.org/abs/2410.19324)).
            - `"vdm"`: `snr(t - 1) / snr(t) - 1` on epsilon, the variational bound
              ([Kingma et al., 2021](https://arxiv.org/abs/2107.00630), eq. 15),
              divided by its mean over the unshifted levels, one number for all
              resolutions.
        loss_target: str. `"v"`, `"epsilon"` or `"x0"`.
        alphas_cumprod: float array of shape `(N + 1,)`; entry 0 is 1.
        min_snr_gamma: float. Defaults to 5.
        bias: float. Of the sigmoid. Defaults to -1.
        unshifted: Optional array like `alphas_cumprod`, before its shift, which leaves
            the ratios of neighbors as they are but for float32's rounding.

    Returns:
        float32 array of shape `(N,)`: weights of noise levels 1 to N.

    Raises:
        ValueError: if `weighting` is unknown.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(
            f"`loss_weighting` must be one of {WEIGHTINGS}. "
            f"Received: loss_weighting={weighting!r}"
        )
    alphas = alphas_cumprod[1:].astype("float64")
    snr = alphas / (1.0 - alphas)
    if weighting == "uniform":
        return np.ones(len(snr), "float32")
    # Level 1 has no level below it with a finite ratio: it takes level 2's weight.
    other = alphas if unshifted is None else unshifted[1:].astype("float64")
    other_snr = other / (1.0 - other)
    ratio = other_snr[:-1] / other_snr[1:] - 1.0
    ratio = np.concatenate([ratio[:1], ratio])
    on_x0 = {
        "vdm": snr * ratio,
        "snr": snr,
        "min_snr": np.minimum(snr, min_snr_gamma),
        "sigmoid": snr / (1.0 + snr * np.exp(-bias)),
    }[weighting]
    if weighting == "vdm":
        # Of one resolution's own mean, it would hang on the target which counts more.
        mean = np.mean(other_snr * ratio / _share_of_x0(loss_target, other_snr))
        on_x0 = on_x0 / mean
    return (on_x0 / _share_of_x0(loss_target, snr)).astype("float32")


def _share_of_x0(loss_target, snr):
    """By what a weight on x0 is divided to weigh the loss target."""
    return {"x0": 1.0, "epsilon": snr, "v": snr + 1.0}[loss_target]


def mean_squared_error(prediction, target):
    """Mean over all but the first axis, float32, shape `(batch,)`."""
    error = ops.square(ops.cast(prediction, "float32") - ops.cast(target, "float32"))
    return ops.mean(error, axis=tuple(range(1, len(error.shape))))


def level_weights(weights, resolutions, schedule):
    """Weight of the loss of each resolution.

    Args:
        weights: dict of resolution to weight, `None` for 1 each, or `"ratio"`: each
            has its ratio to the smallest one, in which frames count if they do in the
            schedule. Resolutions that a dict lacks have weight 0.
        resolutions: Sequence of levels, largest first: those that take part.
        schedule: `NoiseSchedule`.

    Returns:
        dict of every resolution to float.

    Raises:
        ValueError: if a resolution is unknown, or a weight is wrong.
    """
    if weights is None:
        return {resolution: 1.0 for resolution in resolutions}
    if weights == "ratio":
        return {r: schedule.ratio(r, resolutions[-1]) for r in resolutions}
    if not isinstance(weights, dict):
        raise ValueError(
            "`loss_weights` must be a dict of resolution to weight, 'ratio' or None. "
            f"Received: loss_weights={weights!r}"
        )
    _check_resolutions("loss_weights", weights, resolutions)
    if not all(0 <= w < np.inf for w in weights.values()) or not any(weights.values()):
        raise ValueError(
            "`loss_weights` must be at least 0 and finite, and one above 0. "
            f"Received: loss_weights={weights}"
        )
    return {r: float(weights.get(r, 0.0)) for r in resolutions}


def mixed_shares(shares, resolutions):
    """Share of a mixed batch whose largest resolution is each of those given.

    Args:
        shares: dict of resolution to share: whole numbers (a ratio), or fractions
            that sum to 1. `None` for no mixed batches.
        resolutions: Sequence of int: those that take part, largest first.

    Returns:
        List of float with sum 1, or `None`.

    Raises:
        ValueError: if a resolution is unknown, or the shares do not add up.
    """
    if shares is None:
        return None
    _check_resolutions("mixed_resolution", shares, resolutions)
    values = [shares.get(resolution, 0) for resolution in resolutions]
    total = sum(values)
    whole = all(float(value).is_integer() for value in values)
    wrong = not all(0 <= value < np.inf for value in values) or values[0] <= 0
    if wrong or (not whole and abs(total - 1) > 1e-6):
        raise ValueError(
            "`mixed_resolution` must be whole numbers (a ratio) or fractions that "
            "sum to 1, above 0 for the largest resolution "
            f"{resolutions[0]}. Received: mixed_resolution={shares}, whose sum "
            f"is {total}"
        )
    return [value / total for value in values]


def _check_resolutions(argument, values, resolutions):
    unknown = set(values) - set(resolutions)
    if unknown or not values:
        raise ValueError(
            f"`{argument}` must have resolutions among {resolutions} as keys. "
            f"Received: {argument}={values}"
        )


def mixed_batch_sizes(shares, batch_size):
    """How many samples of a mixed batch reach each resolution.

    Sample i takes part at resolution r if its own largest resolution is at least r,
    so the counts grow from the largest resolution to the smallest.

    Args:
        shares: Sequence of float, largest resolution first: share of the batch whose
            largest resolution this is; their sum is 1.
        batch_size: int.

    Returns:
        A list of int, largest resolution first. The loss of each resolution is the mean
        over as many samples.

    Raises:
        ValueError: if a resolution is left without a sample.
    """
    # The guard keeps 2/3 of 6 at 4 whatever the rounding of the share.
    counts = [int(share * batch_size + 1e-6) for share in np.cumsum(shares)]
    counts[-1] = batch_size
    if counts[0] < 1:
        raise ValueError(
            "the batch is too small for its mixed shares: no sample would reach the "
            f"largest resolution. Received: batch_size={batch_size}, shares={shares}"
        )
    return counts
