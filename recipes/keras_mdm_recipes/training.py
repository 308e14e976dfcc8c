"""From the settings of a training recipe to a finished run folder.

A training recipe is a module with `NAME`, `DEFAULTS` (settings), `SMALL` (those of
small presets) and the functions `open_source(settings)`, `make_model(settings, source)`
and `make_grid(settings, source, mdm)`.
"""

import dataclasses
import json
import pathlib
import random
import sys

from keras_mdm_recipes import command_line, start
from keras_mdm_recipes.plot import plot_losses

# Of the first, the second and every later stage of the small presets, for a CPU: most
# is learned at the lowest resolution, and a large picture teaches as much as several
# small ones. A level that starts from the enlarged picture of the one inside it is
# spoilt by a rate at which that one learns well.
SMALL = {
    "stage.steps": [1200, 80, 80],
    "stage.batch_size": [16, 8, 4],
    "stage.learning_rate": [3e-3, 7e-4],
    "stage.warmup_steps": [20],
    "stage.decay": "cosine",
    "stage.freeze_inner": True,
}
# As printed for the MDM baseline in Kaleido (arXiv 2405.21048), appendix B: 400,000
# steps at 64 pixels first, then 400,000 more. What the last stage of the 1024-pixel
# model took, or any of a video model, is not printed.
PAPER = {
    "stage.steps": [400_000],
    "stage.batch_size": [512],
    "stage.learning_rate": [1e-4],
    "stage.warmup_steps": [10_000],
    "stage.decay": "constant",
    "stage.freeze_inner": False,
    "samples.sample_every": 10_000,
    "model.dtype": "mixed_bfloat16",
}
PAPER_PRESETS = tuple(
    f"mdm_{size}{kind}" for size in ("s64", "s256", "s1024") for kind in ("", "_text")
) + ("mdm_s64v", "mdm_s256v")
# Settings with a value for each stage.
PER_STAGE = ("steps", "batch_size", "learning_rate", "warmup_steps")


@dataclasses.dataclass
class Grid:
    """What a recipe makes of its data for batches and for the grids of samples.

    Attributes:
        keep: Tuple of what a batch has; see `keras_mdm.data.make_dataset`.
        options: dict of arguments of `SampleGrid`.
        class_names: List of str, or `None`.
        embeddings: Optional `EmbeddingShards`.
    """

    keep: tuple
    options: dict
    class_names: list | None = None
    embeddings: object = None


def run(recipe, arguments=None):
    """The main program of a training recipe.

    Mistakes of the user end it with a line, and an interrupted run is told how to go
    on.

    Args:
        recipe: Module.
        arguments: List of str. Defaults to those of the program.
    """

    def told():
        settings, resume = command_line.parse(recipe, arguments)
        output = pathlib.Path(settings.run.output)
        try:
            train(recipe, settings, output, resume)
        except (KeyboardInterrupt, SystemExit) as end:
            code = 130 if isinstance(end, KeyboardInterrupt) else end.code
            if code not in (130, 143):
                raise
            again = f"Go on with\n  {program(recipe.NAME)} --output {output} --resume"
            if not (output / "config.json").is_file():
                again = "The run had not begun."
            print(f"\nInterrupted. {again}", file=sys.stderr)
            sys.exit(code)

    start.call(told)


def train(recipe, settings, output, resume):
    """Runs the stages and writes the run folder.

    Args:
        recipe: Module.
        settings: `Settings`, whose missing values are filled in.
        output: Path of the run folder.
        resume: bool.
    """
    settings.run.backend = start.choose_backend(settings.run.backend)
    # What Keras draws the seeds of weights from. Its own `set_random_seed` imports
    # TensorFlow.
    random.seed(settings.run.seed)

    import keras_mdm
    from keras_mdm import callbacks

    source = recipe.open_source(settings)
    defaults = fill_defaults(recipe, settings)
    mdm = recipe.make_model(settings, source)
    if settings.model.start_from not in (None, "none"):
        mdm.load_weights(settings.model.start_from)
        print(f"Starting from the weights of '{settings.model.start_from}'.")
    stages = make_stages(settings, mdm, defaults)
    sampling = sampling_options(settings, mdm)
    grid = recipe.make_grid(settings, source, mdm)
    make_dataset = dataset_maker(settings, source, mdm, grid)
    schedule = keras_mdm.ProgressiveSchedule(stages)
    schedule.check(mdm)
    for stage in stages:
        # The largest stage may find pictures too small: say so before the first.
        next(iter(make_dataset(stage)))
    if not resume:
        write_config(output, recipe, settings, mdm, stages, grid.class_names)
    print(
        f"{len(source)} {source.noun} of '{settings.data.dataset}', "
        f"{mdm.network.count_params():,} parameters, backend {settings.run.backend}; "
        f"writing to {output}",
        flush=True,
    )
    logs = output / "logs"
    drawing = callbacks.SampleGrid(
        output / "samples",
        settings.samples.sample_every,
        log_dir=logs,
        **sampling,
        **grid.options,
    )
    schedule.fit(
        mdm,
        make_dataset,
        callbacks=[
            callbacks.StopOnNaN(),
            callbacks.Progress(),
            callbacks.History(output / "history.csv", log_dir=logs),
            drawing,
        ],
        checkpoint_dir=output / "state",
        resume=resume,
        verbose=0,
    )
    mdm.save_to_preset(output / "preset", overwrite=True)
    plot_losses(output / "history.csv", output / "losses.png")
    found = list(
        (output / "samples").glob(f"stage{len(stages)}_{stages[-1].resolution}px.*")
    )
    if not found:
        # The run was stopped between its last step and its last grid.
        drawing.set_model(mdm)
        drawing.on_stage_begin(len(stages) - 1, stages[-1])
        found = [drawing.draw("")]
    if source.skipped or source.notes:
        print(source.report())
    print(
        f"Done. Model: {output / 'preset'}  Losses: {output / 'losses.png'}\n"
        f"Pictures: {found[0]}\n"
        f"Draw more: {program('sample')} {output}"
    )


def fill_defaults(recipe, settings):
    """Sets what was not given: the paper's settings for its presets.

    Returns:
        dict of all of them for `make_stages`, which knows how many stages there are.
    """
    paper = settings.model.preset in PAPER_PRESETS
    defaults = PAPER if paper else recipe.SMALL
    settings.fill({k: v for k, v in defaults.items() if not isinstance(v, list)})
    return defaults


def make_stages(settings, mdm, defaults):
    """The stages that the settings ask for, smallest resolution first.

    Args:
        settings: `Settings`. Its section `stage` is filled in.
        mdm: `MDM`.
        defaults: dict of key to the values of the first stages, for settings that were
            not given. Further stages have that of the last.

    Returns:
        List of `Stage`.
    """
    import keras_mdm
    from keras_mdm.levels import level_size

    given = settings.stage
    if given.resolutions is None:
        given.resolutions = sorted(mdm.network.resolutions, key=level_size)
    resolutions, count = given.resolutions, len(given.resolutions)
    if sorted(set(resolutions), key=level_size) != resolutions:
        raise ValueError(f"--resolutions must rise. Received: {resolutions}")
    columns = {}
    for name in PER_STAGE:
        values = getattr(given, name)
        if values is None:
            default = defaults[f"stage.{name}"]
            values = (default + default[-1:] * count)[:count]
            setattr(given, name, values)
        if len(values) not in (1, count):
            raise ValueError(
                f"stage.{name} must have one value, or one for each of the {count} "
                f"stages. Received: {values}"
            )
        columns[name] = values if len(values) > 1 else values * count
    if given.max_steps is not None:
        columns["steps"] = [min(steps, given.max_steps) for steps in columns["steps"]]
    save_every = settings.run.save_every
    save_every = min(save_every, settings.samples.sample_every or save_every)
    stages = []
    for i, resolution in enumerate(resolutions):
        doll = mdm.network.doll(resolution)
        active = doll.resolutions
        mixed = {r: part for r, part in (given.mixed or {}).items() if r in active}
        weights = {r: w for r, w in (given.loss_weights or {}).items() if r in active}
        stages.append(
            keras_mdm.Stage(
                resolution,
                mixed=mixed if len(mixed) > 1 else None,
                loss_weights=weights or None,
                # An inner network that no stage before has trained must be trained now,
                # and so must one whose layers denoise frames from now on.
                freeze_inner=(
                    given.freeze_inner
                    and i > 0
                    and active[1] == resolutions[i - 1]
                    and not isinstance(doll, keras_mdm.InflatedUNet)
                ),
                accumulate=given.accumulate,
                decay=given.decay,
                steps_per_epoch=save_every,
                **{name: values[i] for name, values in columns.items()},
            )
        )
    for name in ("mixed", "loss_weights"):
        unknown = {*(getattr(given, name) or ())} - {*active}
        if unknown:
            raise ValueError(
                f"stage.{name} must have resolutions among {active}. "
                f"Received: {sorted(unknown, key=level_size)}"
            )
    return stages


def model_options(settings):
    """Arguments of `MDM.from_preset` that replace what the preset says."""
    names = (
        "dtype",
        "prediction",
        "loss_target",
        "loss_weighting",
        "condition_dropout",
        "ema_momentum",
        "remat",
    )
    given = {name: getattr(settings.model, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    return {**given, "seed": settings.run.seed}


def sampling_options(settings, mdm):
    """Arguments of `SampleGrid` that do not depend on the condition."""
    names, samples = ("sampler", "num_steps", "guidance_scale"), settings.samples
    given = {name: getattr(samples, name) for name in names}
    mdm.sampling.override(**given)  # Raises an error for a wrong value.
    if samples.num_samples < 1:
        raise ValueError(
            f"samples.num_samples must be at least 1. Received: {samples.num_samples}"
        )
    return {**given, "seed": settings.run.seed}


def dataset_maker(settings, source, mdm, grid):
    """The function from a stage to its data set."""
    from keras_mdm import data
    from keras_mdm.levels import read_level

    def make_dataset(stage):
        return data.make_dataset(
            data.at_level(source, stage.resolution),
            read_level(stage.resolution)[1],
            stage.batch_size,
            seed=settings.run.seed,
            flip=settings.data.flip,
            crop=settings.data.crop,
            upscale=settings.data.upscale,
            repeat=True,
            num_workers=settings.data.num_workers,
            channels=mdm.network.image_channels,
            keep=grid.keep,
            numbers=mdm.batch_spec.optional,
            embeddings=grid.embeddings,
        )

    return make_dataset


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


def write_config(output, recipe, settings, mdm, stages, class_names):
    """Writes all that was chosen, as a new file that is there whole or not at all."""
    import importlib.metadata

    import keras

    from keras_mdm import files

    versions = {"python": sys.version.split()[0]}
    for name in ("keras-mdm", "keras", "numpy", keras.backend.backend(), "grain"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    config = {
        "recipe": recipe.NAME,
        "settings": dataclasses.asdict(settings),
        "dtype": mdm.network.dtype_policy.name,
        "versions": versions,
        "class_names": class_names,
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "parameters": mdm.network.count_params(),
        "model": mdm.get_config(),
    }
    text = json.dumps(config, indent=1, default=str)
    files.write_text(output / "config.json", text + "\n")


def program(name):
    """How the user calls a program, by how this one was called."""
    called = pathlib.Path(sys.argv[0])
    if called.suffix != ".py":
        return f"keras-mdm {name}"
    files = {"train-text": "train_text_to_image"}
    name = files.get(name, name.replace("-", "_"))
    return f"python {called.with_name(name + '.py')}"
