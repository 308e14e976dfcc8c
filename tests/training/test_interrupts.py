"""Ctrl-C and SIGTERM, really sent: in the middle of `fit`, twice, in other threads."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading

import keras
import numpy as np
import pytest
from helpers import batch_of, equal_values, tiny_mdm, trainer, uncompiled, values_of

from keras_mdm import ProgressiveSchedule, Stage
from keras_mdm.fitting import interrupts
from keras_mdm.training import state

pytestmark = pytest.mark.usefixtures("eager_functions")

ROOT = pathlib.Path(__file__).parents[2]
BATCH = batch_of(4, 8)
ENDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


class SignalAt(keras.callbacks.Callback):
    """Sends a signal to this process at one hook of one step or epoch."""

    def __init__(self, hook, at, signum=signal.SIGINT):
        super().__init__()
        self.seen = 0
        setattr(
            self, hook, lambda i, logs=None: i == at and os.kill(os.getpid(), signum)
        )

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1


def endless():
    while True:
        yield BATCH


def fit(mdm, callbacks, **options):
    options = {"steps_per_epoch": 5, "shuffle": False, "verbose": 0, **options}
    return mdm.fit(endless(), callbacks=callbacks, **options)


@pytest.fixture(scope="module")
def mdm():
    mdm = trainer()
    mdm.fit(BATCH, verbose=0)
    return mdm


@pytest.mark.parametrize("signum", ENDS)
@pytest.mark.parametrize(
    ("hook", "done"), [("on_train_batch_begin", 2), ("on_train_batch_end", 3)]
)
def test_fit_ends_after_the_step(mdm, signum, hook, done):
    handlers = [signal.getsignal(s) for s in ENDS]
    before = int(mdm.optimizer.iterations)
    with pytest.raises(ENDS[signum]) as end:
        fit(mdm, [SignalAt(hook, 2, signum)])
    assert int(mdm.optimizer.iterations) - before in (done, 3)
    if signum == signal.SIGTERM:
        assert end.value.code == 143
    assert [signal.getsignal(s) for s in ENDS] == handlers
    assert np.isfinite(mdm.train_on_batch(BATCH, return_dict=True)["loss"])


@pytest.mark.parametrize("signum", ENDS)
def test_a_program_hears_at_once_but_in_steps(mdm, signum):
    handlers = [signal.getsignal(s) for s in ENDS]
    with pytest.raises(ENDS[signum]) as end, interrupts.held(raised=True):
        os.kill(os.getpid(), signum)
        signal.pause()
    before = int(mdm.optimizer.iterations)
    with pytest.raises(ENDS[signum]) as later, interrupts.held(raised=True):
        fit(mdm, [SignalAt("on_train_batch_begin", 2, signum)])
    assert int(mdm.optimizer.iterations) - before in (2, 3)
    if signum == signal.SIGTERM:
        assert end.value.code == later.value.code == 143
    assert [signal.getsignal(s) for s in ENDS] == handlers


def test_the_weights_are_those_after_the_step(mdm):
    """Bit for bit those of a run that was to end there."""
    start = values_of([*mdm.variables, *mdm.optimizer.variables])

    def reset():
        for variable, value in zip(
            [*mdm.variables, *mdm.optimizer.variables], start, strict=True
        ):
            variable.assign(value)

    fit(mdm, [], steps_per_epoch=3)
    wanted = values_of(mdm.network.variables)
    reset()
    with pytest.raises(KeyboardInterrupt):
        fit(mdm, [SignalAt("on_train_batch_end", 2)])
    assert equal_values(wanted, values_of(mdm.network.variables))


@pytest.mark.parametrize("hook", ["on_test_batch_end", "on_epoch_end"])
def test_in_validation_and_at_the_end_of_an_epoch(mdm, hook):
    before = int(mdm.optimizer.iterations)
    with pytest.raises(KeyboardInterrupt):
        fit(mdm, [SignalAt(hook, 0)], epochs=2, validation_data=BATCH)
    assert int(mdm.optimizer.iterations) == before + 5


def test_evaluate_and_single_steps(mdm):
    with pytest.raises(KeyboardInterrupt):
        mdm.evaluate(BATCH, verbose=0, callbacks=[SignalAt("on_test_batch_begin", 0)])
    before = int(mdm.optimizer.iterations)
    with pytest.raises(KeyboardInterrupt), interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
        mdm.train_on_batch(BATCH)
    assert int(mdm.optimizer.iterations) == before + 1


def test_handlers_of_the_program_are_called_between_steps(mdm):
    called = []
    previous = signal.signal(signal.SIGTERM, lambda *args: called.append(args[0]))
    try:
        before = int(mdm.optimizer.iterations)
        fit(mdm, [SignalAt("on_train_batch_begin", 1, signal.SIGTERM)])
        assert called == [signal.SIGTERM]
        assert int(mdm.optimizer.iterations) == before + 5
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fit(mdm, [SignalAt("on_train_batch_begin", 1, signal.SIGTERM)])
        assert int(mdm.optimizer.iterations) == before + 10
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_an_alarm_that_raises_comes_between_steps(monkeypatch):
    """As of a limit of time, which in a step would cost the weights; but where data
    are waited for it comes at once, or else it would never."""

    class TimeIsUp(Exception):
        pass

    def up(*args):
        raise TimeIsUp

    def step(*args):
        if not int(mdm.optimizer.iterations):  # Traced once on JAX.
            os.kill(os.getpid(), signal.SIGALRM)
        return errors(*args)

    def hanging():
        yield BATCH
        os.kill(os.getpid(), signal.SIGALRM)
        raise AssertionError("nothing has come")

    mdm = trainer(compile_options=uncompiled())
    errors = mdm.process.errors
    monkeypatch.setattr(mdm.process, "errors", step)
    previous = signal.signal(signal.SIGALRM, up)
    try:
        with pytest.raises(TimeIsUp):
            mdm.train_on_batch(BATCH)
        assert int(mdm.optimizer.iterations) == 1
        with pytest.raises(TimeIsUp):
            mdm.fit(hanging(), steps_per_epoch=2, verbose=0)
        assert int(mdm.optimizer.iterations) == 2
        assert signal.getsignal(signal.SIGALRM) == up
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_nothing_is_installed_in_another_thread(mdm):
    handlers = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: fit(mdm, [Look()]))
    thread.start()
    thread.join()
    assert set(handlers) == {signal.getsignal(signal.SIGINT)}
    fit(mdm, [Look()])
    assert len(set(handlers)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_forked_workers_end_as_ever():
    with interrupts.held():
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
        interrupts.check()  # Nothing has come here.


STAGES = [
    Stage(8, steps=4, steps_per_epoch=3, batch_size=4, learning_rate=0.01),
    Stage(16, steps=5, steps_per_epoch=3, batch_size=4, learning_rate=0.01),
]


class SignalInStage(SignalAt):
    def __init__(self, stage, step):
        super().__init__("unused", 0)
        self.wanted = (stage, step)

    def on_stage_begin(self, index, stage):
        self.stage, self.seen = index, 0

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if (self.stage, self.seen) == self.wanted:
            os.kill(os.getpid(), signal.SIGINT)


def build():
    mdm = tiny_mdm(ema_momentum=0.9)
    rng = np.random.default_rng(3)
    for variable in mdm.network.variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32") * 0.1)
    mdm.reset_ema()
    return mdm


def train(mdm, folder, callbacks=(), resume=False):
    def data(stage):
        while True:
            yield batch_of(stage.batch_size, stage.resolution)

    return ProgressiveSchedule(STAGES).fit(
        mdm, data, callbacks, checkpoint_dir=folder, resume=resume, verbose=0
    )


@pytest.fixture(scope="module")
def whole():
    """Values of a run that nothing interrupted."""
    mdm = build()
    train(mdm, None)
    return values_of(mdm.variables)


# In a first epoch, and in a second one.
@pytest.mark.parametrize("place", [(0, 2), (1, 4)])
def test_a_schedule_goes_on_after_the_very_step(place, whole, tmp_path, capsys):
    """The data here are the same at every step, so that nothing else may differ."""
    with pytest.raises(KeyboardInterrupt):
        train(build(), tmp_path, [SignalInStage(*place)])
    told = capsys.readouterr().out
    assert f"after step {place[1]} of stage {place[0] + 1}" in told
    assert "resume=True" in told
    progress = state.newest(tmp_path).progress
    epoch, step = divmod(place[1], 3)
    assert progress == {"stage": place[0], "epoch": epoch, "step": step}
    mdm = build()
    counter = SignalAt("unused", 0)
    train(mdm, tmp_path, [counter], resume=True)
    assert counter.seen == 9 - 4 * place[0] - place[1]
    for a, b in zip(values_of(mdm.variables), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_all_callbacks_hear_of_an_epoch_that_is_saved(tmp_path):
    """One that a signal stopped while it was validated."""

    class AtTest(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    class Heard(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            heard.append((epoch, "val_loss" in logs))

    heard, schedule = [], ProgressiveSchedule(STAGES[:1])
    for callbacks in ([AtTest(), Heard()], [Heard()]):
        with contextlib.suppress(SystemExit):
            schedule.fit(
                *(build(), lambda _: endless(), callbacks, lambda _: BATCH),
                checkpoint_dir=tmp_path,
                resume=True,
                verbose=0,
            )
    assert heard == [(0, True), (1, True)]


PROGRAM = """
    import sys
    sys.path.insert(0, {tests!r})
    import keras
    from helpers import batch_of, trainer

    class Tell(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("step", int(self.model.optimizer.iterations), flush=True)

    class Slow(Tell):
        def on_train_batch_end(self, batch, logs=None):
            import time
            print("waits", flush=True)
            time.sleep(60)

    mdm = trainer()
    batch = batch_of(4, 8)
    def endless():
        while True:
            yield batch
    try:
        mdm.fit(endless(), steps_per_epoch=10**6, shuffle=False, verbose=0,
                callbacks=[{callback}()])
    except BaseException as error:
        mdm.generate(labels=1, num_steps=2)
        print("ended", type(error).__name__, int(mdm.optimizer.iterations), flush=True)
        raise
"""


def start(*command):
    tests = ROOT / "tests"
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(tests), environment.get("PYTHONPATH", "")]
    )
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_until(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(process.stderr.read())


def program(callback):
    code = PROGRAM.format(tests=str(ROOT / "tests"), callback=callback)
    return start("-c", textwrap.dedent(code))


ON_JAX = keras.backend.backend() == "jax"


# Programs take seconds to begin; elsewhere the recipes show how an interrupt ends them.
@pytest.mark.parametrize("signum", ENDS if ON_JAX else [signal.SIGTERM])
def test_a_program_of_a_user(signum):
    process = program("Tell")
    first = run_until(process, "step 3")
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    told = [first, *out.splitlines()]
    steps = [line for line in told if line.startswith("step")]
    last = steps[-1].split()[1]
    assert f"ended {ENDS[signum].__name__} {last}" in out, out + err
    assert "Interrupted" in err
    # Python ends itself by SIGINT, which a shell shows as 130.
    assert process.returncode == (143 if signum == signal.SIGTERM else -signal.SIGINT)


@pytest.mark.skipif(not ON_JAX, reason="a program that sleeps, whatever the backend")
def test_a_second_signal_ends_at_once():
    process = program("Slow")
    run_until(process, "waits")
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "A second signal ends at once" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143 and "ended" not in out
