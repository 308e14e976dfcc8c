"""Not wasting a night. Public as `keras_mdm.callbacks.LossGuard`."""

import sys

import numpy as np

from keras_mdm import backend
from keras_mdm.checks import check_number, check_whole
from keras_mdm.fitting.monitor import EDGES
from keras_mdm.training.stage_callback import StageCallback


class LossGuard(StageCallback):
    """Stops training that gets nowhere, and tells of losses that jump.

    The default optimizer skips an update whose gradients are not finite. If so many
    follow each other, training stops before anything of it is saved. With another
    optimizer the weights are lost after the first; older states stay.

    Args:
        patience: int. Steps in a row without a finite loss and update after which
            training stops. Defaults to 20.
        spike: float. A loss of one step that is so many times the mean of the steps
            before it is told, once in an epoch unless another is larger. Defaults to 5.
        every: int. Steps between looks, each of which waits for the device, besides
            that at the end of an epoch. Defaults to 25.

    Raises:
        FloatingPointError: by `fit`, if training stops.
    """

    def __init__(self, patience=20, spike=5.0, every=25):
        super().__init__()
        check_whole(patience=patience, every=every)
        check_number(1, spike=spike)
        self.patience, self.spike, self.every = patience, spike, every
        self.skipped = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.told, self.skipped, self.looked = 0.0, 0.0, self.step
        super().on_epoch_begin(epoch, logs)

    def get_state(self):
        told, skipped = float(self.told), float(self.skipped)
        seen = {"told": told, "skipped": skipped, "looked": self.looked}
        return super().get_state() | seen

    def take_up(self, state):
        super().take_up(state)
        self.told, self.skipped = state["told"], state["skipped"]
        self.looked = state["looked"]

    def on_train_batch_end(self, batch, logs=None):
        before = self.step
        super().on_train_batch_end(batch, logs)
        last = batch + 1 == self.params.get("steps")
        if last or self.passed(before):
            self._look()

    def _look(self):
        monitor = self.model.monitor
        variables = [monitor.in_a_row, monitor.skipped, monitor.peak]
        in_a_row, skipped, (times, loss, step) = backend.newest(self.model, variables)
        if in_a_row >= self.patience:
            raise FloatingPointError(self._explain(int(in_a_row)))
        if skipped > self.skipped:
            self._tell(
                f"{int(skipped - self.skipped)} of the steps {self.looked + 1} to "
                f"{self.step} had a loss or gradient that is not finite, and changed "
                f"nothing{self._place(self.looked + 1)}"
            )
            self.skipped = skipped
        self.looked = self.step
        if times > max(self.spike, self.told):
            self.told = times
            self._tell(
                f"the loss jumped to {loss:.4g} at step {int(step)}, {times:.3g} times "
                f"its mean before{self._place(int(step))}"
            )

    def _explain(self, count):
        (not_finite,) = backend.newest(self.model, [self.model.monitor.not_finite])
        where = "the losses are finite, the gradients are not"
        if not_finite.any():
            number, bin_ = np.unravel_index(not_finite.argmax(), not_finite.shape)
            where = (
                f"most losses that are not finite are those of resolution "
                f"{self.model.network.levels[number]} at a log-SNR of {EDGES[bin_]} to "
                f"{EDGES[bin_ + 1]}"
            )
        rate = backend.learning_rate(self.model)
        return (
            f"{count} steps in a row, up to step {self.step}, had a loss or gradient "
            f"that is not finite, so training stops: {where}; the learning rate is "
            f"{rate:.3g}{self._place(self.step)}. Lower the learning rate, lengthen "
            "the warm-up, or train in float32; if one batch of the data begins it, "
            "look at that. The last state is from before."
        )

    def _place(self, step):
        if self.places is None:
            return ""
        place = self.places.describe(self.step - step)
        return f"; the batch of step {step} was {place}"

    def _tell(self, text):
        print(f"\n{text}.", file=sys.stderr, flush=True)
