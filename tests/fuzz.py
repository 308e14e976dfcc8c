"""Odd arguments, prompts and folders, from a seed: each is refused in words, or works.

    python tests/fuzz.py --cases 1000 --seed 0

Prints what ended otherwise. `test_fuzz` runs a part of it.
"""

import argparse
import contextlib
import pathlib
import random
import signal
import sys
import tempfile
import warnings

import numpy as np
from fuzz_folders import Folders
from fuzz_prompts import TEXTS, Prompts
from fuzz_runs import Runs
from helpers import batch_of, tiny_mdm, tiny_unet

import keras_mdm

_NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 10**6, 2**63, -(2**70), 0.5, 1.0, -0.25, 1e-9, 1e39, 1j),
    *(float("nan"), float("inf"), -float("inf"), np.float32(2), np.int64(4)),
)
_WORDS = "| |x|16|8x16|nan|größe|\x1b[31m|a\0|../.."
_HOLDERS = (
    *((), [], [1], [0.5, -1], [None], ["a", 1], {}, {"a": 1}, {8: 1.0}),
    *({"16": 2}, {1, 2}, {16: float("nan")}, np.zeros(3), np.array([[1]])),
)
ODD = (*_NUMBERS, *_WORDS.split("|"), "a" * 5000, *_HOLDERS)
ODD += (None, True, False, b"8", object, print)

# Kinds that are drawn more often than once in all, and seconds that a call may take.
_SHARES = {"pictures": 5, "prompts": 3, "captions": 3, "shards": 3, "preset_folder": 2}
_MOST_SECONDS = 120


class Hang(BaseException):
    """A call that did not end. No `Exception`, which sources note as a bad picture."""


class Cases(Prompts, Folders, Runs):
    """Calls with odd arguments.

    Args:
        seed: int.
        folder: Path of an empty folder that files may be written to.
    """

    def __init__(self, seed, folder):
        self.rng = random.Random(seed)
        self.folder = folder
        self.mdm = tiny_mdm(1, resolution=8)
        self.prepare_prompts()
        self.prepare_folders()
        names = sorted(n[4:] for n in dir(self) if n.startswith("try_"))
        self.kinds = [n for n in names for _ in range(_SHARES.get(n, 1))]

    def next(self):
        """A name, a callable without arguments, and what it is given."""
        kind = self.rng.choice(self.kinds)
        return kind, *getattr(self, f"try_{kind}")()

    def odd(self, names, count=2):
        """dict of some names to odd values."""
        chosen = self.rng.sample(names, self.rng.randint(1, min(count, len(names))))
        return {name: self.rng.choice(ODD) for name in chosen}

    def try_stage(self):
        given = {"resolution": 8, "steps": 3} | self.odd(
            "resolution steps epochs batch_size learning_rate warmup_steps decay mixed "
            "loss_weights freeze_inner accumulate steps_per_epoch".split()
        )
        return lambda: keras_mdm.Stage(**given), given

    def try_schedule(self):
        given = self.odd(
            "mixed loss_weights freeze_inner resolution batch_size".split()
        )

        def call():
            stage = keras_mdm.Stage(**{"resolution": 8, "steps": 1} | given)
            keras_mdm.ProgressiveSchedule([stage]).check(self.mdm)

        return call, given

    def try_generate(self):
        given = {"labels": [0], "num_steps": 1} | self.odd(
            "labels prompts num_samples num_steps guidance_scale sampler seed eta "
            "resolution batch_size negative_labels guidance_rescale threshold "
            "guidance_interval features output dynamic_percentile return_pyramid "
            "progress spacing num_resamplings dynamic_maximum".split()
        )
        for name in ("num_steps", "num_samples", "batch_size"):
            if type(given.get(name)) is int:  # Not a million.
                given[name] = min(given[name], 3)
        return lambda: self.mdm.generate(**given), given

    def try_model(self):
        given = self.odd(
            "schedule prediction loss_target loss_weighting timesteps frame_pooling "
            "condition_dropout output_limit ema_momentum ema_warmup sampling".split()
        )
        return lambda: keras_mdm.MDM(tiny_unet(8), **given), given

    def try_network(self):
        given = self.odd(
            "resolution channels num_residual_blocks num_attention_layers num_heads "
            "groups dropout embedding_size micro_conditioning conditioner frames "
            "image_channels mid_blocks masked_attention pooled_condition remat "
            "rotary_positions attention_feed_forward num_token_blocks "
            "token_projection_size".split(),
            1,
        )
        if any(type(value) is int and value > 10**3 for value in given.values()):
            given = {}  # What has no room in memory.
        return lambda: tiny_unet(**given), given

    def try_compile(self):
        given = self.odd("loss_weights mixed_resolution optimizer".split())
        return lambda: self.mdm.compile(**given), given

    def try_data(self):
        given = {"resolution": 8, "batch_size": 2} | self.odd(
            "resolution batch_size shuffle seed flip crop upscale repeat num_workers "
            "channels keep shard max_unusable".split()
        )
        if type(given.get("num_workers")) is int and given["num_workers"] > 0:
            given["num_workers"] = 0  # Processes take seconds to start.
        for name in ("resolution", "batch_size"):
            if type(given[name]) is int:
                given[name] = min(given[name], 32)

        def call():
            source = keras_mdm.data.open_source("digits")
            batch = next(iter(keras_mdm.data.make_dataset(source, **given)))
            sizes = [given["batch_size"], given["resolution"], given["resolution"]]
            assert list(batch["images"].shape[:3]) == sizes

        return call, given

    def try_source(self):
        name = self.rng.choice(
            "folder: clips: webdataset: hf: digits shapes folder:/dev/null x: :".split()
        )
        given = {"name": name, "split": self.rng.choice(ODD)}
        if self.rng.random() < 0.5:
            given["name"] = self.rng.choice(ODD)
        return lambda: keras_mdm.data.open_source(given["name"], given["split"]), given

    def try_batch(self):
        batch = batch_of(2, 8)
        name = self.rng.choice(["images", "labels", "captions", "videos"])
        batch[name] = self.rng.choice(ODD)
        return lambda: self.mdm.batch_spec.prepare(batch), {name: batch[name]}

    def try_preset(self):
        given = {"preset": self.rng.choice(ODD)}
        if self.rng.random() < 0.5:
            given = {"preset": "mdm_tiny_32"} | self.odd(
                "load_weights dtype num_classes image_channels conditioner weights "
                "remat ema_momentum schedule".split()
            )
        return lambda: keras_mdm.MDM.from_preset(**given), given

    def try_noise_schedule(self):
        names = "name num_timesteps shift_power scale_signal count_frames path"
        given = self.odd(names.split())
        return lambda: keras_mdm.NoiseSchedule(**given), given

    def try_callback(self):
        from keras_mdm import callbacks

        kind, names = self.rng.choice(
            [
                (callbacks.History, "path every"),
                (callbacks.SampleGrid, "folder every titles"),
                (callbacks.NoiseLevels, "path"),
                (callbacks.LossGuard, "patience spike every"),
                (callbacks.AverageSnapshots, "folder every"),
            ]
        )
        names = names.split()
        given = {names[0]: 1 if names[0] == "patience" else "runs/x"} | self.odd(names)
        return lambda: kind(**given), {"kind": kind.__name__, **given}

    def try_active(self):
        given = self.odd(["resolution", "freeze_inner"])
        given.setdefault("resolution", 8)
        return lambda: self.mdm.set_active(**given), given

    def try_conditioner(self):
        kind, names = self.rng.choice(
            [
                (keras_mdm.TextEncoder, "size max_tokens num_layers num_heads"),
                (keras_mdm.TextEmbeddings, "size max_tokens encoder_name as_encoded"),
                (keras_mdm.ClassLabels, "num_classes size"),
            ]
        )
        given = {"size": 8} | self.odd(names.split())
        if kind is keras_mdm.ClassLabels:
            given.setdefault("num_classes", 3)
        for name, value in given.items():  # No more than there is memory for.
            if type(value) is int:
                given[name] = min(value, 64)
        return lambda: kind(**given), given

    def try_settings(self):
        from keras_mdm_recipes import (
            command_line,
            settings,
            train_image,
            train_text_to_image,
            train_video,
        )

        recipe = self.rng.choice([train_image, train_text_to_image, train_video])
        keys = self.rng.sample(sorted(settings.FIELDS), 2)
        values = [f"{key}={self.rng.choice((*ODD, *TEXTS))}" for key in keys]
        flags = ["--output", str(self.folder / "run"), "--set", *values]
        return lambda: command_line.parse(recipe, flags), {"flags": flags}


def run(count, seed, folder):
    """Makes so many calls.

    Returns:
        List of str: the calls that ended in anything but success or words.
    """
    from keras_mdm_recipes import start

    def end(*_):
        raise Hang(f"it took more than {_MOST_SECONDS} s")

    cases, wrong = Cases(seed, folder), []
    signal.signal(signal.SIGALRM, end)
    for number in range(count):
        name, call, given = cases.next()
        signal.alarm(_MOST_SECONDS)
        try:
            # One of the odd arguments prints.
            with warnings.catch_warnings(), contextlib.redirect_stdout(None):
                warnings.simplefilter("ignore")
                call()
        except (Exception, Hang) as error:
            if not start.is_foreseen(error):
                shown = f"{type(error).__name__}: {str(error)[:150]}"
                wrong.append(f"{number} {name}({str(given)[:300]}): {shown}")
        finally:
            signal.alarm(0)
        left = [str(path) for path in folder.rglob("*")]
        wrong += [f"{number} {name}({str(given)[:300]}): left {p}" for p in left]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    with tempfile.TemporaryDirectory() as folder:
        inside = pathlib.Path(folder, "inside")
        inside.mkdir()
        wrong = run(args.cases, args.seed, inside)
    print("\n".join(wrong))
    print(f"{args.cases} calls, {len(wrong)} ended otherwise")


if __name__ == "__main__":
    main()
