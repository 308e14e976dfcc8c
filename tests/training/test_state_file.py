"""Files of states: damaged in every way, and which are kept."""

import hashlib
import shutil

import keras
import numpy as np
import pytest
from helpers import batch_of, randomize, tiny_mdm

from keras_mdm import ProgressiveSchedule, Stage
from keras_mdm.callbacks import History, LossGuard
from keras_mdm.training import state, state_file

pytestmark = pytest.mark.once

STAGES = [Stage(4, steps=3, steps_per_epoch=1, batch_size=4)]


def build(seed=0):
    mdm = tiny_mdm(1, resolution=4, ema_momentum=0.9)
    randomize(mdm.network, seed=seed)
    return mdm


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders with the states of a run and, of the same moments, of another one."""
    folder = tmp_path_factory.mktemp("runs")
    batches = [batch_of(4, 4)] * 3
    ProgressiveSchedule(STAGES).fit(
        build(), lambda stage: batches, checkpoint_dir=folder / "run", verbose=0
    )
    other = build(1)
    other.compile(keras.optimizers.SGD(0.1))
    for files in state.listed(folder / "run"):
        place = dict(zip(("stage", "epoch", "step"), files.key, strict=True))
        state.take_state(other, folder / "other", place, run="other")()
    return folder / "run", folder / "other"


def digest(path):
    found = hashlib.sha256()
    with state_file.opened(path) as (_, arrays):
        for name, array in arrays:
            found.update(name.encode() + array.tobytes())
    return found.hexdigest()


def damage(number, last, other, rng):
    """Cuts, flips a bit, empties, or puts another state in its place."""
    way, data = number % 4, bytearray(last.read_bytes())
    if way == 0:
        del data[rng.integers(1, len(data)) :]
    elif way == 1:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif way == 2:
        data.clear()
    else:
        data = other.read_bytes()
    last.write_bytes(data)


def test_of_100_damaged_states_each_is_named_and_the_one_before_used(runs, tmp_path):
    first, second, last = (files.path(0).name for files in state.listed(runs[0]))
    honest, rng = digest(runs[0] / second), np.random.default_rng(0)
    folder = shutil.copytree(runs[0], tmp_path / "run")
    swapped = [runs[0] / first, runs[0] / second, runs[1] / last, runs[1] / first]
    for number in range(100):
        damage(number, folder / last, swapped[number // 4 % 4], rng)
        with pytest.warns(UserWarning, match=f"passed over: '{folder / last}'"):
            found = state.newest(folder)
        assert found.path == folder / second and digest(found.path) == honest
        shutil.copy(runs[0] / last, folder / last)
    assert state.newest(folder).path == folder / last


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path, rng = tmp_path / "a.state", np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)), "b": np.float32(2.5), "c": np.arange(0)}
    state_file.write(path, {"x": [1]}, arrays)
    with state_file.opened(path) as (values, found):
        found = dict(found)
        assert values["x"] == [1] and list(found) == list(arrays)
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert np.array_equal(found[name], value)
    data = bytearray(path.read_bytes())
    for place in rng.permutation(len(data))[:100]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"), state_file.opened(path):
            pass


def test_which_states_are_kept(tmp_path):
    mdm = tiny_mdm(1, resolution=4)
    mdm.compile()
    for epoch in range(8):
        state.take_state(mdm, tmp_path, {"stage": 0, "epoch": epoch}, keep_every=2)()
    kept = [files.key[1] for files in state.listed(tmp_path)]
    assert kept == [2, 4, 5, 6, 7]
    # Those after the one that is written are of training that was lost.
    state.take_state(mdm, tmp_path, {"stage": 0, "epoch": 5, "step": 3})()
    kept = [files.key[1:] for files in state.listed(tmp_path)]
    assert kept == [(4, 0), (5, 0), (5, 3)]
    with pytest.raises(ValueError, match="`keep_every` must be .*keep_every=0"):
        ProgressiveSchedule(STAGES).fit(mdm, [], keep_every=0)


class StopBefore(keras.callbacks.Callback):
    """Stops the run before its third step."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


def go_on(folder, *callbacks):
    schedule = ProgressiveSchedule([Stage(4, steps=3, batch_size=4)])
    schedule.fit(
        *(build(), lambda stage: [batch_of(4, 4)] * 3),
        callbacks=[LossGuard(), History(folder / "history.csv", every=3), *callbacks],
        checkpoint_dir=folder / "state",
        resume=True,
        verbose=0,
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        go_on(folder, StopBefore())
    return folder


def rewritten(stopped, tmp_path, change):
    """A copy of a run, and the path of its last state, whose contents were changed."""
    folder = shutil.copytree(stopped, tmp_path / "run")
    (path,) = state.listed(folder / "state")[-1].paths
    with state_file.opened(path) as (values, arrays):
        arrays = dict(arrays)
    change(values, arrays)
    state_file.write(path, values, arrays)
    return folder, path


@pytest.mark.parametrize(
    "remove",
    [
        lambda values: [values.pop(key) for key in ("callbacks", "token")],
        lambda values: values["progress"].pop("stage"),
        lambda values: [values["places"][0].pop(key) for key in ("epoch", "state")],
        lambda values: values["callbacks"]["LossGuard"][0].clear(),
        lambda values: values["callbacks"]["History"][0].clear(),
    ],
)
def test_what_an_older_version_did_not_write(remove, stopped, tmp_path):
    folder, _ = rewritten(stopped, tmp_path, lambda values, _: remove(values))
    go_on(folder)
    assert state.newest(folder / "state").files.key == (0, 1, 0)


def test_figures_and_settings_of_another_version_end_in_a_sentence(stopped, tmp_path):
    folder, path = rewritten(
        stopped, tmp_path / "a", lambda _, arrays: arrays.pop("metrics/0")
    )
    with pytest.raises(ValueError, match="another version") as error:
        go_on(folder)
    assert str(path) in str(error.value)
    folder, _ = rewritten(
        stopped, tmp_path / "b", lambda values, _: values.pop("settings")
    )
    with pytest.raises(ValueError, match="stages was missing"):
        go_on(folder)
