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
import pathlib
import random
import sys
import traceback

import common
import run_folder
import training_flags


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=common.HelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, help="run folder to write; new, or empty")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --output, with the settings in its config.json",
    )
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
    common.backend_choices(parser)
    add("--seed", type=int, default=0, help="of weights, noise, order and samples")
    add("--unconditional", action="store_true", help="do not use the labels")

    training_flags.add_stage_flags(parser)

    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--split", default="train", help="split of the data set")
    add("--data-dir", help="where TFDS keeps its sets (default: that of TFDS)")
    add("--crop", choices=("center", "random"), default="center", help="to a square")
    add("--flip", action="store_true", help="mirror half of the pictures")
    add("--upscale", action="store_true", help="enlarge small pictures, not skip them")
    add("--num-workers", type=int, default=0, help="processes that read pictures")

    training_flags.add_model_flags(parser)
    return parser.parse_args(arguments), parser


# Steps of the first, the second and every later stage.
DEFAULT_STEPS = (500, 250, 60)


def make_model(args, source):
    """The model for the data: a built-in preset takes its classes and channels."""
    import keras_mdm

    preset = args.preset
    if preset is None:
        preset = "mdm_tiny_64" if picture_size(source) >= 64 else "mdm_tiny_32"
    overrides = {
        key: getattr(args, key)
        for key in (
            "prediction",
            "loss_target",
            "loss_weighting",
            "condition_dropout",
            "ema_momentum",
        )
        if getattr(args, key) is not None
    }
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


def picture_size(source):
    """Shorter side of the first picture that can be read."""
    for index in range(min(len(source), 100)):
        try:
            return min(source[index]["image"].shape[:2])
        except ValueError:  # Damaged: skipped and counted.
            continue
    raise ValueError(f"no picture can be read. {source.report()}")


def make_stages(args, mdm):
    """The stages that the arguments ask for, smallest resolution first."""
    import keras_mdm

    resolutions = args.resolutions or sorted(mdm.network.resolutions)
    if sorted(set(resolutions)) != resolutions:
        raise ValueError(f"--resolutions must rise. Received: {resolutions}")
    save_every = min(args.save_every, args.sample_every or args.save_every)
    if args.steps is None:
        count = len(resolutions)
        args.steps = [*DEFAULT_STEPS[:count], *DEFAULT_STEPS[-1:] * (count - 3)]
    columns = {}
    for name in ("steps", "batch_size", "learning_rate", "warmup_steps"):
        values = getattr(args, name)
        if len(values) not in (1, len(resolutions)):
            raise ValueError(
                f"--{name.replace('_', '-')} must have one value, or one for each of "
                f"the {len(resolutions)} stages. Received: {values}"
            )
        columns[name] = values if len(values) > 1 else values * len(resolutions)
    stages = []
    for i, resolution in enumerate(resolutions):
        active = mdm.network.doll(resolution).resolutions
        given = {key: values[i] for key, values in columns.items()}
        if args.max_steps is not None:
            given["steps"] = min(given["steps"], args.max_steps)
        mixed = {r: share for r, share in args.mixed or () if r in active}
        weights = {r: weight for r, weight in args.loss_weights or () if r in active}
        stages.append(
            keras_mdm.Stage(
                resolution,
                mixed=mixed if len(mixed) > 1 else None,
                loss_weights=weights or None,
                freeze_inner=args.freeze_inner and i > 0,
                accumulate=args.accumulate,
                steps_per_epoch=save_every,
                **given,
            )
        )
    for name in ("mixed", "loss_weights"):
        unknown = {r for r, _ in getattr(args, name) or ()} - set(active)
        if unknown:
            raise ValueError(
                f"--{name.replace('_', '-')} must have resolutions among {active}. "
                f"Received: {sorted(unknown)}"
            )
    return stages


def sample_options(args, mdm, class_names):
    """Arguments of `SampleGrid`."""
    given = {
        "sampler": args.sampler,
        "num_steps": args.sampling_steps,
        "guidance_scale": args.guidance_scale,
    }
    mdm.sampling.override(**given)  # Raises an error for a wrong value.
    if args.num_samples < 1:
        raise ValueError(f"--num-samples must be at least 1. Got {args.num_samples}.")
    options = {**given, "seed": args.seed}
    num_classes = mdm.batch_spec.num_classes
    if num_classes is None:
        return {**options, "num_samples": args.num_samples}
    labels = common.spread_labels(args.num_samples, num_classes)
    titles = [common.class_title(label, class_names) for label in labels]
    return {**options, "labels": labels, "titles": titles}


def train(args, parser):
    output, args = run_folder.check_output(args, parser)
    args.backend = common.choose_backend(args.backend)

    import keras_mdm
    from keras_mdm import backend, callbacks, data

    # What Keras draws the seeds of weights from. Its own `set_random_seed` imports
    # TensorFlow.
    random.seed(args.seed)
    backend.keep_freed_memory()
    source = data.open_source(args.dataset, args.split, args.data_dir)
    if source.is_video:
        raise ValueError(f"the data set '{args.dataset}' has clips, not pictures.")
    mdm = make_model(args, source)
    conditional = mdm.batch_spec.num_classes is not None
    if source.num_classes is None and not args.unconditional:
        print(f"'{args.dataset}' has no labels: the model is trained unconditionally.")
    class_names = list(source.class_names or []) if conditional else None
    stages = make_stages(args, mdm)
    schedule = keras_mdm.ProgressiveSchedule(stages)
    schedule.check(mdm)
    options = sample_options(args, mdm, class_names)

    def make_dataset(stage):
        return data.make_dataset(
            source,
            stage.resolution,
            stage.batch_size,
            seed=args.seed,
            flip=args.flip,
            crop=args.crop,
            upscale=args.upscale,
            repeat=True,
            num_workers=args.num_workers,
            channels=mdm.network.image_channels,
            keep=("images", "labels") if conditional else ("images",),
        )

    for stage in stages:
        # The largest stage may find pictures too small: say so before the first.
        next(iter(make_dataset(stage)))
    if not args.resume:
        run_folder.write_config(output / "config.json", args, mdm, stages, class_names)
    print(
        f"{len(source)} pictures of '{args.dataset}', "
        f"{mdm.network.count_params():,} parameters, backend {args.backend}; "
        f"writing to {output}"
    )
    grid = callbacks.SampleGrid(
        output / "samples", args.sample_every, log_dir=output / "logs", **options
    )
    schedule.fit(
        mdm,
        make_dataset,
        callbacks=[
            callbacks.StopOnNaN(),
            callbacks.Progress(),
            callbacks.History(output / "history.csv", log_dir=output / "logs"),
            grid,
        ],
        checkpoint_dir=output / "state",
        resume=args.resume,
        verbose=0,
    )
    mdm.save_to_preset(output / "preset", overwrite=True)
    common.plot_losses(output / "history.csv", output / "losses.png")
    last = f"stage{len(stages)}_{stages[-1].resolution}px.png"
    if not (output / "samples" / last).is_file():
        # The run was stopped between its last step and its last grid.
        grid.set_model(mdm)
        grid.on_stage_begin(len(stages) - 1, stages[-1])
        grid.draw("")
    if source.skipped:
        print(source.report())
    print(
        f"Done. Model: {output / 'preset'}  Losses: {output / 'losses.png'}\n"
        f"Pictures: {output / 'samples' / last}\n"
        f"Draw more: python recipes/sample.py {output}"
    )


def main(arguments=None):
    args, parser = parse_arguments(arguments)
    try:
        train(args, parser)
    except KeyboardInterrupt:
        state = pathlib.Path(args.output) / "config.json"
        if not state.is_file():
            sys.exit("\nInterrupted before the run began; nothing was written.")
        sys.exit(
            f"\nInterrupted. Go on from the last saved state with\n"
            f"  python recipes/train_image.py --output {args.output} --resume"
        )
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if not isinstance(error, ValueError):
            traceback.print_exc()
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
