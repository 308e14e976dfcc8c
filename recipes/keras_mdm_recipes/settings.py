"""Every setting of the training recipes: its key, type, default and meaning.

Flags, `--set`, settings files, `config.json`, `--resume` and `--help` are all made from
these classes. A key is `section.name`, such as `stage.learning_rate`; settings with
`flag=True` are also given as `--learning-rate`. Nothing here imports Keras.
"""

import dataclasses
import difflib
import typing
from typing import Literal

from keras_mdm_recipes import start
from keras_mdm_recipes.sources import LIMITS_HELP
from keras_mdm_recipes.values import Level, Limits, Path

TEXT, VIDEO = "train-text", "train-video"
ON_TEXT = (TEXT, VIDEO)


def setting(default, help, flag=False, only=None, outside=False):
    """A field of the classes below.

    Args:
        default: Value, or `None` for what the recipe or the preset says.
        help: str.
        flag: bool. Whether it has a flag of its own.
        only: Names of the recipes that have it, or `None` for all.
        outside: bool. Whether it names what lies outside of the run; see `outside.py`.
    """
    metadata = {"help": help, "flag": flag, "only": only, "outside": outside}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Run:
    """Where and how a run is computed."""

    output: Path | None = setting(None, "run folder to write; new, or empty", flag=True)
    backend: Literal["jax", "tensorflow", "torch"] | None = setting(
        None,
        "Keras backend (default: that of KERAS_BACKEND, or else the first installed)",
        flag=True,
    )
    seed: int = setting(0, "of weights, noise, order and samples", flag=True)
    cache_dir: Path | None = setting(None, start.CACHE_HELP, outside=True)
    save_every: int = setting(500, "steps between states to resume", flag=True)
    tracker: Literal["wandb", "trackio"] | None = setting(
        None,
        "where figures are sent besides files: Weights & Biases or Trackio, by its own "
        "package and login",
        outside=True,
    )
    keep_every: int | None = setting(
        None, "of so many states one is kept for good, beside the newest three"
    )
    averages_every: int | None = setting(
        None,
        "steps between snapshots of two averages, some 20 in all, of 4 bytes a weight; "
        "--ema of sample and evaluate makes one of any length (default: none)",
    )


@dataclasses.dataclass
class Devices:
    """What a run is divided among; JAX alone."""

    data_parallel: bool = setting(
        False, "divide each batch among all devices of all processes (JAX)", flag=True
    )
    fsdp: bool = setting(
        False,
        "divide weights, averages and the optimizer's state among them too, for models "
        "that are too large for one device (JAX)",
        flag=True,
    )
    coordinator: str | None = setting(
        None,
        "HOST:PORT of process 0, if several hosts each run this command; 'auto' on TPU "
        "pods, SLURM and Open MPI",
        outside=True,
    )
    num_processes: int | None = setting(None, "how many processes run it")
    process_id: int | None = setting(None, "number of this one, from 0")
    connect_timeout: int = setting(
        300, "seconds until processes that do not find each other give up"
    )


@dataclasses.dataclass
class Data:
    """What is trained on."""

    dataset: str | None = setting(
        None,
        "'shapes', 'digits', 'folder:PATH', 'webdataset:PATH', 'clips:PATH', 'hf:NAME' "
        "or a TFDS set; see keras_mdm.data.open_source",
        flag=True,
        outside=True,
    )
    split: str = setting("train", "split of the data set")
    data_dir: Path | None = setting(None, "where TFDS keeps its sets", outside=True)
    crop: Literal["center", "random"] = setting("center", "to a square")
    flip: bool = setting(False, "mirror half of the pictures")
    upscale: bool = setting(False, "enlarge small pictures, not skip them")
    limits: Limits | None = setting(None, LIMITS_HELP, outside=True)
    num_workers: int | None = setting(
        None,
        "processes that read pictures (default: half of the cores, at most 8, if there "
        "are more than 2, and the data do not stay in memory)",
        flag=True,
    )
    num_frames: int | None = setting(
        None,
        "frames of a clip, as many as the model's or a multiple of them; needed where "
        "videos may differ in length",
        only=(VIDEO,),
    )
    frame_rate: float | None = setting(
        None,
        "frames a second, picked from video files by their time stamps (default: every "
        "frame)",
        only=(VIDEO,),
    )
    embeddings: Path | None = setting(
        None,
        "folder of tools/encode_captions.py, for presets on embeddings: the encoder is "
        "then needed for samples.prompts alone",
        only=ON_TEXT,
        outside=True,
    )


@dataclasses.dataclass
class Stages:
    """The stages of progressive training: one value for all, or one for each."""

    resolutions: list[Level] | None = setting(
        None,
        "resolution of each stage, such as 64, or 8x64 for clips of 8 frames (default: "
        "those of the preset, rising)",
        flag=True,
    )
    steps: list[int] | None = setting(None, "training steps", flag=True)
    max_steps: int | None = setting(
        None, "cap on the steps of each stage, for a quick try", flag=True
    )
    batch_size: list[int] | None = setting(None, "pictures a step", flag=True)
    learning_rate: list[float] | None = setting(None, "peak rate", flag=True)
    warmup_steps: list[int] | None = setting(None, "of the learning rate")
    decay: Literal["constant", "cosine", "inverse_square_root"] | None = setting(
        None,
        "what the learning rate does after the warm-up: stay, fall to zero at the end "
        "of each stage, or fall by a square root from stage.decay_reference on",
    )
    decay_reference: int | None = setting(
        None, "step of each stage from which inverse_square_root falls; needed by it"
    )
    optimizer: Literal["adamw", "muon", "schedule_free_adamw"] = setting(
        "adamw",
        "adamw, muon (orthogonal updates of kernels) or schedule_free_adamw, whose "
        "average takes the place of a decay",
    )
    mixed: dict[Level, float] | None = setting(
        None,
        "fractions of mixed-resolution batches, such as 64=2,32=1: part of each batch "
        "skips the larger resolutions (default: off)",
    )
    loss_weights: dict[Level, float] | None = setting(
        None, "weight of the loss of each resolution, such as 64=1,32=2 (default: 1)"
    )
    freeze_inner: bool | None = setting(
        None,
        "after the first stage, train only what the stage added, which takes less "
        "time; a stage that adds several levels, or frames to a network of pictures, "
        "trains all",
    )
    accumulate: int = setting(1, "batches averaged for one update")


@dataclasses.dataclass
class Model:
    """The network; what is not given is as the preset says."""

    preset: str | None = setting(
        None,
        "built-in preset or preset folder to start from",
        flag=True,
        outside=True,
    )
    dtype: str | None = setting(
        None,
        f"dtype policy {start.DTYPE_HELP}; of the paper's presets, "
        "mixed_bfloat16 everywhere",
        flag=True,
    )
    start_from: str | None = setting(
        None,
        "'none', or a trained preset or run folder: the largest network that it has in "
        "common with this model gives its weights",
        outside=True,
    )
    unconditional: bool = setting(False, "do not use the labels", only=("train-image",))
    tokens: Literal["words", "bytes"] | None = setting(
        None,
        "of the jointly trained encoder: words of the data set, or UTF-8 bytes "
        "(default: those of the preset for shapes, bytes for other data)",
        only=ON_TEXT,
    )
    max_tokens: int | None = setting(
        None,
        "longer captions are cut (default: the preset's 40 words, or 128 bytes)",
        only=ON_TEXT,
    )
    text_encoder: Path | None = setting(
        None,
        "folder of a Hugging Face T5 model, for presets on embeddings",
        only=ON_TEXT,
        outside=True,
    )
    schedule: str | None = setting(None, "noise schedule, such as cosine or flow")
    prediction: str | None = setting(None, "what is predicted, such as v or x0")
    loss_target: str | None = setting(None, "what the loss compares, such as v or x0")
    loss_weighting: str | None = setting(
        None, "weight of each noise level, such as uniform or min_snr"
    )
    condition_dropout: float | None = setting(None, "fraction of dropped conditions")
    ema_momentum: float | None = setting(None, "of the averaged weights")
    remat: list[Level] | bool | None = setting(
        None,
        "compute the activations of these resolutions (true: of all) again in the "
        "backward pass, which saves memory",
    )


@dataclasses.dataclass
class Samples:
    """The grids of pictures that are drawn in training."""

    sample_every: int | None = setting(
        None, "steps between grids (default: stage ends)", flag=True
    )
    num_samples: int | None = setting(None, "pictures in each grid")
    prompts: list[str] | None = setting(
        None,
        "what the grids show, a text or a JSON list of them (default: captions of the "
        "validation split of shapes, or the first ones of other data)",
        only=ON_TEXT,
    )
    sampler: str | None = setting(None, "sampler, such as ddim or dpm_solver")
    num_steps: int | None = setting(None, "sampler steps")
    guidance_scale: float | None = setting(None, "of the condition; 1 is none")


@dataclasses.dataclass
class Settings:
    """All settings of a run."""

    run: Run = dataclasses.field(default_factory=Run)
    devices: Devices = dataclasses.field(default_factory=Devices)
    data: Data = dataclasses.field(default_factory=Data)
    stage: Stages = dataclasses.field(default_factory=Stages)
    model: Model = dataclasses.field(default_factory=Model)
    samples: Samples = dataclasses.field(default_factory=Samples)

    @classmethod
    def of(cls, values):
        """Settings from a dict of key to value."""
        settings = cls()
        for key, value in values.items():
            settings.set(key, value)
        return settings

    def get(self, key):
        section, name = key.split(".")
        return getattr(getattr(self, section), name)

    def set(self, key, value):
        section, name = key.split(".")
        setattr(getattr(self, section), name, value)

    def fill(self, defaults):
        """Sets what was not given, from a dict of key to value."""
        for key, value in defaults.items():
            if self.get(key) is None:
                self.set(key, value)


def _fields():
    for section in dataclasses.fields(Settings):
        hints = typing.get_type_hints(section.type)
        for field in dataclasses.fields(section.type):
            yield f"{section.name}.{field.name}", (field, hints[field.name])


# Field and type by key.
FIELDS = dict(_fields())


def known(key, recipe):
    """The field and type of a key.

    Raises:
        ValueError: if the recipe has no such setting, with the closest and all.
    """
    keys = [k for k in FIELDS if has(recipe, k)]
    if key in keys:
        return FIELDS[key]
    if key in FIELDS:
        only = ", ".join(FIELDS[key][0].metadata["only"])
        raise ValueError(f"'{key}' is a setting of {only}, not of {recipe}.")
    close = closest(key, keys)
    hint = f"Did you mean '{close}'? " if close else ""
    raise ValueError(
        f"there is no setting '{key}'. {hint}Settings are: {', '.join(keys)}."
    )


def closest(name, keys=FIELDS):
    """The key that is most like a name, with or without its section, or `None`."""
    names = {key.split(".")[1]: key for key in keys}
    found = difflib.get_close_matches(name, keys, 1) or [
        names[last] for last in difflib.get_close_matches(name.split(".")[-1], names, 1)
    ]
    return found[0] if found else None


def has(recipe, key):
    """Whether a recipe has a setting."""
    return recipe in (FIELDS[key][0].metadata["only"] or (recipe,))
