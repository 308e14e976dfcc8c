"""What each training step notes on the device, for callbacks to read now and then.

Reading waits for the device, so nothing here is read at every step. `MDM` has one
`StepMonitor`; `keras_mdm.callbacks` read it.
"""

import keras
import numpy as np
from keras import ops

# Edges of the bins of log-SNR; what lies outside is in the first and the last one.
EDGES = tuple(range(-10, 11, 2))
_BINS = len(EDGES) - 1


@keras.saving.register_keras_serializable("keras_mdm")
class StepMonitor(keras.metrics.Metric):
    """Losses by noise level, gradient norms, and steps that were not finite.

    A metric with no result of its own: Keras carries its variables through the steps
    and sets them to zero when an epoch begins, and logs stay short.

    Args:
        levels: int. Number of levels of the network.

    Attributes:
        losses: Variable of shape `(levels, bins)`. Sums of the finite losses of samples
            whose log-SNR at a level falls into a bin of `EDGES`.
        counts: Variable of the same shape. How many samples they are.
        not_finite: Variable of the same shape. How many had a NaN or infinite loss.
        gradients: Variable of shape `(levels,)`. Sums of gradient norms.
        last: Variable. The loss of the last batch.
        mean: Variable. Running mean of the losses of the last steps, about 20.
        peak: Variable of shape `(3,)`. The largest jump: how many times the mean before
            it the loss of a step was, that loss, and the number of the step by the
            optimizer's count.
        steps: Variable. Updates of the weights.
        skipped: Variable. Steps whose loss or update was not finite.
        in_a_row: Variable. Steps since the last one with a finite loss and update; an
            epoch that begins does not set it to zero.
    """

    def __init__(self, levels, name="monitor"):
        super().__init__(name=name, dtype="float32")
        for kind in ("losses", "counts", "not_finite"):
            setattr(self, kind, self._zeros((levels, _BINS), kind))
        self.gradients = self._zeros((levels,), "gradients")
        self.last = self._zeros((), "last")
        self.mean = self._zeros((), "mean")
        self.peak = self._zeros((3,), "peak")
        self.steps = self._zeros((), "steps")
        self.skipped = self._zeros((), "skipped")
        self.in_a_row = self._zeros((), "in_a_row")

    def _zeros(self, shape, name):
        return self.add_variable(shape, keras.initializers.Zeros(), name=name)

    def update_state(self, level, alpha, sigma, errors):
        """Notes the losses of the samples at one level.

        Args:
            level: int. Number of the level, 0 the largest.
            alpha, sigma: Tensors with the factors of picture and noise of each sample.
            errors: Tensor of shape `(batch,)`. Losses.
        """
        log_snr = 2.0 * (ops.log(ops.maximum(alpha, 1e-9)) - ops.log(sigma))
        place = (ops.reshape(log_snr, (-1,)) - EDGES[0]) / (EDGES[1] - EDGES[0])
        place = ops.cast(ops.clip(place, 0, _BINS - 1), "int32")
        bins = ops.one_hot(place, _BINS, dtype="float32")
        finite = ops.isfinite(errors)
        values = ops.stack(
            [
                ops.where(finite, errors, 0.0),
                ops.cast(finite, "float32"),
                ops.cast(ops.logical_not(finite), "float32"),
            ]
        )
        here = np.zeros((self.losses.shape[0], 1), "float32")
        here[level] = 1.0
        sums = ops.unstack(ops.matmul(values, bins))
        kinds = (self.losses, self.counts, self.not_finite)
        for variable, value in zip(kinds, sums, strict=True):
            variable.assign(variable + ops.convert_to_tensor(here) * value)

    def end_step(self, step, optimizer, moved):
        """Notes what is known when a step has ended, and whether it moved weights."""
        finite, last, mean = ops.isfinite(self.last), self.last.value, self.mean.value
        # The first step of an epoch has nothing before it.
        times = ops.where(mean > 0, last / ops.maximum(mean, 1e-30), 1.0)
        highest = ops.logical_and(finite, times > self.peak[0])
        now = ops.stack([times, last, ops.cast(step, "float32")])
        self.peak.assign(ops.where(highest, now, self.peak.value))
        moving = ops.where(mean > 0, mean + (last - mean) * 0.05, last)
        self.mean.assign(ops.where(finite, moving, mean))
        moved = ops.cast(moved, "float32")
        if hasattr(optimizer, "gradient_norms"):
            norms = optimizer.gradient_norms.value
            norms = ops.where(ops.isfinite(norms), norms, 0.0) * moved
            if norms.shape == self.gradients.shape:
                self.gradients.assign(self.gradients + norms)
            finite = ops.logical_and(finite, optimizer.skipped_in_a_row == 0)
        self.steps.assign(self.steps + moved)
        self.skipped.assign(self.skipped + ops.cast(ops.logical_not(finite), "float32"))
        self.in_a_row.assign(ops.where(finite, 0.0, self.in_a_row + 1.0))

    def result(self):
        return {}

    def reset_state(self):
        for variable in self.variables:
            if variable is not self.in_a_row:
                variable.assign(ops.zeros(variable.shape, variable.dtype))
