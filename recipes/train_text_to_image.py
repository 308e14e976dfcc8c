"""Trains a nested text-to-image model progressively, from low to high resolution.

    python recipes/train_text_to_image.py --output runs/sentences

draws coloured shapes from sentences, with a text encoder that is trained jointly, at
16, then 32, then 64 pixels. Other data with captions:

    python recipes/train_text_to_image.py --output runs/scenes --dataset shapes/scenes
    python recipes/train_text_to_image.py --output runs/mine --dataset folder:PATH

The run folder is that of train_image.py; `samples/` and TensorBoard get pictures of
validation prompts, drawn with the averaged weights.
"""

import argparse

import common
import training
import training_flags

# Of `mdm_shapes_64`, for a CPU.
SMALL = {
    "batch_size": [32],
    "learning_rate": [1e-3],
    "warmup_steps": [50],
    "decay": "cosine",
    "beta_2": 0.999,
    "sample_every": 500,
}
SMALL_STEPS = (1500, 500, 100)
# As printed for the MDM baseline in Kaleido (arXiv 2405.21048), appendix B: 400,000
# steps at 64 pixels first, then 400,000 more. What the last stage of the 1024-pixel
# model took is not printed.
PAPER = {
    "batch_size": [512],
    "learning_rate": [1e-4],
    "warmup_steps": [10_000],
    "decay": "constant",
    "beta_2": 0.99,
    "sample_every": 10_000,
    "dtype": "mixed_bfloat16",
}
PAPER_STEPS = (400_000,)
PAPER_PRESETS = ("mdm_s64_text", "mdm_s256_text", "mdm_s1024_text")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=common.HelpFormatter
    )
    add = parser.add_argument
    training_flags.add_run_flags(parser)
    add(
        "--dataset",
        default="shapes",
        help="'shapes', 'shapes/scenes', a TFDS set with captions, or 'folder:PATH'",
    )
    add(
        "--preset",
        default="mdm_shapes_64",
        help="built-in preset or preset folder to start from",
    )

    group = parser.add_argument_group("text")
    add = group.add_argument
    add(
        "--tokens",
        choices=("words", "bytes"),
        help="of the jointly trained encoder: words of the data set, or UTF-8 bytes "
        "(default: those of the preset for shapes, bytes for other data)",
    )
    add(
        "--max-tokens",
        type=int,
        help="longer captions are cut (default: the preset's 40 words, or 128 bytes)",
    )
    add(
        "--prompts",
        nargs="+",
        help="what the sample grids show (default: captions of the validation split of "
        "shapes, or the first ones of other data)",
    )

    training_flags.add_stage_flags(parser)
    add = parser.add_argument_group("optimizer").add_argument
    add("--beta-2", type=float, help="of AdamW (default: 0.999; paper presets 0.99)")
    training_flags.add_data_flags(parser)
    training_flags.add_model_flags(parser)
    parser.set_defaults(**dict.fromkeys((*SMALL, "steps")), num_samples=16)
    return parser.parse_args(arguments), parser


def fill_defaults(args):
    """Settings that were not given: the paper's for its presets."""
    paper = args.preset in PAPER_PRESETS
    for name, value in (PAPER if paper else SMALL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return PAPER_STEPS if paper else SMALL_STEPS


def make_model(args, source):
    """The model for the data: a jointly trained encoder takes the tokens asked for."""
    import keras_mdm

    options = {"dtype": args.dtype, "seed": args.seed, **training.model_options(args)}
    if args.preset not in keras_mdm.MDM.builtin_presets():
        if args.tokens or args.max_tokens:
            raise ValueError(
                "--tokens and --max-tokens are for built-in presets: the encoder of "
                f"'{args.preset}' has its own."
            )
        return keras_mdm.MDM.from_preset(args.preset, **options)
    options.update(load_weights=False, image_channels=source.channels)
    mdm = keras_mdm.MDM.from_preset(args.preset, **options)
    tokens = args.tokens
    if tokens is None and not args.dataset.startswith("shapes"):
        tokens = "bytes"
    conditioner = mdm.network.conditioner
    if not isinstance(conditioner, keras_mdm.TextEncoder):
        return mdm
    if tokens is None and args.max_tokens is None:
        return mdm
    changes = {}
    if args.max_tokens is not None or tokens == "bytes":
        changes["max_tokens"] = args.max_tokens or 128
    if tokens is not None:
        changes["vocabulary"] = find_words(source) if tokens == "words" else None
    encoder = keras_mdm.TextEncoder(**{**conditioner.get_config(), **changes})
    return keras_mdm.MDM.from_preset(args.preset, conditioner=encoder, **options)


def find_words(source, limit=20_000):
    """Words of the first captions of a source."""
    from keras_mdm.conditioning import find_vocabulary

    return find_vocabulary(item["caption"] for item in training.readable(source, limit))


def find_prompts(args, source):
    """Prompts of the sample grids."""
    from keras_mdm import data

    if args.prompts:
        return args.prompts
    if args.dataset.startswith("shapes"):
        source = data.open_source(args.dataset, "validation", args.data_dir)
    return [item["caption"] for item in training.readable(source, args.num_samples)]


def make_optimizer(args):
    """The function from a stage to its optimizer."""
    from keras_mdm.training.stage import default_optimizer

    def make(stage):
        optimizer = default_optimizer(stage)
        optimizer.beta_2 = args.beta_2
        return optimizer

    return make


def train(args, parser):
    output, args = training.begin(args, parser)

    from keras_mdm import data
    from keras_mdm.conditioning import TextConditioner

    default_steps = fill_defaults(args)
    source = data.open_source(args.dataset, args.split, args.data_dir)
    if source.is_video or not source.has_captions:
        what = "clips, not pictures" if source.is_video else "no captions"
        raise ValueError(f"the data set '{args.dataset}' has {what}.")
    mdm = make_model(args, source)
    if not isinstance(mdm.network.conditioner, TextConditioner):
        raise ValueError(f"the preset '{args.preset}' is not conditional on text.")
    stages = training.make_stages(args, mdm, default_steps)
    options = training.sampling_options(args, mdm)
    options["prompts"] = options["titles"] = find_prompts(args, source)
    make_dataset = training.dataset_maker(args, source, mdm, ("images", "captions"))
    training.fit(
        args,
        output,
        source,
        mdm,
        stages,
        make_dataset,
        options,
        make_optimizer=make_optimizer(args),
    )


def main(arguments=None):
    training.run(train, *parse_arguments(arguments))


if __name__ == "__main__":
    main()
