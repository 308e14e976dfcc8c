"""Training: repeated `fit`, logs, the moving average, a bad batch in between.

One compiled step serves most of this file.
"""

import keras
import numpy as np
import pytest
from helpers import batch_of, counting, equal_values, trainer, uncompiled, values_of

BATCH = batch_of(4, 8)


@pytest.fixture(scope="module")
def mdm():
    return trainer()


def test_three_fits(mdm):
    """Keras' optimizer average breaks the second on JAX; ours must not."""
    assert mdm.ema is not None
    before = values_of(mdm.network.variables)
    with counting(mdm.network, "denoise") as calls:
        for run in range(3):
            history = mdm.fit(batch_of(8, 8), batch_size=4, epochs=2, verbose=0)
            assert set(history.history) == {"loss", "loss_8", "loss_4"}
            assert np.isfinite(history.history["loss"]).all()
            after = values_of(mdm.network.variables)
            assert not equal_values(before, after)
            before = after
            if run == 0:
                traced = len(calls)
        if keras.backend.backend() != "torch":
            assert len(calls) == traced  # nothing was compiled again
    assert int(mdm.optimizer.iterations) == 12


def test_loss_is_the_sum(mdm):
    logs = mdm.train_on_batch(BATCH, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["loss_8"] + logs["loss_4"], rel=1e-5)


def test_moving_average_closed_form(mdm):
    """`a <- 0.5 a + 0.5 w` after each of three steps."""
    mdm.reset_ema()
    expected = values_of(mdm.ema.averages)
    assert equal_values(expected, values_of(mdm.network.variables))
    for _ in range(3):
        mdm.train_on_batch(BATCH)
        weights = values_of(mdm.network.variables)
        expected = [0.5 * a + 0.5 * w for a, w in zip(expected, weights, strict=True)]
    for found, wanted in zip(values_of(mdm.ema.averages), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_steps_differ(mdm):
    """Every step draws new timesteps and noise."""
    seed_before = values_of([mdm.seed_generator.state])
    losses = []
    for _ in range(3):
        mdm.reset_metrics()
        losses.append(float(mdm.train_on_batch(BATCH, return_dict=True)["loss"]))
    assert len(set(losses)) == 3
    assert not equal_values(seed_before, values_of([mdm.seed_generator.state]))


def test_bad_batch_leaves_the_weights(mdm):
    """On JAX an exception within the step would lose them."""
    before = values_of(mdm.network.variables)
    bad = {**BATCH, "labels": np.array([0, 1, 2, 3], "int32")}
    for call in (lambda: mdm.fit(bad, verbose=0), lambda: mdm.train_on_batch(bad)):
        with pytest.raises(ValueError, match="'labels' must be from 0 to 2"):
            call()
        assert equal_values(before, values_of(mdm.network.variables))
    mdm.train_on_batch(BATCH)
    assert not equal_values(before, values_of(mdm.network.variables))


def test_broken_generator_says_why(mdm):
    """A bad batch in the middle of an epoch: the error is the batch's own."""

    def batches():
        yield BATCH
        yield {**BATCH, "images": BATCH["images"][:, :4]}

    with pytest.raises(ValueError, match="'images' must have the shape"):
        mdm.fit(batches(), steps_per_epoch=2, verbose=0)


def test_kinds_of_data_agree():
    """A generator, a PyDataset, a list and arrays: the same steps."""

    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (halves[index],)

    whole = batch_of(8, 8)
    halves = [{k: v[i : i + 4] for k, v in whole.items()} for i in (0, 4)]
    start = None
    found = []
    for data in (whole, iter(halves), Pairs()):
        mdm = trainer(compile_options=uncompiled())
        start = start or mdm.network.get_weights()
        mdm.network.set_weights(start)
        steps = 2 if hasattr(data, "__next__") else None
        history = mdm.fit(
            data,
            batch_size=4 if isinstance(data, dict) else None,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
        )
        found.append(history.history["loss"][0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)


def test_same_seed_same_training():
    start = None
    found = []
    for seed in (0, 0, 1):
        mdm = trainer(seed=seed, compile_options=uncompiled())
        start = start or mdm.network.get_weights()
        mdm.network.set_weights(start)
        found.append(float(mdm.train_on_batch(BATCH, return_dict=True)["loss"]))
    assert found[0] == found[1] != found[2]


def test_steps_per_execution():
    start = None
    found = []
    for steps in (1, 2):
        mdm = trainer(compile_options={"steps_per_execution": steps})
        start = start or mdm.network.get_weights()
        mdm.network.set_weights(start)
        history = mdm.fit(batch_of(16, 8), batch_size=4, shuffle=False, verbose=0)
        found.append((history.history["loss"][0], mdm.network.get_weights()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_what_a_callback_sets_variables_to_is_kept(hook):
    """Past the callback's own `model`, which Keras brings up to date."""
    mdm = trainer(None, keras.optimizers.SGD(1.0), uncompiled())
    halves = [np.full(v.shape, 0.5, "float32") for v in mdm.network.weights]

    def set_them(batch, logs=None):
        if batch == 1:
            mdm.optimizer.learning_rate = 0.0
            mdm.network.set_weights(halves)

    setter = keras.callbacks.LambdaCallback(**{hook: set_them})
    mdm.fit(batch_of(12, 8), batch_size=4, verbose=0, callbacks=[setter])
    assert equal_values(values_of(mdm.network.weights), halves)
