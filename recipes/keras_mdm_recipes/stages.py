"""The stages of a run: what they are by default, and from settings to `Stage`s."""

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
# Of the presets for one card of 24 GiB: half a day a stage of pictures on one that
# reaches 50 TFLOP/s, says tools/plan.py.
BASE = {
    "stage.steps": [100_000],
    "stage.batch_size": [64, 16],
    "stage.learning_rate": [2e-4, 1e-4],
    "stage.warmup_steps": [1_000],
    "stage.decay": "constant",
    "stage.freeze_inner": False,
    "samples.sample_every": 5_000,
    "model.dtype": "mixed_bfloat16",
}
BASE_PRESETS = {
    **dict.fromkeys(("mdm_base_64", "mdm_base_256", "mdm_base_256_text"), BASE),
    # A clip costs as much as a score of pictures.
    "mdm_base_128v": {
        **BASE,
        "stage.steps": [100_000, 20_000],
        "stage.batch_size": [64, 8],
    },
}
# Settings with a value for each stage.
PER_STAGE = ("steps", "batch_size", "learning_rate", "warmup_steps")


# Settings by which a run is divided into epochs.
EPOCHS = ("run.save_every", "samples.sample_every", "run.averages_every")


def fill_defaults(recipe, settings):
    """Sets what was not given: the paper's settings for its presets, and so on.

    Returns:
        dict of all of them for `make_stages`, which knows how many stages there are.
    """
    preset = settings.model.preset
    small = BASE_PRESETS.get(preset, recipe.SMALL)
    defaults = PAPER if preset in PAPER_PRESETS else small
    if settings.stage.optimizer == "schedule_free_adamw":
        defaults = {**defaults, "stage.decay": "constant"}
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
        given.resolutions = sorted(mdm.network.levels, key=level_size)
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
    every = {key: settings.get(key) for key in EPOCHS}
    every = {key: steps for key, steps in every.items() if steps is not None}
    for key, steps in every.items():
        if steps < 1:
            raise ValueError(f"{key} must be at least 1. Received: {steps}")
    stages = []
    for i, resolution in enumerate(resolutions):
        network = mdm.network.at_level(resolution)
        active = network.levels
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
                    and not isinstance(network, keras_mdm.InflatedUNet)
                ),
                accumulate=given.accumulate,
                decay=given.decay,
                decay_reference=given.decay_reference,
                optimizer=given.optimizer,
                steps_per_epoch=min(every.values()),
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
