"""Averages whose length is chosen after training, from two that were kept.

Karras et al., 2024 (https://arxiv.org/abs/2312.02696), section 3 and appendix C. A
power-function average of t updates weighs the weights after update s as s^gamma. Its
length is sigma_rel, the standard deviation of that profile as a fraction of t.
"""

import math

import numpy as np
from keras import ops

from keras_mdm.checks import between
from keras_mdm.ema import ExponentialMovingAverage

# Of the mean of all updates, gamma = 0.
LONGEST = 1 / math.sqrt(12)


class PowerAverage(ExponentialMovingAverage):
    """Average that weighs what is after update s of a level as s^gamma.

    Args:
        variables: List of the variables to average.
        sigma_rel: float. Length of the average.
        levels: List of int; see `ExponentialMovingAverage`.
    """

    def __init__(self, variables, sigma_rel, levels):
        self.gamma = gamma_of(sigma_rel)
        self.sigma_rel = sigma_rel
        name = f"power_average_{sigma_rel}".replace(".", "_")
        super().__init__(variables, momentum=0.0, levels=levels, name=name)

    def rates(self, counts, trained):
        # As 1 - (1 - 1/n)^(gamma + 1), which float32 would round off.
        share = -ops.expm1((self.gamma + 1.0) * ops.log1p(-1.0 / (counts + 1.0)))
        return ops.cast(trained, "float32") * share


def check_lengths(lengths):
    """Raises a `ValueError` unless these are several lengths of averages, or `None`."""
    if lengths is None:
        return
    listed = isinstance(lengths, tuple | list) and all(map(between, lengths))
    if not listed or len(set(lengths)) < len(lengths) or not lengths:
        raise ValueError(
            "`power_averages` must be different lengths, such as (0.05, 0.1), or None. "
            f"Received: power_averages={lengths}"
        )
    for length in lengths:
        gamma_of(length)


def gamma_of(sigma_rel):
    """The exponent of an average of a length.

    Args:
        sigma_rel: float above 0 and below 0.288, that of the mean of all updates.

    Returns:
        float: the root of `sigma_rel^2 (gamma + 2)^2 (gamma + 3) = gamma + 1`.
    """
    if not between(sigma_rel, 0.0) or not 0.0 < sigma_rel < LONGEST:
        raise ValueError(
            "the length sigma_rel of an average must be above 0 and below "
            f"{LONGEST:.3f}, that of the mean of all updates. Received: {sigma_rel}"
        )
    square = sigma_rel**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


def solve_weights(updates, gammas, end, gamma):
    """Weights of snapshots whose sum is nearest to another average.

    The squared difference of the profiles is the least that weights with the sum 1 can
    have, so that what did not change in training comes out as it was.

    Args:
        updates: float array of shape `(snapshots,)`. Updates until each.
        gammas: float array of the same shape.
        end: float. Updates until the average that is wanted.
        gamma: float.

    Returns:
        A pair: float array of shape `(snapshots,)`, and the difference of the profiles
        as a fraction of the wanted one, in the root mean square.
    """
    updates, count = np.asarray(updates, "float64") / end, len(updates)
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = _overlap(
        updates[:, None], gammas[:, None], updates, gammas
    )
    matrix[count, count] = 0.0
    wanted = np.ones(count + 1)
    wanted[:count] = _overlap(updates, gammas, 1.0, gamma)
    weights = np.linalg.solve(matrix, wanted)[:count]
    own = _overlap(1.0, gamma, 1.0, gamma)
    square = weights @ (matrix[:count, :count] @ weights - 2 * wanted[:count]) + own
    return weights, math.sqrt(max(square, 0.0) / own)


def _overlap(t_a, gamma_a, t_b, gamma_b):
    """Integral of the product of two profiles (gamma + 1) s^gamma / t^(gamma + 1)."""
    t, p, q = np.minimum(t_a, t_b), gamma_a + 1.0, gamma_b + 1.0
    return p * q / (p + q - 1.0) * (t / t_a) ** p * (t / t_b) ** q / t
