"""Averages whose length is chosen afterwards, against ones that are kept directly."""

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    lean_nest,
    randomize,
    tiny_mdm,
    values_of,
)

from keras_mdm import Stage, callbacks
from keras_mdm.power_averages import LONGEST, PowerAverage, gamma_of, solve_weights
from keras_mdm.saving import average_snapshots

LENGTHS = (0.05, 0.1)


def direct(values, sigma_rel):
    """The average of all values, as a sum with weights in closed form."""
    power = gamma_of(sigma_rel) + 1
    edges = (np.arange(len(values) + 1) / len(values)) ** power
    return np.tensordot(np.diff(edges), values, 1)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.25])
def test_sigma_is_the_deviation_of_the_profile(sigma_rel):
    """By quadrature; 0.05 and 0.1 are printed as 16.97 and 6.94 in EDM2."""
    gamma = gamma_of(sigma_rel)
    s = (np.arange(200_000) + 0.5) / 200_000
    profile = s**gamma / np.sum(s**gamma)
    mean = np.sum(profile * s)
    deviation = np.sqrt(np.sum(profile * (s - mean) ** 2))
    assert deviation == pytest.approx(sigma_rel, rel=1e-4)
    printed = {0.05: 16.97, 0.1: 6.94}.get(sigma_rel, gamma)
    assert gamma == pytest.approx(printed, abs=0.01)


def test_an_average_is_the_sum_in_closed_form():
    variable = keras.Variable(np.zeros(3, "float32"))
    average = PowerAverage([variable], 0.1, [0])
    values = np.random.default_rng(0).normal(size=(40, 3))
    for n, value in enumerate(values):
        variable.assign(value.astype("float32"))
        average.update()
        # Neither within an accumulation of gradients, nor while others are trained.
        average.update(moved=False)
        if n % 10 == 3:
            average.update(levels=[1])
    np.testing.assert_allclose(
        values_of(average.averages)[0], direct(values, 0.1), atol=1e-5
    )
    assert values_of([average.num_updates])[0].tolist() == [40]


def test_rates_after_a_million_updates_are_exact():
    average = PowerAverage([keras.Variable(np.zeros(1, "float32"))], 0.05, [0])
    counts = np.array([0, 9, 999_999], "float32")
    found = keras.ops.convert_to_numpy(average.rates(counts, np.array([1, 1, 1])))
    expected = 1 - (1 - 1 / (counts.astype("float64") + 1)) ** (gamma_of(0.05) + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.05, 0.07, 0.2])
def test_weights_are_the_least_squares_of_the_profiles(sigma_rel):
    """By brute force on a grid."""
    updates = np.repeat([300.0, 600.0, 1000.0], 2)
    gammas = np.tile([gamma_of(length) for length in LENGTHS], 3)
    gamma = gamma_of(sigma_rel)
    weights, error = solve_weights(updates, gammas, 1000.0, gamma)
    s = np.arange(20_000)[:, None] / 20 + 0.025
    inside = s < updates
    profiles = np.where(inside, (gammas + 1) * (s / updates) ** gammas / updates, 0)
    wanted = (gamma + 1) * (s[:, 0] / 1000) ** gamma / 1000
    # The sum is 1: the last weight is what the others leave.
    rest = profiles[:, :-1] - profiles[:, -1:]
    found = np.linalg.lstsq(rest, wanted - profiles[:, -1], rcond=None)[0]
    np.testing.assert_allclose(weights, [*found, 1 - found.sum()], atol=1e-3)
    residual = np.sum((profiles @ weights - wanted) ** 2) / np.sum(wanted**2)
    assert error == pytest.approx(np.sqrt(residual), abs=1e-3)
    if sigma_rel in LENGTHS:
        one = (np.arange(6) == 4 + LENGTHS.index(sigma_rel)).astype(float)
        np.testing.assert_allclose(weights, one, atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Snapshots of weights that wander, the outer ones from halfway on, with the path.

    Returns:
        Folder, the network's paths of variables, and each one's values by update.
    """
    folder, steps, every = tmp_path_factory.mktemp("averages"), 360, 15
    mdm = tiny_mdm(
        network=lean_nest(2, classes=0, resolution=4), power_averages=LENGTHS
    )
    first = mdm.power_averages[0]
    rng, walks = np.random.default_rng(1), []
    for source, level in zip(first.sources, first.levels, strict=True):
        count = steps if level else steps // 2
        moves = rng.normal(0, 0.01, (count, *source.shape))
        walks.append(1.0 + np.cumsum(moves, axis=0))
    for step in range(every, steps + 1, every):
        counts = [max(0, step - steps // 2), step]
        for average in mdm.power_averages:
            average.num_updates.assign(counts)
            for kept, walk, level in zip(
                average.averages, walks, average.levels, strict=True
            ):
                if counts[level]:
                    kept.assign(direct(walk[: counts[level]], average.sigma_rel))
        path = average_snapshots.path_of(folder, step > steps // 2, step)
        average_snapshots.write_snapshot(mdm, path)
    return folder, walks


def _fresh(**options):
    mdm = tiny_mdm(network=lean_nest(2, classes=0, resolution=4), **options)
    randomize(mdm.network)
    mdm.reset_ema()
    return mdm


@pytest.mark.parametrize("sigma_rel", [0.05, 0.07, 0.15])
def test_any_length_is_that_of_an_average_kept_directly(run, sigma_rel):
    folder, walks = run
    mdm = _fresh(ema_momentum=0.9)
    error = mdm.load_average(folder, sigma_rel)
    assert error < (1e-6 if sigma_rel in LENGTHS else 0.03)
    found = values_of(mdm.network.weights)
    assert equal_values(found, values_of(mdm.ema.averages))
    expected = [direct(walk, sigma_rel) for walk in walks]

    def difference(first, second):
        pairs = zip(first, second, strict=True)
        return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))

    # As a fraction of how far the weights went on from there.
    moved = difference([walk[-1] for walk in walks], expected)
    wrong = difference(found, expected)
    assert wrong < 0.02 * moved, wrong / moved
    other = difference([direct(walk, 1.3 * sigma_rel) for walk in walks], expected)
    assert wrong < 0.2 * other


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: other_network(path), "of another network"),
        (lambda path: path.rename(path.with_suffix(".old")), "no snapshots"),
        (lambda path: path.rename(path.with_name("stage1_step7.npz")), "wrong name"),
    ],
    ids=["cut", "empty", "other", "none", "renamed"],
)
def test_what_is_refused_changes_no_weight(damage, message, run, tmp_path):
    path = average_snapshots.listed(run[0])[-1][1]
    (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path / path.name)
    mdm = _fresh()
    before = values_of(mdm.network.weights)
    with pytest.raises(ValueError, match=message):
        mdm.load_average(tmp_path, 0.05)
    assert equal_values(before, values_of(mdm.network.weights))


def test_a_flipped_bit_loads_no_other_numbers(run, tmp_path):
    last = average_snapshots.listed(run[0])[-1][1]
    data, path, mdm = last.read_bytes(), tmp_path / last.name, _fresh()

    def load(data):
        path.write_bytes(data)
        mdm.load_average(tmp_path, 0.05)
        return values_of(mdm.network.weights)

    right, refused = load(data), 0
    for place in np.random.default_rng(2).integers(0, len(data), 30):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(place % 8)
        try:
            assert equal_values(load(flipped), right)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 10


def other_network(path):
    network = lean_nest(2, classes=5, resolution=4)
    mdm = tiny_mdm(network=network, power_averages=LENGTHS)
    average_snapshots.write_snapshot(mdm, path)


def test_wrong_lengths_are_told(tmp_path):
    for wrong in (0.0, -1.0, 0.3, float("nan"), True):
        with pytest.raises(ValueError, match="sigma_rel.*above 0 and below 0.289"):
            gamma_of(wrong)
    assert gamma_of(LONGEST - 1e-9) == pytest.approx(0.0, abs=1e-6)
    for lengths in ((), (0.05, 0.05)):
        with pytest.raises(ValueError, match="different lengths"):
            tiny_mdm(1, classes=0, power_averages=lengths)
    with pytest.raises(ValueError, match="every=0"):
        callbacks.AverageSnapshots(tmp_path, every=0)
    with pytest.raises(ValueError, match="needs a model with `power_averages`"):
        callbacks.AverageSnapshots(tmp_path).set_model(tiny_mdm(1, classes=0))


def test_a_full_disk_is_told_once_and_a_weight_that_is_not_finite_stops(
    tmp_path, capsys
):
    mdm = tiny_mdm(1, classes=0, power_averages=(0.1,))
    (tmp_path / "file").write_bytes(b"")
    snapshots = callbacks.AverageSnapshots(tmp_path / "file" / "averages")
    snapshots.set_model(mdm)
    snapshots.write()
    snapshots.write()
    assert capsys.readouterr().err.count("could not be written") == 1
    mdm.power_averages[0].averages[0].assign(
        np.full(mdm.network.weights[0].shape, 1e6, "float32")
    )
    snapshots = callbacks.AverageSnapshots(tmp_path / "averages")
    snapshots.set_model(mdm)
    with pytest.raises(ValueError, match="NaN or infinite"):
        snapshots.write()
    assert not list((tmp_path / "averages").iterdir())


def test_snapshots_of_another_training_stay(tmp_path):
    mdm = tiny_mdm(1, classes=0, power_averages=(0.1,))
    mdm.compile("sgd", run_eagerly=True)
    path = average_snapshots.path_of(tmp_path, 0, 5)
    average_snapshots.write_snapshot(mdm, path)
    before = path.read_bytes()
    snapshots = callbacks.AverageSnapshots(tmp_path)
    with pytest.raises(ValueError, match="another training, such as 'stage1_step5.npz"):
        mdm.fit(batch_of(4, 8, classes=0), callbacks=[snapshots], verbose=0)
    assert path.read_bytes() == before
    snapshots.on_stage_begin(0, Stage(8, steps=9))
    snapshots.on_train_begin()
    assert not path.exists()


def test_kerass_own_files_hold_them(tmp_path):
    mdm, other = (tiny_mdm(1, classes=0, power_averages=LENGTHS) for _ in range(2))
    for average in mdm.power_averages:
        average.num_updates.assign([7])
        average.averages[0].assign(average.averages[0] + average.sigma_rel)
    mdm.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert equal_values(values_of(mdm.variables), values_of(other.variables))
    again = type(mdm).from_config(mdm.get_config())
    assert [average.sigma_rel for average in again.power_averages] == list(LENGTHS)


def test_presets_hold_no_power_averages(tmp_path):
    mdm = tiny_mdm(1, classes=0, power_averages=(0.1,))
    assert mdm.get_config()["power_averages"] == [0.1]
    mdm.save_to_preset(tmp_path / "p")
    again = type(mdm).from_preset(tmp_path / "p")
    assert not again.power_averages and equal_values(
        values_of(mdm.network.weights), values_of(again.network.weights)
    )
