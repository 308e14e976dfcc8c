"""What `fit` and `evaluate` report of the levels that take part. Bound to `MDM`."""

import keras
from keras import ops


def get_metrics_result(self):
    """Means since the last reset; `loss` is the weighted sum of the levels'.

    Keras' own would weigh batches of several sizes other than each level's does.
    """
    results = keras.Model.get_metrics_result(self)
    trackers = {level: self.loss_trackers[level] for level in self.resolutions}
    for tracker in trackers.values():
        mean = results[tracker.name]
        results[tracker.name] = ops.where(tracker.count > 0, mean, float("nan"))
    if "loss" in results:
        results["loss"] = sum(
            self.level_weights[level] * results[tracker.name]
            for level, tracker in trackers.items()
        )
    return results


def metrics(self):
    """Keras' metrics without the losses of other resolutions, which would be 0."""
    active = self.resolutions
    idle = [m for level, m in self.loss_trackers.items() if level not in active]
    found = keras.Model.metrics.fget(self)
    return [m for m in found if not any(m is other for other in idle)]


def metrics_names(self):
    """Names of the results; the monitor of steps has none."""
    found = keras.Model.metrics_names.fget(self)
    return [name for name in found if name != self.monitor.name]
