"""Times of steps and of waiting for data, with a clock that is set by hand."""

import types

import keras
import numpy as np
import pytest
from helpers import batch_of, counting, trainer

from keras_mdm.fitting import clock, step_callbacks
from keras_mdm.fitting.clock import StepClock


class Losses:
    """Losses of a step that is running until `end` is called."""

    def __init__(self, now, end):
        self.now, self.end = now, end

    def __array__(self, *args, **kwargs):
        # Only the thread of the clock comes here, to wait.
        self.now.value = max(self.now.value, self.end)
        return np.zeros(())


@pytest.fixture
def now(monkeypatch):
    now = types.SimpleNamespace(value=0.0)
    fake = types.SimpleNamespace(perf_counter=lambda: now.value)
    monkeypatch.setattr(clock, "time", fake)
    monkeypatch.setattr(keras.ops, "convert_to_numpy", np.asarray)
    return now


def run(now, steps):
    """Totals after steps, each `(begin and end of reading, end of the step)`."""
    watch = StepClock({}, 4)

    def batches():
        for _, read, _ in steps:
            now.value = read
            yield read

    reading = watch.timed(batches())
    watch.begin_epoch()
    for begin, _, end in steps:
        now.value = begin
        next(reading)
        watch.note(1, Losses(now, end))
        totals = watch.totals()
    watch.close()
    return totals


def test_reading_beside_a_step_that_runs_is_no_waiting(now):
    # Each batch is there at once, or before the step before has ended.
    assert run(now, [(0, 1, 10), (1, 2, 20), (2, 9, 30)]) == (2, 20.0, 0.0)


def test_only_what_the_device_stands_still_is_waiting(now):
    # The second step ends at 20, its successor is read from 12 to 26.
    assert run(now, [(0, 1, 10), (1, 2, 20), (12, 26, 30)]) == (2, 20.0, 6.0)
    # The device stands still already when reading begins.
    assert run(now, [(0, 1, 10), (15, 18, 20), (24, 29, 40)]) == (2, 30.0, 8.0)


def test_pauses_and_the_first_step_of_an_epoch_are_left_out(now):
    watch = StepClock({}, 4)
    for start in (0, 1000):
        watch.begin_epoch()
        for end in (100, 102, 105):
            watch.note(2, Losses(now, start + end))
            watch.totals()
    assert watch.totals() == (8, 10.0, 0.0)
    watch.close()


def test_a_step_that_fails_stops_no_clock(now):
    class Failed:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("out of memory")

    watch = StepClock({}, 4)
    for losses in (Losses(now, 1), Failed(), Losses(now, 5), Losses(now, 7)):
        watch.note(1, losses)
        watch.totals()
    assert watch.totals() == (1, 2.0, 0.0)
    watch.close()


# === In `fit` ===


class Reader(step_callbacks.StepCallback):
    """Notes what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["loss"]))

    def on_train_end(self, logs=None):
        self.totals = self.clock.totals()


class Numbers(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])


def slow_batches(pause):
    import time

    while True:
        time.sleep(pause)
        yield batch_of(4, 8)


def test_fit_times_steps_and_gives_numbers_to_others():
    mdm, reader, numbers = trainer(), Reader(), Numbers()
    mdm.fit(
        slow_batches(0.1),
        steps_per_epoch=4,
        epochs=2,
        verbose=0,
        callbacks=[reader, numbers, keras.callbacks.LambdaCallback()],
    )
    assert [batch for batch, _ in reader.seen] == [0, 1, 2, 3] * 2
    assert all(keras.ops.is_tensor(loss) for _, loss in reader.seen)
    assert all(type(loss) is float for loss in numbers.seen)
    np.testing.assert_allclose([float(loss) for _, loss in reader.seen], numbers.seen)
    steps, seconds, waited = reader.totals
    assert steps == 6 and reader.clock.size == 4
    assert reader.clock.row["images"].shape == (1, 8, 8, 1)
    # Reading takes 0.1 s of each step, and nothing else takes long.
    assert 0.5 * seconds < waited < seconds
    # The thread of the clock has ended.
    assert not reader.clock._thread.is_alive()


def test_fit_without_such_callbacks_is_keras_own():
    mdm, numbers = trainer(), Numbers()
    with counting(StepClock, "note") as noted:
        mdm.fit(batch_of(8, 8), batch_size=4, verbose=0, callbacks=[numbers])
        assert not noted
        mdm.fit(batch_of(8, 8), batch_size=4, verbose=0, callbacks=Reader())
        assert len(noted) == 2
    assert len(numbers.seen) == 2


def test_errors_in_fit_end_the_thread():
    class Stop(Reader):
        def on_train_batch_end(self, batch, logs=None):
            raise ArithmeticError("enough")

    mdm, stop = trainer(), Stop()
    with pytest.raises(ArithmeticError, match="enough"):
        mdm.fit(batch_of(8, 8), batch_size=4, verbose=0, callbacks=[stop])
    assert not stop.clock._thread.is_alive()
