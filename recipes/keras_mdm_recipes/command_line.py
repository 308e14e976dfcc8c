"""From a command line, a settings file or the run to resume to `Settings`."""

import argparse
import dataclasses
import pathlib
import textwrap
from typing import get_args, get_origin

from keras_mdm_recipes import outside, settings, start
from keras_mdm_recipes.values import convert

# Settings that may differ on `--resume`.
FREE = (
    "run.output",
    "run.backend",
    "run.cache_dir",
    "run.keep_every",
    "run.tracker",
    "data.data_dir",
    "data.num_workers",
    *(key for key in settings.FIELDS if key.startswith("devices.")),
)


@dataclasses.dataclass(frozen=True)
class Begin:
    """How a run begins.

    Attributes:
        resume: bool. Whether the run in the folder goes on.
        changes: Names of what may differ from it then.
        check: bool. Whether one batch is learned, and nothing written.
    """

    resume: bool = False
    changes: tuple = ()
    check: bool = False


def parse(recipe, arguments=None):
    """Reads what was asked for.

    Args:
        recipe: Module of a training recipe.
        arguments: List of str. Defaults to those of the program.

    Returns:
        A pair: `Settings` and `Begin`.
    """
    parser = argparse.ArgumentParser(
        description=recipe.__doc__,
        epilog=_epilog(recipe),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for key, (field, hint) in settings.FIELDS.items():
        if field.metadata["flag"]:
            name = key.split(".")[1].replace("_", "-")
            several = any(get_origin(part) is list for part in get_args(hint))
            options = {"dest": key, "help": _help(recipe, key)}
            if hint is bool:
                parser.add_argument(
                    f"--{name}", action="store_const", const=True, **options
                )
                continue
            parser.add_argument(
                f"--{name}",
                metavar=name.rpartition("-")[2].upper(),
                nargs="+" if several else None,
                required=key == "run.output",
                **options,
            )
    parser.add_argument(
        "--resume",
        nargs="*",
        metavar="CHANGE",
        help="go on with the run in --output, with the settings in its config.json but "
        "for the changes named here: settings such as stage.steps, or 'data', the "
        "pictures, classes and captions themselves",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing: learn one batch by heart, and say whether model, data and "
        "schedule learn at all",
    )
    parser.add_argument(
        "--config",
        type=start.path,
        metavar="FILE",
        help="JSON file of settings, such as the config.json of a run",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any setting: those below, or those with flags, such as stage.steps",
    )
    given, rest = parser.parse_known_args(arguments)
    if rest:
        close = settings.closest(rest[0].lstrip("-").replace("-", "_"))
        hint = f". Did you mean --set {close}=...?" if close else ""
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    given = vars(given)
    names = ("resume", "check", "config", "set")
    changes, check, file, texts = (given.pop(name) for name in names)
    for name in changes or ():
        if name != "data":
            settings.known(name, recipe.NAME)
    values = {}
    for key, value in given.items():
        if value is not None:
            flag = f"--{key.split('.')[1].replace('_', '-')}"
            values[key] = _converted(recipe.NAME, key, value, flag)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE. Received: {text!r}")
        values[key] = _converted(recipe.NAME, key, value, f"--set {key}")
    if file:
        read = read_config(recipe.NAME, file)
        outside.check(file, read, values)
        values = read | values
    if not check:
        check_output(pathlib.Path(values["run.output"]), changes is not None)
    if changes is not None:
        values = _resumed(recipe, values, changes)
    found = settings.Settings.of(values)
    found.fill(recipe.DEFAULTS)
    return found, Begin(changes is not None, tuple(changes or ()), check)


def read_config(recipe, file):
    """Settings in a file, by key: nested sections, or a run's `config.json`.

    Raises:
        ValueError: if it can't be read, or has settings that the recipe has not.
    """
    tree = start.read_json(pathlib.Path(file))
    if "recipe" in tree:
        if "settings" not in tree:
            raise ValueError(f"'{file}' has no settings: it is of another version.")
        tree = tree["settings"]
    if not isinstance(tree, dict):
        raise ValueError(f"'{file}' is damaged: its settings are no JSON object.")
    values = {}
    for section, names in tree.items():
        if not isinstance(names, dict):
            settings.known(section, recipe)
        for name, value in names.items():
            key = f"{section}.{name}"
            if key in settings.FIELDS and value == settings.FIELDS[key][0].default:
                continue  # Also of another recipe.
            values[key] = _converted(recipe, key, value, f"'{file}': {key}")
    return values


def check_output(output, resume):
    """Raises a `ValueError` if the run folder can't be begun, or gone on with."""
    if resume and not (output / "config.json").is_file():
        raise ValueError(f"--resume: there is no run in '{output}' (no config.json).")
    if resume or not output.exists():
        return
    # Hidden files are what a run left that was killed before it had begun.
    if not output.is_dir() or any(e.name[0] != "." for e in output.iterdir()):
        raise ValueError(
            f"--output '{output}' is not empty. Pass --resume to go on with the run in "
            "it, or choose another folder."
        )


def _resumed(recipe, given, changes):
    """The settings of the run in `run.output`; those given must be the same, but for
    named changes."""
    free = (*FREE, *changes)
    file = start.config_of(given["run.output"])
    kind = start.read_json(file).get("recipe")
    if kind != recipe.NAME:
        raise ValueError(f"--resume: '{file.parent}' is a run of {kind}.")
    saved = read_config(kind, file)
    outside.check(file, saved, given)
    before = settings.Settings.of(saved)
    for key, value in given.items():
        if key not in free and value != before.get(key):
            raise ValueError(
                "--resume goes on with the settings of the run. It has "
                f"{key}={before.get(key)}. Received: {key}={value}. If this change is "
                f"meant, name it: --resume {key}"
            )
    return saved | {key: given[key] for key in free if key in given}


def _converted(recipe, key, value, where):
    field, hint = settings.known(key, recipe)
    try:
        return convert(hint, value)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def _help(recipe, key):
    field = settings.FIELDS[key][0]
    text = field.metadata["help"]
    default = {**recipe.SMALL, **recipe.DEFAULTS}.get(key, field.default)
    if default is None:  # Then the text says what it is.
        return text
    values = default if isinstance(default, list) else [default]
    # `True` is written as in JSON.
    shown = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
    return f"{text} (default: {', '.join(shown)})"


def _epilog(recipe):
    """The settings without flags, for `--help`."""
    lines = ["settings for --set KEY=VALUE and --config:"]
    for key in settings.FIELDS:
        if (
            settings.has(recipe.NAME, key)
            and not settings.FIELDS[key][0].metadata["flag"]
        ):
            lines += textwrap.wrap(
                f"{key:<24} {_help(recipe, key)}",
                width=88,
                initial_indent="  ",
                subsequent_indent=" " * 27,
            )
    lines.append(
        "Settings of a stage have one value for all stages, or one for each: "
        "stage.steps=900,80.\nPresets of the paper (mdm_s64 and larger) have its "
        "settings as defaults."
    )
    return "\n".join(lines)
