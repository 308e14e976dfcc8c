"""Rectified flow with logit-normal timesteps and x-prediction, judged on digits.

    python examples/rectified_flow.py

The recipe of JiT ([Li and He, 2025](https://arxiv.org/abs/2511.13720)) on a nest: four
arguments of `MDM`. Trains on scikit-learn's handwritten digits, 600 steps in three
minutes on two cores with TensorFlow; then a judge that learned from the real ones reads
98 % of 100 drawn digits as what they were meant to be, and 97 % of unseen real ones.
"""

import argparse
import time

import numpy as np
from PIL import Image

import keras_mdm
from keras_mdm import data, metrics
from keras_mdm.diffusion import LogitNormal


def make_model(**options):
    """A small nest of 16 and 32 pixels that learns a straight flow."""
    return keras_mdm.MDM.from_preset(
        "mdm_tiny_32",
        load_weights=False,
        num_classes=10,
        image_channels=1,
        schedule="flow",
        prediction="x0",
        loss_target="v",
        timesteps=LogitNormal(mean=0.8, std=0.8),
        ema_momentum=0.99,
        sampling={"sampler": "heun", "num_steps": 25, "guidance_scale": 2.0},
        seed=0,
        **options,
    )


def read_digits(split):
    """Images and labels of a split, as arrays."""
    items = list(data.open_source("digits", split))
    return np.stack([i["image"] for i in items]), np.array([i["label"] for i in items])


def judge(mdm, per_class, epochs):
    """Fraction of drawn and of unseen real digits that are read as what they are."""
    reader = metrics.Judge(32, channels=1, num_classes=10)
    reader.fit(*read_digits("train"), epochs=epochs)
    labels = np.repeat(np.arange(10), per_class)
    drawn = mdm.generate(labels=labels, batch_size=50, seed=0)
    return reader.accuracy(drawn, labels), reader.accuracy(*read_digits("test")), drawn


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600, help="training steps (600)")
    parser.add_argument("--per-class", type=int, default=10, help="digits drawn (10)")
    parser.add_argument("--epochs", type=int, default=10, help="of the judge (10)")
    parser.add_argument("--output", default="rectified_flow.png", help="image to write")
    args = parser.parse_args(arguments)
    mdm = make_model()
    mdm.compile(keras_mdm.AdamW(1e-3))
    digits = data.open_source("digits")
    dataset = data.make_dataset(digits, 32, batch_size=32, repeat=True, seed=0)
    start = time.perf_counter()
    mdm.fit(dataset, steps_per_epoch=args.steps)
    seconds = time.perf_counter() - start
    drawn_right, real_right, drawn = judge(mdm, args.per_class, args.epochs)
    print(
        f"{args.steps} steps in {seconds:.0f} s. Read as meant: {drawn_right:.0%} of "
        f"the drawn digits, {real_right:.0%} of real ones that the judge had not seen."
    )
    rows = drawn[..., 0].reshape(10, args.per_class, 32, 32).swapaxes(0, 1)
    image = rows.swapaxes(1, 2).reshape(args.per_class * 32, 320)
    Image.fromarray(image).save(args.output)
    return drawn_right


if __name__ == "__main__":
    main()
