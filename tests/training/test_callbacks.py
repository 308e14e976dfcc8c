"""Callbacks on a model that only pretends to train."""

import csv
import io
import re
import struct
import sys
import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mdm import Stage, backend, files
from keras_mdm.callbacks import History, Progress, SampleGrid
from keras_mdm.fitting import clock as fitting_clock
from keras_mdm.fitting.clock import StepClock
from keras_mdm.fitting.monitor import StepMonitor
from keras_mdm.fitting.step_callbacks import StepCallbackList
from keras_mdm.training import event_log, progress, rows


class FakeModel:
    """Has what callbacks read of an `MDM`."""

    def __init__(self, resolution=16):
        self.network = types.SimpleNamespace(levels=(16, 8), compute_dtype="float32")
        self.resolution = resolution
        self.optimizer = keras.optimizers.SGD(0.25)
        self.monitor, self.ema = StepMonitor(2), None
        self._jax_state = None
        self.drawn = []

    def generate(self, **options):
        self.drawn.append(options)
        return {16: np.zeros((2, 16, 16, 1), "uint8")}

    def run(self, callbacks, epochs, per_execution=1, first=0):
        """Calls callbacks as `fit` does: `epochs` is a list of lists of losses."""
        clock = StepClock({}, 4)
        clock.flops = 2e6
        params = {"epochs": len(epochs), "steps": len(epochs[0])}
        told = StepCallbackList(callbacks, clock, model=self, **params)
        told.on_train_begin()
        for epoch, losses in enumerate(epochs, first):
            told.on_epoch_begin(epoch)
            for i in range(per_execution - 1, len(losses), per_execution):
                mean = np.mean(losses[: i + 1])
                logs = {"loss": mean, "loss_16": 2 * mean}
                told.on_train_batch_end(i, logs)
                clock.totals()  # As if the device had no time of its own.
            self.optimizer.iterations.assign_add(len(losses))
            told.on_epoch_end(epoch, {**logs, "val_loss": 1.0})
        told.on_train_end()
        clock.close()


def stage_of(steps, **options):
    return Stage(16, steps=steps, batch_size=4, **options)


def begin(callbacks, model, index, stage):
    for callback in callbacks:
        callback.set_model(model)
        callback.on_stage_begin(index, stage)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("per_execution", [1, 2])
@pytest.mark.parametrize("every", [2, 4])
def test_history_rows_are_means_of_their_window(tmp_path, every, per_execution):
    losses = np.random.default_rng(0).uniform(size=(2, 6))
    history = History(tmp_path / "history.csv", every=every)
    model = FakeModel()
    begin([history], model, 0, stage_of(12))
    model.run([history], losses.tolist(), per_execution)
    rows = rows_of(tmp_path / "history.csv")
    ends = {2: [2, 4, 6, 8, 10, 12], 4: [4, 6, 8, 12]}[every]
    assert [int(row["step"]) for row in rows] == ends
    flat = losses.ravel()
    for row, start, end in zip(rows, [0, *ends], ends, strict=False):
        expected = flat[start:end].mean()
        assert float(row["loss"]) == pytest.approx(expected)
        assert float(row["loss_16"]) == pytest.approx(2 * expected)
        assert row["loss_8"] == "" and float(row["learning_rate"]) == 0.25
        assert row["stage"] == "1" and row["resolution"] == "16"


def test_history_of_a_plain_fit_goes_on_in_a_second(tmp_path):
    model = FakeModel()
    for _ in range(2):
        model.run([History(tmp_path / "h.csv", every=2)], [[1.0, 2.0, 3.0]])
    steps = [row["step"] for row in rows_of(tmp_path / "h.csv")]
    assert steps == ["2", "3", "4", "6"]


def test_resumed_history_forgets_what_was_lost(tmp_path):
    path = tmp_path / "h.csv"
    model = FakeModel()
    first, second = stage_of(2), stage_of(6)
    history = History(path, every=1)
    begin([history], model, 0, first)
    model.run([history], [[1.0, 1.0]])
    model.optimizer.iterations.assign(0)
    begin([history], model, 1, second)
    model.run([history], [[2.0, 2.0], [3.0]])
    assert len(rows_of(path)) == 5
    # Stopped here; the state saved last is that of step 2 of the second stage.
    model.optimizer.iterations.assign(2)
    history = History(path, every=1)
    begin([history], model, 1, second)
    model.run([history], [[4.0, 4.0], [5.0, 5.0]], first=1)
    rows = rows_of(path)
    found = [(r["stage"], r["step"], float(r["loss"])) for r in rows]
    assert found == [
        ("1", "1", 1.0),
        ("1", "2", 1.0),
        ("2", "1", 2.0),
        ("2", "2", 2.0),
        ("2", "3", 4.0),
        ("2", "4", 4.0),
        ("2", "5", 5.0),
        ("2", "6", 5.0),
    ]
    assert sorted(e.name for e in tmp_path.iterdir()) == ["h.csv"]


def test_history_of_another_model_is_refused(tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("stage,resolution,step,loss,loss_64\n1,64,5,1.0,1.0\n")
    before = path.read_text()
    with pytest.raises(ValueError, match="loss_64.*loss_16.*another path"):
        FakeModel().run([History(path, every=1)], [[1.0]])
    assert path.read_text() == before
    path.write_bytes(b"\x89PNG\xff\xff\x00")
    with pytest.raises(ValueError, match="h.csv"):
        FakeModel().run([History(path, every=1)], [[1.0]])


def test_history_of_another_training_is_refused(tmp_path):
    path = tmp_path / "h.csv"
    FakeModel().run([History(path, every=1)], [[1.0, 2.0, 3.0]])
    before = path.read_text()
    with pytest.raises(ValueError, match="step 3 of another.*at step 0"):
        FakeModel().run([History(path, every=1)], [[1.0]])
    assert path.read_text() == before


def test_history_goes_on_after_half_a_row(tmp_path):
    path = tmp_path / "h.csv"
    model = FakeModel()
    model.run([History(path, every=1)], [[1.0, 2.0]])
    whole = path.read_text()
    for rest in ("1", "1,16", "1,16,3,2.5"):
        path.write_text(whole + rest)
        model.optimizer.iterations.assign(2)
        model.run([History(path, every=1)], [[4.0]])
        rows = rows_of(path)
        assert [row["step"] for row in rows] == ["1", "2", "3"]
        assert None not in rows[-1] and rows[-1]["learning_rate"] == "0.25"


def test_tensorboard_logs_are_in_a_folder_for_each_stage(tmp_path):
    pytest.importorskip("tensorboardX")
    history = History(None, every=1, log_dir=tmp_path)
    grid = SampleGrid(tmp_path / "samples", log_dir=tmp_path)
    for index in range(2):
        model = FakeModel()
        begin([history, grid], model, index, stage_of(1))
        model.run([history, grid], [[1.0]])
        grid.on_stage_end(index, stage_of(1))
    for name in ("stage1_16px", "stage2_16px"):
        files = sorted(entry.suffix for entry in (tmp_path / name).iterdir())
        assert files == [".history", ".samples"]


def test_figures_of_a_full_disk_are_written_later(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    path, full = tmp_path / "history.csv", [False]

    class Callback(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            full[:] = [epoch in (1, 2)]

    def fails_if_full(path, data):
        if full[0]:
            raise OSError(28, "No space left on device")
        append_whole(path, data)

    append_whole = files.append_whole
    monkeypatch.setattr(rows, "append_whole", fails_if_full)
    monkeypatch.setattr(event_log, "append_whole", fails_if_full)
    monkeypatch.setattr(event_log, "_SECONDS", 0.0)
    history = History(path, every=1, log_dir=tmp_path / "logs")
    model = FakeModel()
    begin([history], model, 0, stage_of(8))
    model.run([Callback(), history], [[4.0, 2.0]] * 4)
    assert [row["step"] for row in rows_of(path)] == list("12345678")
    told = capsys.readouterr().err
    assert told.count("No space left") == 2 and told.count("history.csv") == 1
    (log,) = (tmp_path / "logs" / "stage1_16px").iterdir()
    steps = []
    for data in records_of(log):
        event = Event.FromString(data)
        steps += [event.step for value in event.summary.value if value.tag == "loss"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def records_of(path):
    """The records of a file of TensorBoard, whose checksums must be right."""
    from tensorboardX.record_writer import masked_crc32c

    data = path.read_bytes()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        record, rest = data[12 : 12 + size], data[12 + size :]
        sums = struct.unpack("<II", data[8:12] + rest[:4])
        assert sums == tuple(map(masked_crc32c, (data[:8], record)))
        yield record
        data = rest[4:]


class Clock:
    """A clock that is turned on by a second at every reading."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(fitting_clock, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    """A device that reaches a GFLOP/s, which was measured."""
    monkeypatch.setattr(backend, "peak_flops", lambda dtype: (1e9, True))


def test_progress_in_a_log_file_adds_few_lines(clock, capsys):
    bar = Progress(interval=10)
    model = FakeModel()
    begin([bar], model, 0, stage_of(20))
    model.run([bar], [[0.5] * 10] * 2)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "\r" not in out
    assert lines[0].startswith("Stage 1: 16 pixels, batches of 4")
    assert lines[1].startswith("Peak of this device: 0.001 TFLOP/s in float32, measur")
    # Two readings a step, so a line every five or six steps, and the last one.
    assert 3 <= len(lines) - 2 <= 5
    assert "20/20 steps" in lines[-1] and "0:00 left" in lines[-1]
    assert "loss 0.5000  loss_16 1.0000" in lines[-1]
    # About two seconds a step of four pictures and two MFLOP.
    speed = r"(1\.9|2\.0) images/s  \S+e-0[67] TFLOP/s \(0% of peak\)  0% waiting for d"
    assert re.search(speed, lines[-1]), lines[-1]
    assert out.count("Peak of this device") == 1


def test_progress_counts_clips(clock, capsys):
    bar = Progress(interval=10)
    FakeModel("8x16").run([bar], [[0.5] * 10])
    assert "clips/s" in capsys.readouterr().out


def test_progress_in_a_terminal_redraws_one_line(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    bar = Progress()
    FakeModel().run([bar], [[0.5] * 4] * 3)
    text = terminal.getvalue()
    text = text.partition("\n")[2]  # After that on the device's peak.
    assert text.count("\n") == 1 and text.endswith("\n")
    assert text.count("\r") >= 12
    assert "12/12 steps" in text.split("\r")[-1]


def test_history_has_the_speed_of_its_steps(clock, tmp_path):
    history = History(tmp_path / "h.csv", every=2)
    # Without a stage, as in a plain fit. A reading, so a second, a step.
    FakeModel().run([history], [[1.0] * 4] * 2)
    rows = rows_of(tmp_path / "h.csv")
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    for row in rows:
        assert float(row["images_per_second"]) == 4.0
        assert float(row["teraflops"]) == 2e-6
        assert float(row["share_of_peak"]) == 2e-3
        assert float(row["waited_for_data"]) == 0.0


def test_a_tracker_is_given_the_rows(tmp_path):
    class Tracker:
        def log(self, row):
            rows.append(row)

    rows = []
    history = History(tmp_path / "history.csv", every=2, tracker=Tracker())
    model = FakeModel()
    begin([history], model, 0, stage_of(4))
    model.run([history], [[1.0, 2.0, 3.0, 4.0]])
    assert [row["stage_step"] for row in rows] == [2, 4]
    written = rows_of(tmp_path / "history.csv")
    assert [float(row["loss"]) for row in written] == [row["loss"] for row in rows]


def test_a_tracker_that_fails_is_told_of_once(tmp_path, capsys):
    class Tracker:
        def log(self, row):
            raise RuntimeError("no network")

    history = History(tmp_path / "history.csv", every=1, tracker=Tracker())
    model = FakeModel()
    begin([history], model, 0, stage_of(4))
    model.run([history], [[1.0, 2.0, 3.0, 4.0]])
    assert len(rows_of(tmp_path / "history.csv")) == 4
    assert capsys.readouterr().err.count("no network") == 1


def test_tensorboard_takes_what_is_not_finite_without_a_word(tmp_path, caplog):
    history = History(None, every=1, log_dir=tmp_path)
    model = FakeModel()
    begin([history], model, 0, stage_of(2))
    model.run([history], [[float("nan"), float("inf")]])
    assert not caplog.records


def test_sample_grid_files(tmp_path):
    grid = SampleGrid(tmp_path, every=2, titles=["a", "b"], labels=[1, 2], num_steps=3)
    model = FakeModel()
    begin([grid], model, 0, stage_of(6))
    model.run([grid], [[0.1], [0.1], [0.1], [0.1, 0.1, 0.1]])
    grid.on_stage_end(0, None)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    # Not at step 6, where the stage ends.
    assert names == ["stage1_16px.png", "stage1_16px_step2.png"]
    assert model.drawn[0] == {
        "return_pyramid": True,
        "seed": 0,
        "labels": [1, 2],
        "num_steps": 3,
    }
    assert Image.open(tmp_path / names[0]).size == (72, 2 * 82 + 4)
