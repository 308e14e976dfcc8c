"""From the settings of a training recipe to a finished run folder.

A training recipe is a module with `NAME`, `DEFAULTS` (settings), `SMALL` (those of
small presets) and the functions `open_source(settings)`, `make_model(settings, source)`
and `make_grid(settings, source, mdm)`.
"""

import dataclasses
import functools
import pathlib
import random
import sys

from keras_mdm_recipes import averages, command_line, devices, stages, start, trackers
from keras_mdm_recipes.check import learn_one_batch
from keras_mdm_recipes.nearest import write_nearest
from keras_mdm_recipes.plot import plot_losses
from keras_mdm_recipes.report import write_report
from keras_mdm_recipes.run_folder import (
    only_process,
    saved_settings,
    skipped_writer,
    write_config,
)


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
    """
    with start.errors_as_lines():
        settings, begin = command_line.parse(recipe, arguments)
        output = pathlib.Path(settings.run.output)
        settings.run.backend = start.choose_backend(
            settings.run.backend, settings.run.cache_dir
        )

        try:
            train(recipe, settings, output, begin)
        except (KeyboardInterrupt, SystemExit) as end:
            again = f"Go on with\n  {program(recipe.NAME)} --output {output} --resume"
            if begin.changes:  # The last state may be from before them.
                again = " ".join([again, *begin.changes])
            if begin.check:
                again = "Nothing was written."
            elif not (output / "config.json").is_file():
                again = "The run had not begun."
            end.add_note(again)
            raise


def train(recipe, settings, output, begin):
    """Runs the stages and writes the run folder, or makes the check alone.

    Settings that were not given are filled in.
    """
    # What Keras draws the seeds of weights from. Its own `set_random_seed` imports
    # TensorFlow.
    random.seed(settings.run.seed)
    process, processes = devices.prepare(**dataclasses.asdict(settings.devices))

    import keras

    import keras_mdm
    from keras_mdm import callbacks, paths
    from keras_mdm.text_files import printable

    source = recipe.open_source(settings)
    devices.check_agreement(
        {
            **saved_settings(settings),
            **dataclasses.asdict(begin),
            source.noun: len(source),
        }
    )
    defaults = stages.fill_defaults(recipe, settings)
    settings.fill({"model.dtype": start.default_dtype()})
    mdm = recipe.make_model(settings, source)
    if settings.model.start_from not in (None, "none"):
        mdm.load_weights(settings.model.start_from)
        print(f"Starting from the weights of '{settings.model.start_from}'.")
    plan = stages.make_stages(settings, mdm, defaults)
    sampling = sampling_options(settings, mdm)
    grid = recipe.make_grid(settings, source, mdm)
    shard = (process, processes)
    make_dataset = dataset_maker(settings, source, mdm, grid, shard)
    schedule = keras_mdm.ProgressiveSchedule(plan)
    schedule.check(mdm)
    devices.check_batches(plan)
    for stage in plan:
        # The largest stage may find pictures too small: say so before the first.
        next(iter(make_dataset(stage)))
    if begin.check:
        learn_one_batch(mdm, plan[-1], make_dataset)
        return
    tracker = trackers.find(settings.run.tracker)
    with only_process(output, process):
        if process == 0 and tracker is not None:
            trackers.start(tracker, output.name, saved_settings(settings))
        config = functools.partial(
            write_config, output, recipe, settings, mdm, plan, grid.class_names
        )
        if not begin.resume:
            config()
        skipped = skipped_writer(output, source, begin.resume)
        also = {"on_epoch_end": skipped}
        if begin.changes:  # Once none of them was refused.
            also["on_stage_begin"] = lambda *_: config()
        print(
            f"{len(source)} {source.noun} of '{printable(settings.data.dataset)}', "
            f"{mdm.network.count_params():,} parameters, "
            f"backend {settings.run.backend}; writing to {output}",
            flush=True,
        )
        logs, reports = None, []
        if process == 0:
            logs = paths.own_folder(output, "logs")
            history = callbacks.History(
                output / "history.csv", log_dir=logs, tracker=tracker
            )
            levels = callbacks.NoiseLevels(output / "noise_levels.csv", log_dir=logs)
            reports = [callbacks.Progress(), history, levels]
        drawing = callbacks.SampleGrid(
            paths.own_folder(output, "samples"),
            settings.samples.sample_every,
            log_dir=logs,
            **sampling,
            **grid.options,
        )
        schedule.fit(
            mdm,
            make_dataset,
            callbacks=[
                callbacks.LossGuard(),
                *reports,
                *averages.callbacks(settings, output),
                drawing,
                keras.callbacks.LambdaCallback(**also),
            ],
            checkpoint_dir=paths.own_folder(output, "state"),
            resume=begin.resume,
            verbose=0,
            keep_every=settings.run.keep_every,
            data=source.contents(),
            allow_changed=tuple(dict.fromkeys(_parts(begin.changes))),
        )
        mdm.save_to_preset(output / "preset", overwrite=True)
        skipped()
        if process == 0:
            if not source.is_video:
                write_nearest(
                    output / "samples" / "nearest.png",
                    source,
                    drawing.drawn,
                    drawing.titles,
                    settings.data.upscale,
                )
            plot_losses(output / "history.csv", output / "losses.png")
            write_report(output)
            if tracker is not None:
                trackers.finish(tracker)
    last = f"stage{len(plan)}_{plan[-1].resolution}px.*"
    pictures = next((output / "samples").glob(last), output / "samples")
    if source.skipped or source.notes:
        print(source.report())
    print(
        f"Done. Model: {output / 'preset'}  Report: {output / 'report.html'}\n"
        f"Pictures: {pictures}\n"
        f"Draw more: {program('sample')} {output}"
    )


def _parts(changes):
    """What `ProgressiveSchedule` calls the settings that may differ."""
    for name in changes:
        section = name.partition(".")[0]
        if section == "stage" or name in stages.EPOCHS:
            yield from ("stages", "optimizers")
        if section in ("data", "model"):
            yield section
        if name in ("run.seed", "run.averages_every"):
            yield "model"


def model_options(settings):
    """Arguments of `MDM.from_preset` that replace what the preset says."""
    names = (
        "dtype",
        "prediction",
        "loss_target",
        "loss_weighting",
        "schedule",
        "condition_dropout",
        "ema_momentum",
        "remat",
    )
    given = {name: getattr(settings.model, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if settings.run.averages_every is not None:
        given["power_averages"] = averages.KEPT
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


def dataset_maker(settings, source, mdm, grid, shard=(0, 1)):
    """The function from a stage to its data set, of which `shard` is read here."""
    from keras_mdm import data
    from keras_mdm.levels import read_level

    def make_dataset(stage):
        return data.make_dataset(
            data.at_level(source, stage.resolution),
            read_level(stage.resolution)[1],
            stage.batch_size // shard[1],
            shard=shard,
            seed=settings.run.seed,
            flip=settings.data.flip,
            crop=settings.data.crop,
            upscale=settings.data.upscale,
            repeat=True,
            num_workers=settings.data.num_workers,
            channels=mdm.network.image_channels,
            keep=grid.keep,
            micro_conditioning=mdm.batch_spec.optional,
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


def program(name):
    """How the user calls a program, by how this one was called."""
    called = pathlib.Path(sys.argv[0])
    if called.suffix != ".py":
        return f"keras-mdm {name}"
    files = {"train-text": "train_text_to_image"}
    name = files.get(name, name.replace("-", "_"))
    return f"python {called.with_name(name + '.py')}"
