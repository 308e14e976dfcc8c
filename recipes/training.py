"""What the training recipes do alike: from flags to stages, the run itself, its end.

Nothing here imports Keras at the top: `begin` chooses the backend before that.
"""

import pathlib
import random
import sys

import common
import run_folder

# Of the first, the second and every later stage of the small presets, for a CPU: most
# is learned at the lowest resolution, and a large picture teaches as much as several
# small ones. A doll that starts from the enlarged picture of the one inside it is
# spoilt by a rate at which that one learns well.
SMALL_STAGES = {
    "steps": (1200, 80, 80),
    "batch_size": (16, 8, 4),
    "learning_rate": (3e-3, 7e-4),
    "warmup_steps": (20,),
}
# As printed for the MDM baseline in Kaleido (arXiv 2405.21048), appendix B: 400,000
# steps at 64 pixels first, then 400,000 more. What the last stage of the 1024-pixel
# model took, or any of a video model, is not printed.
PAPER_STAGES = {
    "steps": (400_000,),
    "batch_size": (512,),
    "learning_rate": (1e-4,),
    "warmup_steps": (10_000,),
}
PAPER_PRESETS = tuple(
    f"mdm_{size}{kind}" for size in ("s64", "s256", "s1024") for kind in ("", "_text")
) + ("mdm_s64v", "mdm_s256v")
SMALL = {"decay": "cosine", "freeze_inner": True}
PAPER = {
    "decay": "constant",
    "freeze_inner": False,
    "sample_every": 10_000,
    "dtype": "mixed_bfloat16",
}


def fill_defaults(args, small_stages=SMALL_STAGES, **small):
    """Sets what was not given: the paper's settings for its presets.

    Args:
        args: Flags, changed in place.
        small_stages: dict as `make_stages` takes it, for any other preset.
        **small: Further settings for any other preset.

    Returns:
        dict for `make_stages`.
    """
    paper = args.preset in PAPER_PRESETS
    for name, value in (PAPER if paper else {**SMALL, **small}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return PAPER_STAGES if paper else small_stages


def begin(args, parser):
    """Chooses the run folder, the backend and the seed.

    Returns:
        A pair: path of the run folder, and the arguments; on `--resume` those of the
        run.
    """
    output, args = run_folder.check_output(args, parser)
    args.backend = common.choose_backend(args.backend, args.preset)
    # What Keras draws the seeds of weights from. Its own `set_random_seed` imports
    # TensorFlow.
    random.seed(args.seed)
    return output, args


def model_options(args):
    """Arguments of `MDM.from_preset` that replace what the preset says."""
    names = (
        "prediction",
        "loss_target",
        "loss_weighting",
        "condition_dropout",
        "ema_momentum",
    )
    given = {name: getattr(args, name) for name in names}
    if args.remat is not None:
        given["remat"] = args.remat or True
    return {name: value for name, value in given.items() if value is not None}


def readable(source, count):
    """Yields up to `count` items that can be read, the first ones."""
    found = 0
    for index in range(min(len(source), count + 100)):
        try:
            item = source[index]
        except ValueError:  # Damaged: skipped and counted.
            continue
        found += 1
        yield item
        if found == count:
            return
    if not found:
        raise ValueError(f"no picture can be read. {source.report()}")


def picture_size(source):
    """Shorter side of the first picture that can be read."""
    return min(next(readable(source, 1))["image"].shape[:2])


def make_stages(args, mdm, defaults):
    """The stages that the arguments ask for, smallest resolution first.

    Args:
        args: Flags of `training_flags.add_stage_flags`.
        mdm: `MDM`.
        defaults: dict by flag: values of the first stages, for flags that were not
            given. Further stages have that of the last.

    Returns:
        List of `Stage`.
    """
    import keras_mdm
    from keras_mdm.levels import level_size

    resolutions = args.resolutions or sorted(mdm.network.resolutions, key=level_size)
    if sorted(set(resolutions), key=level_size) != resolutions:
        raise ValueError(f"--resolutions must rise. Received: {resolutions}")
    save_every = min(args.save_every, args.sample_every or args.save_every)
    columns = {}
    for name, default in defaults.items():
        count = len(resolutions)
        if getattr(args, name) is None:
            missing = count - len(default)
            setattr(args, name, [*default[:count], *default[-1:] * missing])
        values = getattr(args, name)
        if len(values) not in (1, count):
            raise ValueError(
                f"--{name.replace('_', '-')} must have one value, or one for each of "
                f"the {count} stages. Received: {values}"
            )
        columns[name] = values if len(values) > 1 else values * count
    stages = []
    for i, resolution in enumerate(resolutions):
        doll = mdm.network.doll(resolution)
        active = doll.resolutions
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
                # An inner doll that no stage before has trained must be trained now,
                # and so must one whose layers denoise frames from now on.
                freeze_inner=(
                    args.freeze_inner
                    and i > 0
                    and active[1] == resolutions[i - 1]
                    and not isinstance(doll, keras_mdm.InflatedUNet)
                ),
                accumulate=args.accumulate,
                decay=args.decay,
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


def load_start(args, mdm):
    """Loads the weights of `--start-from`."""
    if args.start_from not in (None, "none"):
        mdm.load_weights(args.start_from)
        print(f"Starting from the weights of '{args.start_from}'.", flush=True)


def sampling_options(args, mdm):
    """Arguments of `SampleGrid` that do not depend on the condition."""
    given = {
        "sampler": args.sampler,
        "num_steps": args.sampling_steps,
        "guidance_scale": args.guidance_scale,
    }
    mdm.sampling.override(**given)  # Raises an error for a wrong value.
    if args.num_samples < 1:
        raise ValueError(f"--num-samples must be at least 1. Got {args.num_samples}.")
    return {**given, "seed": args.seed}


def dataset_maker(args, source, mdm, keep, embeddings=None):
    """The function from a stage to its data set.

    Args:
        args: Flags of `training_flags.add_data_flags`.
        source: `keras_mdm.data.Source`.
        mdm: `MDM`.
        keep: Tuple of what a batch has; see `keras_mdm.data.make_dataset`.
        embeddings: Optional `EmbeddingShards`.
    """
    from keras_mdm import data
    from keras_mdm.levels import read_level

    def make_dataset(stage):
        return data.make_dataset(
            data.at_level(source, stage.resolution),
            read_level(stage.resolution)[1],
            stage.batch_size,
            seed=args.seed,
            flip=args.flip,
            crop=args.crop,
            upscale=args.upscale,
            repeat=True,
            num_workers=args.num_workers,
            channels=mdm.network.image_channels,
            keep=keep,
            micro_conditioning=mdm.batch_spec.optional,
            embeddings=embeddings,
        )

    return make_dataset


def fit(
    args,
    output,
    source,
    mdm,
    stages,
    make_dataset,
    grid_options,
    class_names=None,
):
    """Runs the stages and writes the run folder.

    Args:
        args: All flags.
        output: Path of the run folder.
        source: `keras_mdm.data.Source`.
        mdm: `MDM`.
        stages: List of `Stage`.
        make_dataset: Callable from `Stage` to a data set.
        grid_options: dict of arguments of `SampleGrid`.
        class_names: List of str, or `None`.
    """
    import keras_mdm
    from keras_mdm import callbacks

    schedule = keras_mdm.ProgressiveSchedule(stages)
    schedule.check(mdm)
    for stage in stages:
        # The largest stage may find pictures too small: say so before the first.
        next(iter(make_dataset(stage)))
    if not args.resume:
        run_folder.write_config(output / "config.json", args, mdm, stages, class_names)
    print(
        f"{len(source)} {source.noun} of '{args.dataset}', "
        f"{mdm.network.count_params():,} parameters, backend {args.backend}; "
        f"writing to {output}"
    )
    logs = output / "logs"
    grid = callbacks.SampleGrid(
        output / "samples", args.sample_every, log_dir=logs, **grid_options
    )
    schedule.fit(
        mdm,
        make_dataset,
        callbacks=[
            callbacks.StopOnNaN(),
            callbacks.Progress(),
            callbacks.History(output / "history.csv", log_dir=logs),
            grid,
        ],
        checkpoint_dir=output / "state",
        resume=args.resume,
        verbose=0,
    )
    mdm.save_to_preset(output / "preset", overwrite=True)
    common.plot_losses(output / "history.csv", output / "losses.png")
    last = f"stage{len(stages)}_{stages[-1].resolution}px.*"
    found = list((output / "samples").glob(last))
    if not found:
        # The run was stopped between its last step and its last grid.
        grid.set_model(mdm)
        grid.on_stage_begin(len(stages) - 1, stages[-1])
        found = [grid.draw("")]
    if source.skipped or source.notes:
        print(source.report())
    print(
        f"Done. Model: {output / 'preset'}  Losses: {output / 'losses.png'}\n"
        f"Pictures: {found[0]}\n"
        f"Draw more: python recipes/sample.py {output}"
    )


def run(train, args, parser):
    """Calls `train(args, parser)`, as the main program of a recipe.

    Mistakes of the user end it with a line, and an interrupted run is told how to go
    on.
    """

    def told():
        try:
            train(args, parser)
        except (KeyboardInterrupt, SystemExit) as end:
            code = 130 if isinstance(end, KeyboardInterrupt) else end.code
            if code not in (130, 143):
                raise
            if not (pathlib.Path(args.output) / "config.json").is_file():
                print("\nInterrupted before the run began.", file=sys.stderr)
            else:
                print(
                    f"\nInterrupted. Go on with\n"
                    f"  python {sys.argv[0]} --output {args.output} --resume",
                    file=sys.stderr,
                )
            sys.exit(code)

    common.call(told)
