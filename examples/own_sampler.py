"""A sampler of one's own, given to `generate`: SDE-DPM-Solver++(2M).

    python examples/own_sampler.py --prompt "a red circle above a small blue square"

Everything that is particular to it is the class `SDEDPMSolver`: the formula of the
paper. The compiled run, guidance, clips, several resolutions at once and any number of
steps without compiling again come from `generate`.
"""

import argparse

import numpy as np
from PIL import Image

import keras_mdm
from keras_mdm.diffusion import Coefficients, Sampler


class SDEDPMSolver(Sampler):
    """Second order with fresh noise in each step ([Lu et al., 2022](
    https://arxiv.org/abs/2211.01095), eq. 16); the first and the last are of first.
    """

    multistep = True  # the history is the x0 of the step before

    def coefficients(self, alpha, sigma):
        with np.errstate(divide="ignore"):
            half_log_snr = np.log(alpha / sigma)
        h = np.diff(half_log_snr)
        gain = alpha[1:] * -np.expm1(-2.0 * h)
        extrapolation = np.zeros_like(h)
        extrapolation[1:-1] = h[1:-1] / (2.0 * h[:-2])
        return Coefficients(
            on_x=sigma[1:] / sigma[:-1] * np.exp(-h),
            on_x0=gain * (1.0 + extrapolation),
            on_history=-gain * extrapolation,
            on_noise=sigma[1:] * np.sqrt(-np.expm1(-2.0 * h)),
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="mdm_shapes_64", help="model on text")
    parser.add_argument("--prompt", default="a red circle above a small blue square")
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="of the sampler (20)")
    parser.add_argument("--output", default="own_sampler.png", help="image to write")
    args = parser.parse_args(arguments)
    mdm = keras_mdm.MDM.from_preset(args.preset)
    images = mdm.generate(
        args.prompt,
        num_samples=args.num_samples,
        sampler=SDEDPMSolver(),
        num_steps=args.steps,
        seed=0,
        progress=True,
    )
    Image.fromarray(np.concatenate(list(images), axis=1)).save(args.output)
    print(f"\nWrote {args.output}.")


if __name__ == "__main__":
    main()
