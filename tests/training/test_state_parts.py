"""States that two processes write, each its part, and one reads.

The processes are this one, which is told what number it has; real ones are in
`test_distribution`.
"""

import json

import keras
import numpy as np
import pytest
from helpers import equal_values, lean_nest, randomize, tiny_mdm, values_of

from keras_mdm import backend
from keras_mdm.training import state, state_file


def build(seed):
    mdm = tiny_mdm(network=lean_nest(1, resolution=4), ema_momentum=0.9)
    randomize(mdm.network, seed=seed)
    mdm.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    mdm.optimizer.build(mdm.trainable_variables)
    for number, variable in enumerate(mdm.optimizer.variables[2:]):
        variable.assign(np.full(variable.shape, number + seed, "float32"))
    return mdm


def half(variable):
    """What the processes write of a variable: halves of its rows if it has some."""
    number, array = backend.process_number(), np.array(values_of([variable])[0])
    if not array.ndim or array.shape[0] < 2:
        return [] if number else [(backend.whole_bounds(array.shape), array)]
    middle = array.shape[0] // 2
    start, end = (middle, array.shape[0]) if number else (0, middle)
    return [(((start, end), *backend.whole_bounds(array.shape[1:])), array[start:end])]


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Writes the files of some of two processes, and returns their paths."""

    def written(mdm, epoch, numbers=(0, 1), folder=tmp_path, run="r"):
        with monkeypatch.context() as patch:
            patch.setattr(backend, "number_of_processes", lambda: 2)
            patch.setattr(backend, "parts_to_write", lambda vs: list(map(half, vs)))
            patch.setattr(state.secrets, "token_hex", lambda size: f"{run}{epoch}")
            patch.setattr(backend, "from_all", lambda value: [value, value])
            for number in numbers:
                patch.setattr(backend, "process_number", lambda n=number: n)
                state.take_state(
                    mdm, folder, {"epoch": epoch}, run=run, place={"taken": number}
                )()
        return [folder / f"stage1_epoch{epoch}_step0.{n}-of-2.state" for n in (1, 2)]

    return written


def test_parts_are_joined(write, tmp_path):
    mdm, other = build(1), build(2)
    sizes = []
    for path in write(mdm, 3):
        with state_file.opened(path) as (_, arrays):
            sizes.append(sum(array.size for _, array in arrays))
    variables = mdm.variables + mdm.optimizer.variables + mdm.metrics_variables
    assert sum(sizes) == sum(np.prod(v.shape, dtype=int) for v in variables)
    assert max(sizes) < 0.7 * sum(sizes)
    found = state.newest(tmp_path)
    assert found.progress == {"epoch": 3} and found.place["taken"] == 0
    metrics = found.restore(other)
    assert len(metrics) == len(mdm.metrics_variables)
    for kind in (lambda m: m.variables, lambda m: m.optimizer.variables):
        assert equal_values(values_of(kind(mdm)), values_of(kind(other)))
    # A number of rows that does not fit.
    before = values_of(other.variables)
    larger = tiny_mdm(1, classes=7, resolution=4, ema_momentum=0.9)
    larger.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    with pytest.raises(ValueError, match="does not fit this model"):
        found.restore(larger)
    assert equal_values(before, values_of(other.variables))


@pytest.mark.parametrize(
    "part",
    [
        5,
        ["x"],
        ["x", [0], {}],
        [["x"], [0], [3]],
        ["model/x", "0", "3"],
        *(["{name}", start, ["{rows}"]] for start in ([-1], [10**9], [0.5], ["0"])),
        ["{name}", [0, 0], ["{rows}"]],
    ],
)
def test_a_forged_place_of_a_part_is_refused(part, tmp_path):
    mdm = build(1)
    state.take_state(mdm, tmp_path, {"epoch": 1})()
    path = state.newest(tmp_path).path
    with state_file.opened(path) as (values, arrays):
        arrays = dict(arrays)
    name = next(n for n, a in arrays.items() if a.ndim == 1 and "metrics" not in n)
    text = json.dumps(part).replace("{name}", name)
    part = json.loads(text.replace('"{rows}"', str(arrays[name].size)))
    state_file.write(path, {**values, "parts": {name: part}}, arrays)
    before = values_of(mdm.variables)
    with pytest.raises(ValueError, match=path.name):
        state.newest(tmp_path).restore(mdm)
    assert equal_values(before, values_of(mdm.variables))


@pytest.mark.parametrize(
    "damage", ["killed", "flipped", "emptied", "other run", "other moment"]
)
def test_a_damaged_part_is_named_and_the_state_before_used(damage, write, tmp_path):
    mdm = build(1)
    for epoch in (1, 2):
        write(mdm, epoch)
    before = state.newest(tmp_path).path
    first, second = write(mdm, 3, numbers=(0,) if damage == "killed" else (0, 1))
    if damage == "flipped":
        data = bytearray(second.read_bytes())
        data[len(data) // 2] ^= 4
        second.write_bytes(data)
    elif damage == "emptied":
        second.write_bytes(b"")
    elif damage == "other run":
        foreign = write(build(2), 3, folder=tmp_path / "other", run="other")[1]
        foreign.replace(second)
    elif damage == "other moment":
        write(mdm, 2, folder=tmp_path / "other")[1].replace(second)
    why = {
        "killed": "it is missing",
        "other run": "not written with the other files",
        "other moment": "another state",
    }.get(damage, "checksum")
    told = f"damaged.*{second.name}' .*{why}.*from.*{before.name}"
    with pytest.warns(UserWarning, match=told):
        assert state.newest(tmp_path).path == before


def test_states_that_lack_files_push_out_no_complete_ones(write, tmp_path):
    def kept():
        return [(f.key[1], len(f.numbers)) for f in state.listed(tmp_path)]

    mdm = build(1)
    for epoch in range(4):
        write(mdm, epoch)
    assert kept() == [(1, 2), (2, 2), (3, 2)]
    for epoch in (4, 5, 6, 7):
        write(mdm, epoch, numbers=(0,))
    assert kept() == [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1), (7, 1)]
    with pytest.warns(UserWarning, match="epoch7.*epoch6.*epoch5.*epoch4.*Going on"):
        assert state.newest(tmp_path).progress == {"epoch": 3}
    write(mdm, 8)
    assert kept() == [(2, 2), (3, 2), (8, 2)]
    # The same moment and later ones, written by another number of processes.
    state.take_state(mdm, tmp_path, {"epoch": 3}, run="r")()
    assert kept() == [(2, 2), (3, 1)]


def test_a_run_that_was_killed_in_its_first_state_begins_anew(write, tmp_path):
    write(build(1), 0, numbers=(1,))
    with pytest.warns(UserWarning, match="1-of-2.*is missing.*begins anew"):
        assert state.newest(tmp_path) is None
    write(build(1), 1, numbers=(1,))
    with pytest.raises(ValueError, match="every state .* is damaged"):
        state.newest(tmp_path)


def test_a_whole_state_of_another_run_is_not_used(tmp_path):
    mdm, other = build(1), build(2)
    for epoch in range(3):
        state.take_state(mdm, tmp_path / "a", {"epoch": epoch}, run="a")()
        state.take_state(other, tmp_path / "b", {"epoch": epoch}, run="b")()
    paths = [files.path(0) for files in state.listed(tmp_path / "a")]
    foreign = [files.path(0) for files in state.listed(tmp_path / "b")]
    foreign[2].replace(paths[2])
    told = f"{paths[2].name}' .of another run.*from.*{paths[1].name}"
    with pytest.warns(UserWarning, match=told):
        assert state.newest(tmp_path / "a").path == paths[1]
    paths[0].unlink()
    with pytest.raises(ValueError, match="different runs: .*epoch2.*epoch1"):
        state.newest(tmp_path / "a")
