"""Losses and gradients that are not finite, and what training tells of itself."""

import csv

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    lean_nest,
    tiny_mdm,
    tiny_nest,
    values_of,
)

import keras_mdm
from keras_mdm import ProgressiveSchedule, Stage, callbacks
from keras_mdm.fitting.monitor import EDGES, StepMonitor

pytestmark = pytest.mark.usefixtures("eager_functions")

TOO_LARGE = 3e38  # Times an error of more than about 1, infinite in float32.


def build(**options):
    return tiny_mdm(network=lean_nest(2, resolution=4), ema_momentum=0.9, **options)


def weighted(count, weights):
    """Batches, some of which have another `sample_weight`, in a list."""
    return [
        (batch_of(8, 8, seed=n), None, np.full(8, weights.get(n, 1.0), "float32"))
        for n in range(count)
    ]


def guarded(mdm, data, *guards, epochs=1):
    return mdm.fit(data, epochs=epochs, callbacks=guards, verbose=0, shuffle=False)


@pytest.fixture(scope="module")
def compiled():
    mdm = build()
    mdm.compile(keras_mdm.AdamW(0.001))
    return mdm


def test_a_step_that_is_not_finite_changes_nothing(compiled, capsys):
    guarded(compiled, weighted(2, {}))
    before = values_of([*compiled.network.weights, *compiled.ema.averages])
    moments = values_of(compiled.optimizer.variables)
    log = guarded(compiled, weighted(2, {0: TOO_LARGE, 1: TOO_LARGE}))
    now = values_of([*compiled.network.weights, *compiled.ema.averages])
    assert equal_values(before, now)
    changed = [
        variable.name
        for variable, old, new in zip(
            compiled.optimizer.variables,
            moments,
            values_of(compiled.optimizer.variables),
            strict=True,
        )
        if not np.array_equal(old, new)
    ]
    assert changed == ["iteration", "skipped_in_a_row", "gradient_norms"]
    assert np.isnan(log.history["loss"][0])  # There was no loss at all.
    # One bad step of three hides neither the others' losses nor their updates.
    log = guarded(compiled, weighted(3, {1: TOO_LARGE}), callbacks.LossGuard())
    assert np.isfinite(log.history["loss"][0])
    assert "1 of the steps 5 to 7 had a loss" in capsys.readouterr().err
    after = values_of(compiled.network.weights)
    assert not equal_values(before[: len(after)], after)
    assert all(np.isfinite(value).all() for value in after)


def test_training_that_gets_nowhere_stops_and_says_why(compiled):
    bad = dict.fromkeys(range(2, 9), TOO_LARGE)
    guard = callbacks.LossGuard(patience=5, every=3)
    with pytest.raises(FloatingPointError) as error:
        guarded(compiled, weighted(9, bad), guard)
    told = str(error.value)
    assert "steps in a row" in told and "learning rate is 0.001" in told
    assert "resolution 8 at a log-SNR of" in told or "resolution 4 at" in told


def test_another_optimizer_that_diverges_is_stopped():
    mdm = build()
    mdm.compile(keras.optimizers.SGD(0.001))
    with pytest.raises(FloatingPointError, match="steps in a row"):
        guarded(
            mdm, weighted(8, {1: TOO_LARGE}), callbacks.LossGuard(patience=4, every=2)
        )


def test_a_jump_of_the_loss_is_told_with_its_batch(tmp_path, capsys):
    # A state is written after the last one, which changed nothing.
    data = weighted(8, {5: 1000.0, 7: TOO_LARGE})
    ProgressiveSchedule([Stage(8, steps=8, batch_size=8)]).fit(
        build(),
        lambda stage: data,
        callbacks=[callbacks.LossGuard(every=8)],
        checkpoint_dir=tmp_path,
        verbose=0,
    )
    told = capsys.readouterr().err
    assert "at step 6, " in told and "the batch of step 6 was number 6" in told


def test_what_was_told_before_a_stop_is_not_told_again(compiled, capsys):
    guard = callbacks.LossGuard(every=1)
    guarded(compiled, weighted(3, {2: TOO_LARGE}), guard)
    assert "1 of the steps" in capsys.readouterr().err
    again = callbacks.LossGuard(every=1)
    again.set_model(compiled)
    again.set_state(guard.get_state())
    again.on_train_begin()
    again.on_epoch_begin(0)
    again._look()
    assert capsys.readouterr().err == ""


def test_a_loss_that_falls_is_no_jump(compiled, capsys):
    """As every training begins."""
    falling = {0: 1000.0, 1: 100.0, 2: 10.0}
    guarded(compiled, weighted(8, falling), callbacks.LossGuard(every=2))
    assert capsys.readouterr().err == ""


def test_losses_by_noise_level_against_a_histogram():
    rng, monitor = np.random.default_rng(0), StepMonitor(2)
    log_snr = rng.uniform(-14, 14, 64)
    sigma = np.sqrt(1 / (1 + np.exp(log_snr)))
    alpha = np.sqrt(1 - sigma**2)
    errors = rng.uniform(size=64)
    errors[3], errors[7] = np.nan, np.inf
    factors = (x.astype("float32").reshape(-1, 1, 1, 1) for x in (alpha, sigma))
    monitor.update_state(1, *factors, errors.astype("float32"))
    good, inside = np.isfinite(errors), np.clip(log_snr, EDGES[0], EDGES[-1] - 1e-6)
    sums, _ = np.histogram(inside[good], EDGES, weights=errors[good])
    counts, _ = np.histogram(inside[good], EDGES)
    bad, _ = np.histogram(inside[~good], EDGES)
    losses, found, not_finite = values_of(
        [monitor.losses, monitor.counts, monitor.not_finite]
    )
    np.testing.assert_allclose(losses, [0 * sums, sums], rtol=1e-5)
    np.testing.assert_array_equal(found, [0 * counts, counts])
    np.testing.assert_array_equal(not_finite, [0 * bad, bad])


def test_what_history_and_noise_levels_say(tmp_path):
    class Norms(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            norms = self.model.optimizer.gradient_norms
            found.append(keras_mdm.backend.newest(self.model, [norms])[0])

    found, paths = [], [tmp_path / "history.csv", tmp_path / "noise_levels.csv"]
    mdm = build()
    mdm.compile(keras_mdm.AdamW(0.001))
    log = mdm.fit(
        weighted(4, {}),
        epochs=2,
        validation_data=weighted(1, {}),
        callbacks=[
            callbacks.History(paths[0], every=2),
            callbacks.NoiseLevels(paths[1]),
            Norms(),
        ],
        verbose=0,
        shuffle=False,
    )
    rows, levels = (list(csv.DictReader(path.open())) for path in paths)
    assert len(rows) == 4 and [bool(r["average_distance"]) for r in rows] == [0, 1] * 2
    for index, row in enumerate(rows):
        mean = np.mean(found[2 * index : 2 * index + 2], axis=0)
        np.testing.assert_allclose(float(row["gradient_norm_8"]), mean[0], rtol=1e-4)
        np.testing.assert_allclose(float(row["gradient_norm_4"]), mean[1], rtol=1e-4)
        assert float(row["skipped"]) == 0
    weights, averages = (
        np.concatenate([value.ravel() for value in values_of(variables)])
        for variables in (mdm.network.weights, mdm.ema.averages)
    )
    distance = np.linalg.norm(averages - weights) / np.linalg.norm(weights)
    assert float(rows[-1]["average_distance"]) == pytest.approx(distance, rel=1e-4)
    for level in ("8", "4"):
        for epoch, step in enumerate(sorted({int(row["step"]) for row in levels})):
            here = [r for r in levels if r["level"] == level and int(r["step"]) == step]
            counts = [float(row["samples"]) for row in here]
            assert sum(counts) == 32
            total = sum(float(r["loss"]) * float(r["samples"]) for r in here)
            mean = log.history[f"loss_{level}"][epoch]
            assert total / 32 == pytest.approx(mean, rel=1e-4)


def test_the_learning_rate_in_the_middle_of_an_epoch(tmp_path):
    path = tmp_path / "history.csv"
    data = weighted(6, {})
    ProgressiveSchedule([Stage(8, steps=6, batch_size=8, warmup_steps=10)]).fit(
        build(), lambda stage: data, [callbacks.History(path, every=2)], verbose=0
    )
    rates = [float(row["learning_rate"]) for row in csv.DictReader(path.open())]
    np.testing.assert_allclose(rates, [2e-5, 4e-5, 6e-5], rtol=1e-5)


def test_gradient_norms_behind_loss_scaling():
    mdm = tiny_mdm(network=tiny_nest(2, resolution=4, dtype="mixed_float16"))
    mdm.compile()
    guarded(mdm, weighted(2, {}))
    norms, steps = values_of([mdm.monitor.gradients, mdm.monitor.steps])
    assert steps == 2 and (norms > 0).all() and np.isfinite(norms).all()
