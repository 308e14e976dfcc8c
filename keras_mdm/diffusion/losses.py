"""The multi-resolution loss and its weighting over noise levels."""

import numpy as np
from keras import ops

from keras_mdm.checks import between, check_choice

WEIGHTINGS = ("uniform", "snr", "min_snr", "sigmoid", "vdm")

_MIN_SNR_GAMMA = 5.0
_SIGMOID_BIAS = -1.0


def noise_level_weights(weighting, error_ratio, alpha, sigma, base_alpha, base_sigma):
    """Weight of the squared error at each noise level.

    Except for `"uniform"`, a weighting is defined on the error of the clean picture
    (x0) and carried over to the loss target.

    Args:
        weighting: str.
            - `"uniform"`: 1 on whatever the loss target is; less where a flow that
              predicts x0 has less noise than .05 ([Li and He, 2025](
              https://arxiv.org/abs/2511.13720)).
            - `"snr"`: the signal-to-noise ratio, that is 1 on epsilon.
            - `"min_snr"`: at most 5 ([Hang et al., 2023](
              https://arxiv.org/abs/2303.09556)).
            - `"sigmoid"`: `sigmoid(-1 - log_snr)` on epsilon ([Hoogeboom et al.,
              2024](https://arxiv.org/abs/2410.19324)).
            - `"vdm"`: `snr(t - 1) / snr(t) - 1` on epsilon, the variational bound
              ([Kingma et al., 2021](https://arxiv.org/abs/2107.00630), eq. 15),
              divided by its mean over the unshifted timesteps, one number for all
              levels.
        error_ratio: Callable of alpha and sigma: squared error of the loss target over
            that of x0; see `Process`.
        alpha: float64 array of shape `(N,)`, at timesteps 1 to N.
        sigma: Array like it.
        base_alpha: Array like it: before the shift of the level.
        base_sigma: Array like it.

    Returns:
        float64 array of shape `(N,)`.

    Raises:
        ValueError: if `weighting` is unknown.
    """
    check_choice(WEIGHTINGS, loss_weighting=weighting)
    if weighting == "uniform":
        return np.ones(len(alpha))
    snr = (alpha / sigma) ** 2
    if weighting == "vdm":
        base = (base_alpha / base_sigma) ** 2
        with np.errstate(divide="ignore"):
            ratio = base[:-1] / base[1:] - 1.0
        # The first timestep, whose ratio has no end, takes that of the next. If the
        # last has no picture, its product is the signal-to-noise ratio before it.
        ratio = np.concatenate([ratio[:1], np.minimum(ratio, 1e12)])
        of_last = max(base[-1], base[-2] / 1e12)
        on_base = ratio * np.append(base[:-1], of_last)
        on_x0 = ratio * np.append(snr[:-1], max(snr[-1], snr[-2] / 1e12))
        # Of one level's own mean, it would hang on the target which counts more.
        on_x0 = on_x0 / np.mean(on_base / error_ratio(base_alpha, base_sigma))
    else:
        on_x0 = {
            "snr": snr,
            "min_snr": np.minimum(snr, _MIN_SNR_GAMMA),
            "sigmoid": snr / (1.0 + snr * np.exp(-_SIGMOID_BIAS)),
        }[weighting]
    ratio = error_ratio(alpha, sigma)
    # Without a picture in x_t, an error of epsilon says nothing of x0.
    return np.divide(on_x0, ratio, out=np.ones_like(snr), where=ratio > 0)


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
    if isinstance(weights, str) and weights == "ratio":
        return {r: schedule.ratio(r, resolutions[-1]) for r in resolutions}
    if not isinstance(weights, dict):
        raise ValueError(
            "`loss_weights` must be a dict of resolution to weight, 'ratio' or None. "
            f"Received: loss_weights={weights!r}"
        )
    _check_resolutions("loss_weights", weights, resolutions)
    if not any(weights.values()):
        raise ValueError(
            "`loss_weights` must be at least 0 and finite, and one above 0. "
            f"Received: loss_weights={weights}"
        )
    return {r: float(weights.get(r, 0.0)) for r in resolutions}


def mixed_fractions(fractions, resolutions):
    """Fraction of a mixed batch whose largest resolution is each of those given.

    Args:
        fractions: dict of resolution to share: whole numbers (a ratio), or fractions
            that sum to 1. `None` for no mixed batches.
        resolutions: Sequence of int: those that take part, largest first.

    Returns:
        List of float with sum 1, or `None`.

    Raises:
        ValueError: if a resolution is unknown, or the fractions do not add up.
    """
    if fractions is None:
        return None
    _check_resolutions("mixed_resolution", fractions, resolutions)
    values = [fractions.get(resolution, 0) for resolution in resolutions]
    total = sum(values)
    whole = all(float(value).is_integer() for value in values)
    if values[0] == 0 or (not whole and abs(total - 1) > 1e-6):
        raise ValueError(
            "`mixed_resolution` must be whole numbers (a ratio) or fractions that "
            "sum to 1, above 0 for the largest resolution "
            f"{resolutions[0]}. Received: mixed_resolution={fractions}, whose sum "
            f"is {total}"
        )
    return [value / total for value in values]


def _check_resolutions(argument, values, resolutions):
    known = isinstance(values, dict) and not set(values) - set(resolutions)
    if not known or not values:
        raise ValueError(
            f"`{argument}` must have resolutions among {resolutions} as keys. "
            f"Received: {argument}={values!r}"
        )
    for value in values.values():
        if not between(value, 0):
            raise ValueError(
                f"`{argument}` must be at least 0 and finite, and one above 0. "
                f"Received: {argument}={values!r}"
            )


def mixed_batch_sizes(fractions, batch_size):
    """How many samples of a mixed batch reach each resolution.

    Sample i takes part at resolution r if its own largest resolution is at least r,
    so the counts grow from the largest resolution to the smallest.

    Args:
        fractions: Sequence of float, largest resolution first: share of the batch whose
            largest resolution this is; their sum is 1.
        batch_size: int.

    Returns:
        A list of int, largest resolution first. The loss of each resolution is the mean
        over as many samples.

    Raises:
        ValueError: if a resolution is left without a sample.
    """
    # The guard keeps 2/3 of 6 at 4 whatever the rounding of the share.
    counts = [int(share * batch_size + 1e-6) for share in np.cumsum(fractions)]
    counts[-1] = batch_size
    if counts[0] < 1:
        raise ValueError(
            "the batch is too small for its mixed fractions: no sample would reach the "
            f"largest resolution. Received: batch_size={batch_size}, "
            f"fractions={fractions}"
        )
    return counts
