"""Trains and draws on the devices that it is told of, for `test_distribution`.

    python devices_program.py DEVICES KIND OUTPUT STATE [ADDRESS PROCESSES PROCESS]

KIND is `one`, `data` or `fsdp`. Where there is no folder STATE, a run is stopped that
leaves it, goes on, and is killed in its next state, between the files of two processes.
Else a whole run is made, and one that goes on from STATE; where that is OUTPUT.state,
the latter alone, which is the rest of the run that was killed. What came out is written
by process 0 to OUTPUT.npz.
"""

import os
import shutil
import signal
import sys
import time
import warnings

count, kind, output, state, *several = sys.argv[1:]
flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}"

import keras  # noqa: E402
import numpy as np  # noqa: E402
from helpers import LeanNetwork, batch_of, randomize, tiny_unet  # noqa: E402

import keras_mdm  # noqa: E402
from keras_mdm import backend, distribution, files  # noqa: E402
from keras_mdm.training.state import newest  # noqa: E402

process, processes = 0, 1
if several:
    address, *numbers = several
    process, processes = distribution.connect(address, *map(int, numbers), timeout=60)
if kind == "data":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
if kind == "fsdp":
    # Tiny networks have no large variables.
    keras.distribution.set_distribution(distribution.FullySharded(min_size=64))

SIZE = 16


def make_optimizer(stage):
    # A larger epsilon than usual: weights whose gradient is zero but for rounding, such
    # as biases before a normalization, would move by the sign of that rounding.
    return keras_mdm.AdamW(
        stage.learning_rate,
        epsilon=1e-3,
        gradient_accumulation_steps=stage.accumulate if stage.accumulate > 1 else None,
    )


SCHEDULE = keras_mdm.ProgressiveSchedule(
    [
        keras_mdm.Stage(4, steps=8, batch_size=SIZE, learning_rate=1e-3),
        keras_mdm.Stage(
            8,
            steps=12,
            batch_size=SIZE,
            learning_rate=1e-3,
            mixed={8: 1, 4: 1},
            freeze_inner=True,
            accumulate=2,
        ),
    ],
    make_optimizer,
)


class Losses(keras.callbacks.Callback):
    """The loss after each step; raises an interrupt after a number of them."""

    def __init__(self, stop=None):
        super().__init__()
        self.values, self.stop = [], stop

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float(logs["loss"]))  # The mean since the epoch began.
        if len(self.values) == self.stop:
            raise KeyboardInterrupt


def make_dataset(stage):
    rows = SIZE // processes
    part = slice(process * rows, (process + 1) * rows)
    numbers = range(20)
    batches = [batch_of(SIZE, stage.resolution, seed=number) for number in numbers]
    return [{k: v[part] for k, v in batch.items()} for batch in batches]


def run(stop=None, **options):
    network = LeanNetwork(8, inner=tiny_unet(4, embedding_size=8))
    mdm = keras_mdm.MDM(network, ema_momentum=0.9, seed=1)
    randomize(mdm.network, 0.1)
    mdm.reset_ema()
    losses = Losses(stop)
    try:
        SCHEDULE.fit(mdm, make_dataset, [losses], verbose=0, **options)
    except KeyboardInterrupt:
        pass
    return mdm, losses.values


def joined(variables):
    return np.concatenate([backend.to_numpy(v).ravel() for v in variables])


def trained(mdm, losses):
    return {
        "losses": np.array(losses),
        "weights": joined(mdm.network.weights),
        "averages": joined(mdm.ema.averages),
    }


def drawn(mdm):
    data = make_dataset(SCHEDULE.stages[1])[:2]
    return {
        "pictures": mdm.generate(
            labels=[0, 1, 2], num_steps=3, seed=5, guidance_scale=2.0, output="float"
        ),
        "evaluation": np.array(mdm.evaluate(data, verbose=0)),
    }


def kill_after(first):
    """Has process 1 killed when its file is written but not named, and the
    first one, of process 0, is there."""
    to_disk = files._to_disk

    def killed(path):
        to_disk(path)
        if process == 1:
            while not os.path.exists(first):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    files._to_disk = killed


if not os.path.exists(state):
    _, losses = run(stop=13, checkpoint_dir=state)
    backend.wait_for_all()  # Each has written a part of it.
    if process == 0:
        np.save(f"{output}.npy", losses)
    kill_after(f"{state}/stage2_epoch0_step6.1-of-2.state")
    run(stop=1, checkpoint_dir=state, resume=True)
    signal.pause()  # Process 0, until it is killed.
own = state == f"{output}.state"
found = {}
if not own:
    mdm, losses = run()
    found = trained(mdm, losses) | drawn(mdm)
if process == 0:
    shutil.copytree(state, f"{output}.copy")
backend.wait_for_all()
with warnings.catch_warnings(record=True) as told:
    chosen = newest(f"{output}.copy").files.key
assert any("step6.2-of-2.state' (it is missing" in str(w.message) for w in told), told
assert {tuple(key) for key in backend.from_all(chosen)} == {chosen}
mdm, last_losses = run(checkpoint_dir=f"{output}.copy", resume=True)
resumed = trained(mdm, last_losses)
if own:
    found = trained(mdm, [*np.load(f"{output}.npy"), *last_losses]) | drawn(mdm)
found.update({f"resumed_{key}": value for key, value in resumed.items()})
found["chosen"] = np.array(chosen)
shares = []
for variable in (*mdm.ema.averages, *mdm.optimizer.variables):
    size, part = variable.value.size, variable.value.addressable_shards[0].data.size
    if size >= 64 and any(side % 8 == 0 for side in variable.shape):
        shares.append(part / size)
found["shares"] = np.array(shares)
mdm.save_to_preset(f"{output}.preset")
loaded = keras_mdm.MDM.from_preset(f"{output}.preset", ema_momentum=None)
found["loaded"] = joined(loaded.network.weights)
if process == 0:
    np.savez(output, **found)
