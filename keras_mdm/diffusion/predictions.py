"""What a network may predict (v, epsilon or x0) and the ways between them.

With `x_t = alpha * x0 + sigma * epsilon` and `v = alpha * epsilon - sigma * x0`
([Salimans and Ho, 2022](https://arxiv.org/abs/2202.00512), appendix D). `alpha` and
`sigma` are the square roots of the shares of signal and noise, shaped to broadcast.
"""

PREDICTIONS = ("v", "epsilon", "x0")


def check_prediction(argument, value):
    """Raises a `ValueError` unless `value` is one of `PREDICTIONS`."""
    if value not in PREDICTIONS:
        raise ValueError(
            f"`{argument}` must be one of {PREDICTIONS}. Received: {argument}={value!r}"
        )


def target(kind, x0, epsilon, alpha, sigma):
    """The value of `kind` for a known picture and noise."""
    if kind == "v":
        return alpha * epsilon - sigma * x0
    return epsilon if kind == "epsilon" else x0


def to_x0(kind, value, x_t, alpha, sigma):
    """The clean picture that a prediction of `kind` stands for."""
    if kind == "v":
        return alpha * x_t - sigma * value
    if kind == "epsilon":
        return (x_t - sigma * value) / alpha
    return value


def convert(kind, value, to, x_t, alpha, sigma):
    """Turns a prediction of one kind into another.

    Args:
        kind: str. `"v"`, `"epsilon"` or `"x0"`: what `value` is.
        value: Tensor. The prediction.
        to: str. The kind wanted.
        x_t: Tensor of the shape of `value`. The noisy picture.
        alpha: Tensor. Share of signal, square-rooted.
        sigma: Tensor. Share of noise, square-rooted, above 0.

    Returns:
        Tensor of the shape of `value`.
    """
    if kind == to:
        return value
    x0 = to_x0(kind, value, x_t, alpha, sigma)
    return target(to, x0, (x_t - alpha * x0) / sigma, alpha, sigma)
