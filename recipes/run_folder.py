"""The run folder of a training recipe: refused, taken up again, described."""

import argparse
import dataclasses
import json
import pathlib
import sys

import common

# Settings of `--resume` that may differ from those of the run.
FREE = ("output", "resume", "backend", "data_dir")


def check_output(args, parser):
    """Returns the run folder and the arguments: on `--resume`, those of the run."""
    output = pathlib.Path(args.output)
    config = output / "config.json"
    if not args.resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(
                f"--output '{output}' is not empty. Pass --resume to go on with the "
                "run in it, or choose another folder."
            )
        return output, args
    if not config.is_file():
        raise ValueError(f"--resume: there is no run in '{output}' (no config.json).")
    saved = common.read_json(config)["arguments"]
    for key, value in vars(args).items():
        given = value != parser.get_default(key)
        if given and key not in FREE and value != _plain(saved[key]):
            raise ValueError(
                f"--resume goes on with the settings of the run. It has "
                f"{key}={saved[key]}. Received: {key}={value}"
            )
    free = {key: getattr(args, key) for key in FREE}
    free["data_dir"] = args.data_dir or saved["data_dir"]
    free["backend"] = args.backend or saved["backend"]
    saved = {key: _plain(value) for key, value in saved.items()}
    return output, argparse.Namespace(**{**saved, **free})


def _plain(value):
    """Undoes what JSON makes of a list of pairs."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [tuple(entry) for entry in value]
    return value


def write_config(path, args, mdm, stages, class_names):
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
        "recipe": pathlib.Path(sys.argv[0]).name,
        "arguments": vars(args),
        "seed": args.seed,
        "backend": keras.backend.backend(),
        "dtype": mdm.network.dtype_policy.name,
        "versions": versions,
        "class_names": class_names,
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "parameters": mdm.network.count_params(),
        "model": mdm.get_config(),
    }
    text = json.dumps(config, indent=1, default=str)
    files.write_text(path, text + "\n")
