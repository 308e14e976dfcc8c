"""The speed of training in figures that progress line, history and TensorBoard show.

All of the recipes' logging takes 0.05 to 0.08 ms of processor time a step (JAX on two
busy cores, a row every 25 steps), most of it for files.
"""

from keras_mdm import backend
from keras_mdm.diffusion import losses
from keras_mdm.networks.cost import count_flops

# Names of the figures, as columns of a history.
FIGURES = ("images_per_second", "teraflops", "share_of_peak", "waited_for_data")


def step_flops(mdm, row, size):
    """FLOPs of a training step, by `keras_mdm.networks.cost`.

    The backward pass has two products for each one of the forward pass, and one in
    frozen networks, through which gradients pass alone. What remat computes again is
    not counted, nor are layers of other packages.

    Args:
        mdm: A compiled `MDM`.
        row: dict of arrays of one row, as a batch has them.
        size: int. Rows of a batch.

    Returns:
        Number.
    """
    network = mdm.network.at_level(mdm.resolution)
    counts = count_flops(network, row)
    sizes = [size] * len(counts)
    if mdm.mixed_fractions is not None:
        sizes = losses.mixed_batch_sizes(mdm.mixed_fractions, size)
    passes = [3, *[2 if mdm.inner_is_frozen else 3] * (len(counts) - 1)]
    return sum(
        flops * count * times
        for flops, count, times in zip(counts.values(), sizes, passes, strict=True)
    )


class SpeedMeter:
    """The figures since it was made, or started anew.

    Args:
        mdm: The `MDM` that `fit` is about to train: its weights are still there.
        clock: `StepClock` of this `fit`, or `None`: no figures then.
    """

    def __init__(self, mdm, clock):
        self.clock = clock
        self.peak, self.measured = None, False
        if clock is None:
            return
        # A step takes the batches of all processes.
        self.size = clock.size * backend.number_of_processes()
        if clock.flops is None:
            clock.flops = step_flops(mdm, clock.row, self.size)
        if clock.flops:
            peak, self.measured = backend.peak_flops(mdm.network.compute_dtype)
            self.peak = peak * backend.rows_per_call()
        self._before = clock.totals()

    def figures(self, restart=False):
        """Figures of the steps so far; waits until the device has ended them.

        Args:
            restart: bool. Whether the next figures are those of the steps from here on.

        Returns:
            dict: `images_per_second` (or clips) of all processes, `teraflops` (10^12
            operations a second), `share_of_peak` and `waited_for_data` (shares of one).
            Empty if no step was timed yet: the first one compiles.
        """
        if self.clock is None:
            return {}
        now = self.clock.totals()
        steps, seconds, waited = (b - a for a, b in zip(self._before, now, strict=True))
        if not steps:
            return {}
        if restart:
            self._before = now
        rate = steps / seconds
        figures = {"images_per_second": rate * self.size}
        if self.peak is not None:
            figures["teraflops"] = rate * self.clock.flops / 1e12
            figures["share_of_peak"] = rate * self.clock.flops / self.peak
        return {**figures, "waited_for_data": waited / seconds}
