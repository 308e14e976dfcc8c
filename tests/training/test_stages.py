"""Stages, their checks, the warm-up and the order in which a schedule runs them."""

import keras
import numpy as np
import pytest
from helpers import batch_of, equal_values, tiny_mdm, uncompiled, values_of

import keras_mdm
from keras_mdm import ProgressiveSchedule, Stage
from keras_mdm.training import StageLearningRate, default_optimizer, state

pytestmark = pytest.mark.usefixtures("eager_functions")


def forever(stage):
    """A generator of one batch for a stage, and no more than the stage takes."""
    batch = batch_of(stage.batch_size, stage.resolution)
    while True:
        yield batch


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 5}, [5]),
        ({"steps": 2500}, [1000, 1000, 500]),
        ({"steps": 7, "steps_per_epoch": 3}, [3, 3, 1]),
        ({"steps": 6, "steps_per_epoch": 3}, [3, 3]),
        ({"epochs": 2}, [None, None]),
    ],
)
def test_rounds(options, expected):
    assert Stage(8, **options).rounds() == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": 5, "epochs": 1},
        {"steps": 0},
        {"steps": 1.5},
        {"epochs": -1},
        {"steps": 5, "batch_size": 0},
        {"steps": 5, "accumulate": 0},
        {"steps": 5, "steps_per_epoch": 0},
        {"steps": 5, "learning_rate": 0.0},
        {"steps": 5, "warmup_steps": -1},
    ],
)
def test_wrong_stages_are_refused(options):
    with pytest.raises(ValueError, match="Received"):
        Stage(8, **options)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage(32, steps=1), "resolution"),
        (Stage(8, steps=1, freeze_inner=True), "innermost"),
        (Stage(8, steps=1, mixed={16: 1, 8: 1}), "mixed_resolution"),
        (Stage(16, steps=1, mixed={8: 1}), "mixed_resolution"),
        (Stage(16, steps=1, mixed={16: 0.5, 8: 0.4}), "sum"),
        (Stage(16, steps=1, mixed={16: 1, 8: 9}, batch_size=4), "too small"),
        (Stage(16, steps=1, loss_weights={4: 1.0}), "loss_weights"),
        (Stage(16, steps=1, loss_weights={16: -1.0}), "loss_weights"),
    ],
)
def test_a_schedule_checks_every_stage_before_the_first(stage, message):
    mdm = tiny_mdm()
    before = values_of(mdm.variables)
    schedule = ProgressiveSchedule([Stage(8, steps=1), stage])
    with pytest.raises(ValueError, match=message):
        schedule.fit(mdm, forever)
    assert all(map(np.array_equal, before, values_of(mdm.variables)))


def test_a_schedule_needs_stages_and_resume_a_folder():
    with pytest.raises(ValueError, match="at least one"):
        ProgressiveSchedule([])
    with pytest.raises(ValueError, match="checkpoint_dir"):
        ProgressiveSchedule([Stage(8, steps=1)]).fit(tiny_mdm(), forever, resume=True)


def test_linear_warmup_is_its_closed_form():
    schedule = StageLearningRate(0.4, 4)
    rates = [float(schedule(step)) for step in range(7)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-6)
    copy = StageLearningRate.from_config(schedule.get_config())
    assert float(copy(3)) == float(schedule(3))
    restored = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert isinstance(restored, StageLearningRate)


def test_a_cosine_falls_to_zero_at_the_end_of_the_stage():
    schedule = StageLearningRate(0.4, 2, 10)
    rates = [float(schedule(step)) for step in (1, 2, 4, 6, 10, 11)]
    quarter = 0.2 * (1 + np.cos(np.pi / 4))
    np.testing.assert_allclose(rates, [0.2, 0.4, quarter, 0.2, 0, 0], atol=1e-7)
    optimizer = default_optimizer(Stage(8, steps=10, decay="cosine"))
    assert optimizer._learning_rate.decay_steps == 10
    with pytest.raises(ValueError, match="`decay` must be one of"):
        Stage(8, steps=1, decay="linear")
    with pytest.raises(ValueError, match="`decay` needs"):
        Stage(8, epochs=1, decay="cosine")


def test_inverse_square_root_is_that_of_edm2():
    schedule = StageLearningRate(0.4, 2, decay_reference=4)
    rates = [float(schedule(step)) for step in (1, 2, 4, 16, 400)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.4, 0.2, 0.04], rtol=1e-6)
    copy = StageLearningRate.from_config(schedule.get_config())
    assert float(copy(16)) == float(schedule(16))
    options = {"decay": "inverse_square_root", "decay_reference": 5}
    optimizer = default_optimizer(Stage(8, epochs=1, **options))
    assert optimizer._learning_rate.decay_reference == 5
    for wrong in ({"decay": "inverse_square_root"}, {"decay_reference": 5}):
        with pytest.raises(ValueError, match="`decay_reference`, the step"):
            Stage(8, epochs=1, **wrong)


def test_optimizers_by_name():
    stage = Stage(8, steps=1, optimizer="muon", learning_rate=0.01, accumulate=2)
    optimizer = default_optimizer(stage)
    assert type(optimizer) is keras_mdm.Muon
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert optimizer.gradient_accumulation_steps == 2
    stage = Stage(8, steps=1, optimizer="schedule_free_adamw", warmup_steps=2)
    assert type(default_optimizer(stage)) is keras_mdm.ScheduleFreeAdamW
    with pytest.raises(ValueError, match="`optimizer` must be one of .*'lion'"):
        Stage(8, steps=1, optimizer="lion")
    with pytest.raises(ValueError, match="decay='cosine'"):
        Stage(8, steps=1, optimizer="schedule_free_adamw", decay="cosine")


@pytest.mark.parametrize("name", ["muon", "schedule_free_adamw"])
def test_the_state_of_every_optimizer_is_saved(name, tmp_path):
    stage = Stage(8, steps=1, optimizer=name, learning_rate=0.01, warmup_steps=3)

    def build():
        mdm = tiny_mdm(1, ema_momentum=0.9)
        mdm.compile(default_optimizer(stage), **uncompiled())
        return mdm

    mdm, other, batches = build(), build(), [batch_of(4, 8, seed=i) for i in range(3)]
    for batch in batches[:2]:
        mdm.train_on_batch(batch)
    state.take_state(mdm, tmp_path, {"stage": 0, "epoch": 2})()
    state.newest(tmp_path).restore(other)
    for model in (mdm, other):
        model.train_on_batch(batches[2])
    for kind in (lambda m: m.variables, lambda m: m.optimizer.variables):
        assert equal_values(values_of(kind(mdm)), values_of(kind(other)))


def test_default_optimizer_follows_the_stage():
    plain = default_optimizer(Stage(8, steps=1, learning_rate=0.01))
    assert float(plain.learning_rate) == pytest.approx(0.01)
    assert plain.gradient_accumulation_steps is None
    stage = Stage(8, steps=1, learning_rate=0.01, warmup_steps=10, accumulate=3)
    warm = default_optimizer(stage)
    assert float(warm.learning_rate) == pytest.approx(0.001)
    assert warm.gradient_accumulation_steps == 3 and warm.global_clipnorm == 2.0


class Recorder(keras.callbacks.Callback):
    """Notes what happens in which order."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_stage_begin(self, index, stage):
        self.events.append(("begin", index, self.model.resolution))
        self.weights = values_of(self.model.network.innermost.variables)

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("epoch", epoch, sorted(logs)))

    def on_stage_end(self, index, stage):
        self.events.append(("end", index, self.model.resolution))
        self.after = values_of(self.model.network.innermost.variables)


def test_stages_run_in_order_and_weights_carry_on():
    mdm = tiny_mdm()
    recorder, begun = Recorder(), []

    class Weights(keras.callbacks.Callback):
        def on_stage_begin(self, index, stage):
            begun.append(values_of(mdm.network.innermost.variables))

        def on_stage_end(self, index, stage):
            begun.append(values_of(mdm.network.innermost.variables))

    schedule = ProgressiveSchedule(
        [
            Stage(8, steps=3, steps_per_epoch=2, batch_size=4, learning_rate=0.01),
            Stage(16, steps=2, batch_size=4, freeze_inner=True, learning_rate=0.01),
        ]
    )
    logs = schedule.fit(mdm, forever, callbacks=[recorder, Weights()], verbose=0)
    assert recorder.events == [
        ("begin", 0, 8),
        ("epoch", 0, ["loss", "loss_8"]),
        ("epoch", 1, ["loss", "loss_8"]),
        ("end", 0, 8),
        ("begin", 1, 16),
        ("epoch", 0, ["loss", "loss_16", "loss_8"]),
        ("end", 1, 16),
    ]
    assert [entry["stage"] for entry in logs] == [0, 0, 1]
    assert [entry["resolution"] for entry in logs] == [8, 8, 16]
    first_begin, first_end, second_begin, second_end = begun
    assert not all(map(np.array_equal, first_begin, first_end))
    # What stage one learned is there in stage two, and stays: it is frozen.
    assert all(map(np.array_equal, first_end, second_begin))
    assert all(map(np.array_equal, second_begin, second_end))
    assert mdm.resolution == 16
