"""Trains a nested picture model progressively, from low to high resolution.

    python recipes/train_image.py --output runs/shapes

draws coloured shapes, conditional on shape and colour, trained at 16, then 32, then 64
pixels. Other data:

    python recipes/train_image.py --output runs/digits --dataset digits
    python recipes/train_image.py --output runs/flowers --dataset oxford_flowers102
    python recipes/train_image.py --output runs/mine --dataset folder:PATH --flip

The run folder gets `preset/` (the model, for `MDM.from_preset` and `sample.py`),
`samples/` (a grid of pictures for each stage, every resolution side by side),
`history.csv` and `losses.png` (loss of each resolution), `config.json` (all that was
chosen), `logs/` (TensorBoard) and `state/` (from which `--resume` goes on).
"""

import argparse

import common
import training
import training_flags


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=common.HelpFormatter
    )
    add = parser.add_argument
    training_flags.add_run_flags(parser)
    add(
        "--dataset",
        default="shapes",
        help="'shapes', 'digits', a TFDS set, or 'folder:PATH' (sub-folders "
        "are classes)",
    )
    add(
        "--preset",
        help="built-in preset or preset folder to start from (default: mdm_tiny_64, or "
        "mdm_tiny_32 if the pictures are smaller than 64 pixels)",
    )
    add("--unconditional", action="store_true", help="do not use the labels")

    training_flags.add_stage_flags(parser)

    training_flags.add_data_flags(parser)
    training_flags.add_model_flags(parser)
    return parser.parse_args(arguments), parser


def choose_preset(args, source):
    """The preset that was given, or the small one whose pictures `source` can fill."""
    if args.preset is not None:
        return args.preset
    large = training.picture_size(source) >= 64
    return "mdm_tiny_64" if large else "mdm_tiny_32"


def make_model(args, source):
    """The model for the data: a built-in preset takes its classes and channels."""
    import keras_mdm

    preset = args.preset
    overrides = training.model_options(args)
    if preset in keras_mdm.MDM.builtin_presets():
        labelled = source.num_classes and not args.unconditional
        # The message that there are no weights is for those who want to draw.
        return keras_mdm.MDM.from_preset(
            preset,
            load_weights=False,
            dtype=args.dtype,
            num_classes=source.num_classes if labelled else 0,
            image_channels=source.channels,
            seed=args.seed,
            **overrides,
        )
    mdm = keras_mdm.MDM.from_preset(
        preset, dtype=args.dtype, seed=args.seed, **overrides
    )
    needed = mdm.batch_spec.num_classes
    wrong = needed is not None and needed != source.num_classes
    if wrong or (needed is not None and args.unconditional):
        raise ValueError(
            f"preset '{preset}' is conditional on {needed} classes, and the data set "
            f"'{args.dataset}' has {source.num_classes or 'no'} classes."
        )
    return mdm


def sample_options(args, mdm, class_names):
    """Arguments of `SampleGrid`."""
    options = training.sampling_options(args, mdm)
    num_classes = mdm.batch_spec.num_classes
    if num_classes is None:
        return {**options, "num_samples": args.num_samples}
    labels = common.spread_labels(args.num_samples, num_classes)
    titles = [common.class_title(label, class_names) for label in labels]
    return {**options, "labels": labels, "titles": titles}


def train(args, parser):
    output, args = training.begin(args, parser)

    from keras_mdm import data

    source = data.open_source(args.dataset, args.split, args.data_dir)
    if source.is_video:
        raise ValueError(f"the data set '{args.dataset}' has clips, not pictures.")
    args.preset = choose_preset(args, source)
    defaults = training.fill_defaults(args)
    mdm = make_model(args, source)
    conditional = mdm.batch_spec.num_classes is not None
    if source.num_classes is None and not args.unconditional:
        print(f"'{args.dataset}' has no labels: the model is trained unconditionally.")
    class_names = list(source.class_names or []) if conditional else None
    training.load_start(args, mdm)
    stages = training.make_stages(args, mdm, defaults)
    options = sample_options(args, mdm, class_names)
    make_dataset = training.dataset_maker(
        args, source, mdm, ("images", "labels") if conditional else ("images",)
    )
    training.fit(args, output, source, mdm, stages, make_dataset, options, class_names)


def main(arguments=None):
    training.run(train, *parse_arguments(arguments))


if __name__ == "__main__":
    main()
