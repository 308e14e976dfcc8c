"""A noise schedule of one's own: a function that returns the log-SNR.

    python examples/own_schedule.py --steps 400

Everything that is particular to it is `laplace`. Its shift for each resolution, the
loss weights, every sampler and saving come from `NoiseSchedule`. Trains on
scikit-learn's handwritten digits and draws some.
"""

import argparse

import keras
import numpy as np
from PIL import Image

import keras_mdm
from keras_mdm import data


@keras.saving.register_keras_serializable("examples")
def laplace(time):
    """Log-SNR distributed as Laplace with mean 0 and scale 1.5: most training where
    picture and noise are equal ([Hang et al., 2024](https://arxiv.org/abs/2407.03297)).

    Args:
        time: float array in (0, 1], rising from clean to noise.

    Returns:
        float array, falling.
    """
    distance = time - 0.5
    with np.errstate(divide="ignore"):
        return 1.5 * np.sign(distance) * np.log1p(-2.0 * np.abs(distance))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="training steps (400)")
    parser.add_argument("--output", default="own_schedule.png", help="image to write")
    parser.add_argument("--preset", help="folder to save the model in")
    args = parser.parse_args(arguments)
    mdm = keras_mdm.MDM.from_preset(
        "mdm_tiny_32",
        load_weights=False,
        num_classes=10,
        image_channels=1,
        schedule=keras_mdm.NoiseSchedule(laplace),
        seed=0,
    )
    mdm.compile(keras_mdm.AdamW(1e-3))
    digits = data.open_source("digits")
    dataset = data.make_dataset(digits, 32, batch_size=32, repeat=True, seed=0)
    mdm.fit(dataset, steps_per_epoch=args.steps)
    if args.preset:
        # The schedule is saved by its name: import this file before you load it.
        mdm.save_to_preset(args.preset)
    images = mdm.generate(labels=range(10), num_steps=20, seed=0)
    Image.fromarray(np.concatenate(list(images[..., 0]), axis=1)).save(args.output)
    print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
