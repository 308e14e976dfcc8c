"""Flags that the training recipes share: stages, model, samples and saving."""

import argparse

import common
import training


def add_run_flags(parser):
    add = parser.add_argument
    add(
        "--output",
        type=common.path,
        required=True,
        help="run folder to write; new, or empty",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --output, with the settings in its config.json",
    )
    common.backend_choices(parser)
    add("--seed", type=int, default=0, help="of weights, noise, order and samples")


def add_data_flags(parser):
    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--split", default="train", help="split of the data set")
    add(
        "--data-dir",
        type=common.path,
        help="where TFDS keeps its sets (default: that of TFDS)",
    )
    add("--crop", choices=("center", "random"), default="center", help="to a square")
    add("--flip", action="store_true", help="mirror half of the pictures")
    add("--upscale", action="store_true", help="enlarge small pictures, not skip them")
    add("--num-workers", type=int, default=0, help="processes that read pictures")


def add_stage_flags(parser, defaults=training.SMALL_STAGES):
    """Flags of `training.make_stages`.

    Args:
        parser: `argparse.ArgumentParser`.
        defaults: dict as `make_stages` takes it, for `--help`.
    """
    group = parser.add_argument_group(
        "stages", "One value holds for all stages; or give one for each."
    )
    add = group.add_argument
    add(
        "--resolutions",
        type=common.level,
        nargs="+",
        help="resolution of each stage, such as 64, or 8x64 for clips of 8 frames "
        "(default: those of the preset, rising)",
    )
    add(
        "--steps",
        type=int,
        nargs="+",
        help=f"training steps{_default(defaults, 'steps')}",
    )
    add(
        "--batch-size",
        type=int,
        nargs="+",
        help=f"pictures a step{_default(defaults, 'batch_size')}",
    )
    add(
        "--learning-rate",
        type=float,
        nargs="+",
        help=f"peak rate{_default(defaults, 'learning_rate')}",
    )
    add(
        "--warmup-steps",
        type=int,
        nargs="+",
        help=f"of the learning rate{_default(defaults, 'warmup_steps')}",
    )
    add(
        "--decay",
        choices=("constant", "cosine"),
        help="what the learning rate does after the warm-up: stay, or fall to zero at "
        "the end of each stage (default: cosine; constant for the paper's presets)",
    )
    add("--max-steps", type=int, help="cap on the steps of each stage, for a quick try")
    add(
        "--mixed",
        type=_pair,
        nargs="+",
        metavar="RESOLUTION=SHARE",
        help="mixed-resolution batches, such as 64=2 32=1: part of each batch skips "
        "the larger resolutions (default: off)",
    )
    add(
        "--loss-weights",
        type=_pair,
        nargs="+",
        metavar="RESOLUTION=WEIGHT",
        help="weight of the loss of each resolution (default: 1)",
    )
    add(
        "--freeze-inner",
        action=argparse.BooleanOptionalAction,
        help="after the first stage, train only what the stage added, which takes less "
        "time, or else everything; a stage that adds several dolls, or frames to a "
        "network of pictures, trains all "
        "(default: on; off for the paper's presets)",
    )
    add(
        "--accumulate",
        type=int,
        default=1,
        help="batches averaged for one update",
    )


def _default(defaults, name):
    """What `--help` says of a flag that may differ from stage to stage."""
    return f" (default: {', '.join(str(value) for value in defaults[name])})"


def add_model_flags(parser, start="none, random weights"):
    group = parser.add_argument_group("model", "Defaults are those of the preset.")
    add = group.add_argument
    add(
        "--start-from",
        metavar="PRESET",
        help="'none', or a trained preset or run folder: the largest network that it "
        f"has in common with this model gives its weights (default: {start})",
    )
    add("--prediction", choices=("v", "epsilon", "x0"), help="what is predicted")
    add("--loss-target", choices=("v", "epsilon", "x0"), help="what the loss compares")
    add(
        "--loss-weighting",
        choices=("uniform", "snr", "min_snr", "sigmoid", "vdm"),
        help="weight of each noise level",
    )
    add("--condition-dropout", type=float, help="share of dropped conditions")
    add("--ema-momentum", type=float, help="of the averaged weights")
    add(
        "--remat",
        type=common.level,
        nargs="*",
        metavar="RESOLUTION",
        help="compute the activations of these resolutions again in the backward pass, "
        "which saves memory; without values, of all",
    )
    add("--dtype", help="dtype policy, such as float32 or mixed_bfloat16")

    group = parser.add_argument_group("samples and saving")
    add = group.add_argument
    add("--num-samples", type=int, default=20, help="pictures in each grid")
    add("--sampler", choices=("ddim", "ddpm", "dpm_solver", "heun"), help="sampler")
    add("--sampling-steps", type=int, help="sampler steps")
    add("--guidance-scale", type=float, help="of the condition; 1 is none")
    add("--sample-every", type=int, help="steps between grids (default: stage ends)")
    add("--save-every", type=int, default=500, help="steps between states to resume")


def _pair(text):
    """`"64=2"` as `(64, 2.0)`."""
    try:
        resolution, value = text.split("=")
        return common.level(resolution), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be RESOLUTION=NUMBER, such as 64=2. Received: {text!r}"
        ) from None
