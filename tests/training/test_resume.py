"""Stopping and going on: the state on disk, and a resumed run against a whole one."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from helpers import batch_of, equal_values, tiny_mdm, values_of

from keras_mdm import ProgressiveSchedule, Stage
from keras_mdm.callbacks import History
from keras_mdm.training import state, state_file

pytestmark = pytest.mark.usefixtures("eager_functions")

STAGES = [
    Stage(8, steps=2, steps_per_epoch=1, batch_size=4, learning_rate=0.01),
    Stage(
        16, steps=3, steps_per_epoch=1, batch_size=4, learning_rate=0.01, warmup_steps=9
    ),
]


class Stop(Exception):
    """Stands for a kill."""


class StopAt(keras.callbacks.Callback):
    """Stops a run at the first step of an epoch of a stage."""

    def __init__(self, stage, epoch):
        super().__init__()
        self.wanted = (stage, epoch)

    def on_stage_begin(self, index, stage):
        self.index = index

    def on_epoch_begin(self, epoch, logs=None):
        if (self.index, epoch) == self.wanted:
            raise Stop


def one_batch(stage):
    batch = batch_of(stage.batch_size, stage.resolution)
    while True:
        yield batch


def build():
    mdm = tiny_mdm(ema_momentum=0.9)
    # Fresh models of one test must begin alike.
    rng = np.random.default_rng(3)
    for variable in mdm.network.variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32") * 0.1)
    mdm.reset_ema()
    return mdm


def named_values(mdm):
    return {
        name: values_of([variable])[0]
        for name, variable in state.state_variables(mdm).items()
    }


def train(mdm, folder, callbacks=(), resume=False):
    schedule = ProgressiveSchedule(STAGES)
    return schedule.fit(
        mdm,
        one_batch,
        callbacks=callbacks,
        checkpoint_dir=folder,
        resume=resume,
        verbose=0,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Variables of a run that was not stopped, by name, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    mdm = build()
    train(mdm, folder)
    return named_values(mdm), folder


def test_variables_have_names_of_their_own():
    mdm, other = (tiny_mdm(levels=3, ema_momentum=0.9) for _ in range(2))
    named = state.state_variables(mdm)
    assert len(named) == len(mdm.variables)
    # Whatever the process has built before.
    assert list(named) == list(state.state_variables(other))


@pytest.mark.parametrize(
    "place",
    [pytest.param((0, 1), marks=pytest.mark.slow), (1, 0), (1, 2)],
)
def test_resumed_run_ends_like_a_whole_one(place, whole, tmp_path):
    with pytest.raises(Stop):
        train(build(), tmp_path, [StopAt(*place)])
    mdm = build()
    logs = train(mdm, tmp_path, resume=True)
    assert len(logs) == {(0, 1): 4, (1, 0): 3, (1, 2): 1}[place]
    for name, value in named_values(mdm).items():
        np.testing.assert_allclose(
            value, whole[0][name], rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_resuming_a_finished_run_keeps_its_weights(whole):
    mdm = build()
    assert train(mdm, whole[1], resume=True) == []
    assert mdm.resolution == 16
    for name, value in named_values(mdm).items():
        assert np.array_equal(value, whole[0][name]), name


def test_resume_without_a_state_begins_at_the_start(tmp_path):
    schedule = ProgressiveSchedule(STAGES[:1])
    logs = schedule.fit(
        build(), one_batch, checkpoint_dir=tmp_path, resume=True, verbose=0
    )
    assert len(logs) == 2


def test_state_is_restored_bit_for_bit(tmp_path):
    def compiled():
        mdm = build()
        mdm.compile(optimizer=keras.optimizers.AdamW(0.01))
        return mdm

    mdm = compiled()
    mdm.train_on_batch(batch_of(4))
    state.take_state(mdm, tmp_path, {"stage": 1, "epoch": 2})()
    found = state.newest(tmp_path)
    assert found.progress == {"stage": 1, "epoch": 2}
    other = compiled()
    found.restore(other)
    for kind in (lambda m: m.variables, lambda m: m.optimizer.variables):
        assert equal_values(values_of(kind(mdm)), values_of(kind(other)))
    assert list(tmp_path.iterdir()) == [found.path]


def test_a_state_that_does_not_fit_changes_nothing(whole):
    mdm = tiny_mdm(classes=7, ema_momentum=0.9)
    mdm.compile()
    before = values_of(mdm.variables)
    with pytest.raises(ValueError, match="does not fit"):
        state.newest(whole[1]).restore(mdm)
    assert equal_values(before, values_of(mdm.variables))


def resumed(folder, stages=STAGES, mdm=None, **options):
    schedule = ProgressiveSchedule(stages, **options)
    schedule.fit(
        mdm or build(),
        lambda stage: pytest.fail("data were made"),
        checkpoint_dir=folder,
        resume=True,
        verbose=0,
    )


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 0.02}, r"stages\[1\].learning_rate was 0.01 and is 0.02"),
        ({"batch_size": 8}, r"stages\[1\].batch_size was 4 and is 8"),
        ({"steps": 9}, r"stages\[1\].steps was 3 and is 9"),
        ({"steps_per_epoch": 3}, "steps_per_epoch was 1 and is 3"),
        ({"mixed": {16: 1, 8: 1}}, "mixed was None and is"),
        ({"loss_weights": {16: 1.0}}, "loss_weights was None and is"),
        ({"accumulate": 2}, "accumulate was 1 and is 2"),
        ({"freeze_inner": True}, "freeze_inner was False and is True"),
        ({"decay": "cosine"}, "decay was constant and is cosine"),
    ],
)
def test_resume_refuses_other_stages(changes, told, whole):
    stages = [STAGES[0], dataclasses.replace(STAGES[1], **changes)]
    with pytest.raises(ValueError, match=told):
        resumed(whole[1], stages)


@pytest.mark.once
def test_resume_lists_every_difference(whole):
    changes = {"learning_rate": 0.5, "warmup_steps": 3}
    stages = [STAGES[0], dataclasses.replace(STAGES[1], **changes)]
    with pytest.raises(ValueError, match="learning_rate.*warmup_steps"):
        resumed(whole[1], stages)
    with pytest.raises(ValueError, match=r"stages was 2 of them and is 1 of them"):
        resumed(whole[1], STAGES[:1])


def test_resume_refuses_another_optimizer(whole):
    with pytest.raises(ValueError, match=r"optimizers\[0\].*class_name was AdamW"):
        resumed(whole[1], make_optimizer=lambda stage: keras.optimizers.SGD(0.1))


@pytest.mark.once
def test_changed_data_are_refused_unless_allowed(whole, tmp_path):
    folder = shutil.copytree(whole[1], tmp_path / "state")
    schedule = ProgressiveSchedule([STAGES[0], dataclasses.replace(STAGES[1], steps=4)])
    options = {"checkpoint_dir": folder, "resume": True, "verbose": 0}
    mdm, data = build(), {"class_names": ["a", "b"]}
    with pytest.raises(ValueError, match=r"data was None and is .*stages\[1\].steps"):
        schedule.fit(mdm, one_batch, data=data, **options)
    with pytest.raises(
        ValueError, match=r"had other settings: stages\[1\].steps was 3"
    ):
        schedule.fit(mdm, one_batch, data=data, allow_changed=["data"], **options)
    with pytest.raises(
        ValueError, match=r"`allow_changed` must be some of.*'pictures'"
    ):
        schedule.fit(mdm, one_batch, allow_changed=["pictures"], **options)
    logs = schedule.fit(
        mdm, one_batch, data=data, allow_changed=["data", "stages"], **options
    )
    assert [row["stage"] for row in logs] == [1]
    with pytest.raises(ValueError, match="was a and is b"):
        schedule.fit(mdm, one_batch, data={"class_names": ["b", "a"]}, **options)


@pytest.mark.once
@pytest.mark.parametrize("changes", [{"steps": 5}, {"steps": 5, "steps_per_epoch": 4}])
def test_epochs_of_another_length_do_not_change_the_number_of_steps(
    changes, tmp_path, monkeypatch
):
    first = Stage(8, steps=3, steps_per_epoch=2, batch_size=4)
    options = {"checkpoint_dir": tmp_path, "verbose": 0}
    mdm = build()
    ProgressiveSchedule([first]).fit(mdm, one_batch, **options)
    write = state_file.write

    def write_beside_others(*arguments):
        assert list(tmp_path.glob("*.state"))
        write(*arguments)

    monkeypatch.setattr(state_file, "write", write_beside_others)
    options |= {"resume": True, "allow_changed": ["stages", "optimizers"]}
    longer = ProgressiveSchedule([dataclasses.replace(first, **changes)])
    longer.fit(mdm, one_batch, **options)
    assert int(mdm.optimizer.iterations) == 5
    other = ProgressiveSchedule([dataclasses.replace(first, resolution=16)])
    with pytest.raises(ValueError, match="in stage 1, of resolution 8.*of \\[16\\]"):
        other.fit(mdm, one_batch, **options)


@pytest.mark.once
def test_a_stage_that_was_stopped_later_than_it_ends_now(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    stages = [Stage(8, steps=steps, batch_size=4) for steps in (4, 1)]
    options = {"checkpoint_dir": tmp_path, "verbose": 0}
    history = History(tmp_path / "history.csv")
    with pytest.raises(KeyboardInterrupt):
        ProgressiveSchedule(stages).fit(
            build(), one_batch, [history, Interrupt()], **options
        )
    assert state.newest(tmp_path).progress["step"] == 2
    options |= {"resume": True, "allow_changed": ["stages", "optimizers"]}
    stages[0] = dataclasses.replace(stages[0], steps=1)
    history = History(tmp_path / "history.csv")
    ProgressiveSchedule(stages).fit(build(), one_batch, [history], **options)
    rows = (tmp_path / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [["2", "8", "1"]]


@pytest.mark.once
def test_a_full_disk_keeps_the_last_state(tmp_path, monkeypatch, capsys):
    write, calls = state_file.write, []

    def fails_twice(*arguments):
        calls.append(arguments)
        if len(calls) in (2, 3):
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(state_file, "write", fails_twice)
    stage = dataclasses.replace(STAGES[0], steps=4)
    ProgressiveSchedule([stage]).fit(
        build(), one_batch, checkpoint_dir=tmp_path, verbose=0
    )
    assert [files.key[1] for files in state.listed(tmp_path)] == [0, 3, 4]
    told = capsys.readouterr().err
    assert told.count("could not be written") == 1 and "No space left" in told
    calls.clear()
    calls += [(), ()]
    with pytest.raises(OSError, match="No space left"):
        # A run whose first state can't be written does not begin.
        train(build(), tmp_path / "other")


def test_what_is_written_is_of_the_moment_it_was_taken(tmp_path):
    mdm = build()
    mdm.compile(optimizer=keras.optimizers.AdamW(0.01))
    write = state.take_state(mdm, tmp_path, {"epoch": 1})
    before = values_of(mdm.variables)
    mdm.train_on_batch(batch_of(4))
    write()
    other = build()
    other.compile(optimizer=keras.optimizers.AdamW(0.01))
    state.newest(tmp_path).restore(other)
    assert equal_values(before, values_of(other.variables))


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": 7}, "num_classes was 3 and is 7"),
        ({"prediction": "x0"}, "prediction was v and is x0"),
        ({"ema_momentum": 0.5}, "ema_momentum was 0.9 and is 0.5"),
        ({"schedule": "sigmoid"}, "schedule"),
    ],
)
def test_resume_refuses_another_model(options, told, whole):
    mdm = tiny_mdm(**{"ema_momentum": 0.9, **options})
    before = values_of(mdm.variables)
    with pytest.raises(ValueError, match=told):
        resumed(whole[1], mdm=mdm)
    assert equal_values(before, values_of(mdm.variables))


@pytest.mark.once
@pytest.mark.parametrize("damage", ["cut", "emptied", "swapped", "gone", "newer"])
def test_a_damaged_state_is_named_and_the_one_before_it_used(damage, whole, tmp_path):
    folder = shutil.copytree(whole[1], tmp_path / "state")
    first, second, last = sorted(folder.iterdir())
    data = last.read_bytes()
    if damage == "cut":
        last.write_bytes(data[:-1])
    elif damage == "emptied":
        last.write_bytes(b"")
    elif damage == "swapped":
        last.write_bytes(first.read_bytes())
    elif damage == "newer":
        state_file.write(last, {"version": 99}, {})
        with pytest.raises(ValueError, match="newer version.*99"):
            state.newest(folder)
        return
    if damage == "gone":
        last.unlink()
        assert state.newest(folder).path == second
        return
    with pytest.warns(UserWarning, match=f"damaged.*{last.name}.*from.*{second.name}"):
        assert state.newest(folder).path == second
    for path in (first, second):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="every state .* is damaged"):
        resumed(folder)
