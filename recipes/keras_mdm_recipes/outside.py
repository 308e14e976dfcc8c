"""What the settings of somebody else's run name outside of it: only on request.

A run folder may be a stranger's. What its settings would open, start or contact must
then be named on the command line too. Runs that this user began on this machine are
known by their `config.json`: its digest is kept in the user's cache folder.
"""

import contextlib
import hashlib
import importlib.util
import json
import pathlib
import shlex

from keras_mdm_recipes import settings, start


def _builtin(ending):
    """Names of the presets of the package that have a file of an ending."""
    package = importlib.util.find_spec("keras_mdm").submodule_search_locations
    folder = pathlib.Path(*package, "presets")
    return {path.stem for path in folder.glob(f"*{ending}")}


def _harmless(key):
    """Values of a setting that lead to nothing but the package itself."""
    return {
        "data.dataset": {
            "digits",
            "shapes",
            *(f"shapes/{kind}" for kind in ("single", "scenes", "clips")),
        },
        "model.preset": _builtin(".json"),
        # The weights of others are downloaded.
        "model.start_from": {"none", *_builtin(".npz")},
    }.get(key, set())


def remember(config):
    """Notes the `config.json` of a run that the user begins, as a dict."""
    # Where the cache can't be written, the run asks when it is resumed.
    with contextlib.suppress(OSError):
        record = _record(config)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()


def check(file, values, named=(), how="--set"):
    """Refuses what the settings of an unknown run name outside of it.

    Args:
        file: Path of the file of settings. One that is of no run is the user's own.
        values: dict of key to value, its settings.
        named: Keys that the user has given too.
        how: str. The flags that name them.

    Raises:
        ValueError: with all that must be named on the command line.
    """
    found = {
        key: value
        for key, value in values.items()
        if settings.FIELDS[key][0].metadata["outside"]
        and value is not None
        and key not in named
        and value not in tuple(_harmless(key))
    }
    config = start.read_json(pathlib.Path(file)) if found else {}
    if "recipe" not in config or _record(config).is_file():
        return
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in found.items()
    }
    asked = " ".join(shlex.quote(f"{key}={text}") for key, text in texts.items())
    raise ValueError(
        f"'{file}' is not of a run that you began on this machine, and it names what "
        "lies outside of the run. Nothing of that is opened unless you name it too, by "
        f"{how}, so look at it first: {asked}"
    )


def _record(config):
    values = {key: value for key, value in config.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return start.cache_folder("runs") / digest
