"""Weights survive whatever ends a step, and no other thread meets them half-way."""

import gc
import threading

import keras
import numpy as np
import pytest
from helpers import batch_of, equal_values, lean_nest, trainer, values_of

BATCH = batch_of(4, 8)


class Boom(Exception):
    pass


class At(keras.callbacks.Callback):
    """Calls a function at one hook of one step."""

    def __init__(self, hook, batch, function):
        super().__init__()
        setattr(self, hook, lambda at, logs=None: at == batch and function())


def boom(error=Boom):
    raise error


def endless():
    while True:
        yield BATCH


def breaking(good):
    for _ in range(good):
        yield BATCH
    raise Boom


@pytest.fixture(scope="module")
def mdm():
    mdm = trainer()
    mdm.fit(BATCH, verbose=0)
    return mdm


def is_whole(mdm):
    """Whether every variable has a value, and it draws and trains."""
    assert all(np.isfinite(v).all() for v in values_of(mdm.variables))
    assert all(np.isfinite(v).all() for v in values_of(mdm.optimizer.variables))
    before = int(mdm.optimizer.iterations)
    mdm.train_on_batch(BATCH)
    return int(mdm.optimizer.iterations) == before + 1


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
@pytest.mark.parametrize("batch", [0, 2])
def test_fit_keeps_the_last_step(mdm, hook, batch, error):
    before = int(mdm.optimizer.iterations)
    with pytest.raises(error):
        mdm.fit(
            endless(),
            steps_per_epoch=4,
            shuffle=False,
            verbose=0,
            callbacks=[At(hook, batch, lambda: boom(error))],
        )
    done = batch + (hook == "on_train_batch_end")
    assert int(mdm.optimizer.iterations) == before + done
    assert is_whole(mdm)


@pytest.mark.parametrize("good", [1, 3])
def test_fit_survives_data_that_break(mdm, good):
    before = values_of(mdm.network.variables)
    # What breaks the data on TensorFlow is an error of its own.
    with pytest.raises(Exception, match=None if good else "Boom"):
        mdm.fit(breaking(good), steps_per_epoch=9, shuffle=False, verbose=0)
    assert is_whole(mdm)
    assert not equal_values(before, values_of(mdm.network.variables))


@pytest.mark.once
def test_readers_end_with_a_training_that_a_callback_ends(mdm):
    class Same(keras.utils.PyDataset):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            return BATCH

    before = set(threading.enumerate())
    with pytest.raises(Boom):
        breaks = [At("on_train_batch_end", 1, boom)]
        mdm.fit(Same(workers=2), callbacks=breaks, shuffle=False, verbose=0)
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("hook", ["on_test_batch_begin", "on_test_batch_end"])
@pytest.mark.parametrize("inside", [True, False])
def test_evaluate_changes_nothing_and_survives(mdm, hook, inside):
    breaks = [At(hook, 1, boom)]
    before = values_of(mdm.network.variables)
    with pytest.raises(Boom):
        if inside:
            mdm.fit(
                BATCH,
                validation_data=batch_of(12, 8),
                validation_batch_size=4,
                callbacks=breaks,
                verbose=0,
            )
        else:
            mdm.evaluate(batch_of(12, 8), batch_size=4, callbacks=breaks, verbose=0)
    assert equal_values(before, values_of(mdm.network.variables)) != inside
    assert is_whole(mdm)


@pytest.mark.parametrize("call", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_a_step_that_fails_changes_nothing(call, monkeypatch):
    """While it is traced, the very first one."""
    mdm = trainer()
    before = values_of([*mdm.variables, *mdm.optimizer.variables])
    monkeypatch.setattr(mdm.process, "errors", lambda *args: boom())
    options = {"verbose": 0} if call in ("fit", "evaluate") else {}
    with pytest.raises(Boom):
        getattr(mdm, call)(BATCH, **options)
    assert equal_values(before, values_of([*mdm.variables, *mdm.optimizer.variables]))
    monkeypatch.undo()
    if call == "test_on_batch":
        assert is_whole(mdm)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="no memory is donated")
@pytest.mark.parametrize("call", ["fit", "evaluate", "train_on_batch"])
def test_a_step_that_fails_on_the_device_changes_nothing(call):
    """As where memory ends: the values had been given to the step."""
    import jax

    fails = []

    def on_the_host(value):
        if fails:
            raise Boom
        return value

    mdm = trainer()
    errors = mdm.process.errors

    def failing(level, value):
        found = errors(level, value)
        shape = jax.ShapeDtypeStruct((), "float32")
        zero = jax.lax.stop_gradient(0.0 * found.sum())
        return found + jax.pure_callback(on_the_host, shape, zero)

    mdm.process.errors = failing
    mdm.compile(keras.optimizers.SGD(0.05))
    before = values_of([*mdm.network.variables, *mdm.optimizer.variables])
    fails.append(True)
    options = {"verbose": 0} if call in ("fit", "evaluate") else {}
    with pytest.raises(Exception, match="Boom"):
        getattr(mdm, call)(BATCH, **options)
    after = values_of([*mdm.network.variables, *mdm.optimizer.variables])
    assert equal_values(before, after)
    if call == "train_on_batch":
        fails.clear()
        assert is_whole(mdm)
        # Not the first step any more: no copy is kept, and the error says so.
        fails.append(True)
        with pytest.raises(Exception, match="Boom") as found:
            mdm.fit(BATCH, verbose=0)
        assert "load them again" in "".join(found.value.__notes__)


def test_a_callback_may_use_the_model_in_the_middle_of_an_epoch(mdm):
    """By a name of its own, not as `callback.model`."""
    found = []

    def use():
        found.append(mdm.generate(labels=1, num_steps=2, seed=0))
        found.append(mdm.evaluate(BATCH, verbose=0)[0])
        found.append(mdm.get_weights())

    before = int(mdm.optimizer.iterations)
    mdm.fit(
        endless(),
        steps_per_epoch=3,
        shuffle=False,
        verbose=0,
        callbacks=[At("on_train_batch_end", 1, use)],
    )
    assert len(found) == 3 and np.isfinite(found[1])
    assert int(mdm.optimizer.iterations) == before + 3


@pytest.mark.parametrize(
    "change",
    [
        lambda mdm: mdm.compile("sgd"),
        lambda mdm: setattr(mdm, "resolution", 4),
        lambda mdm: mdm.set_active(8, freeze_inner=True),
    ],
)
def test_a_callback_can_not_take_the_step_away(mdm, change):
    optimizer = mdm.optimizer
    with pytest.raises(RuntimeError, match="while `fit` runs.*`model.stop_training"):
        changes = [At("on_train_batch_end", 0, lambda: change(mdm))]
        mdm.fit(BATCH, callbacks=changes, verbose=0)
    assert mdm.optimizer is optimizer and mdm.resolutions == (8, 4)
    mdm.resolution = 8
    assert is_whole(mdm)


@pytest.mark.parametrize(
    "use",
    [
        lambda mdm, path: mdm.generate(labels=1, num_steps=2),
        lambda mdm, path: mdm.evaluate(BATCH, verbose=0),
        lambda mdm, path: mdm.train_on_batch(BATCH),
        lambda mdm, path: mdm.save_to_preset(path / "preset"),
        lambda mdm, path: mdm.save_weights(path / "m.weights.h5"),
        lambda mdm, path: mdm.fit(BATCH, verbose=0),
        lambda mdm, path: setattr(mdm, "resolution", 4),
    ],
)
def test_another_thread_gets_a_sentence(use, mdm, tmp_path):
    told = []

    def other():
        try:
            use(mdm, tmp_path)
        except RuntimeError as error:
            told.append(str(error))

    def start():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    mdm.fit(
        endless(),
        steps_per_epoch=3,
        shuffle=False,
        verbose=0,
        callbacks=[At("on_train_batch_end", 1, start)],
    )
    assert len(told) == 1 and "while another thread trains" in told[0]
    assert not list(tmp_path.iterdir())


def test_other_threads_wait_for_what_ends_soon(mdm):
    """Evaluation, drawing and saving: each has its turn."""
    results, errors = [], []

    def draw(seed):
        try:
            results.append(mdm.generate(labels=1, num_steps=2, seed=seed))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        mdm.evaluate(BATCH, verbose=0)
    for thread in threads:
        thread.join()
    assert not errors and len(results) == 4


def test_a_model_is_trained_in_another_thread():
    mdm = trainer(network=lean_nest(2, resolution=4))
    thread = threading.Thread(target=lambda: mdm.fit(BATCH, epochs=2, verbose=0))
    thread.start()
    thread.join()
    assert int(mdm.optimizer.iterations) == 2
