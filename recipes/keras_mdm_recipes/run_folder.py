"""The folder of a run: one process at a time, and its `config.json`.

Used by `training`, which fills it.
"""

import contextlib
import dataclasses
import json
import sys

from keras_mdm_recipes import outside, start
from keras_mdm_recipes.settings import FIELDS

_MOST_SKIPPED = 1000  # Pictures that are listed.


@contextlib.contextmanager
def only_process(output, process=0):
    """Within it no other run can write to a folder.

    Args:
        output: Path of the run folder.
        process: int. Of several processes of one run, the first, 0, locks it.

    Raises:
        ValueError: if another run does.
    """
    if process > 0:
        yield
        return
    import filelock

    from keras_mdm.paths import own_folder

    output.mkdir(parents=True, exist_ok=True)
    # The system gives it back when the process ends, however it does.
    lock = filelock.FileLock(own_folder(output, ".lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(
            f"another process is training in '{output}': wait until it has ended, or "
            "choose another --output."
        ) from None
    try:
        yield
    finally:
        lock.release()


def skipped_writer(output, source, resume):
    """A callable that writes into `skipped.txt` what of the data was skipped so far.

    What it says of a run that is resumed is counted too.
    """
    from keras_mdm import files, paths
    from keras_mdm.text_files import MAX_TEXT, read_text
    from keras_mdm.training.attempts import Attempts

    path, attempts = paths.member(output, "skipped.txt"), Attempts("'skipped.txt'")
    if resume and path.is_file():
        for line in read_text(path, MAX_TEXT).splitlines()[1:]:
            what, _, why = line.partition("\t")
            source.skip(what, why)

    def write(*_):
        # Without tabs and ends of lines, as `skip` keeps them.
        lines = ["\t".join(pair) for pair in source.skipped[:_MOST_SKIPPED]]
        if lines or source.notes:
            with attempts.going_on():
                files.write_text(path, "\n".join([source.report(), *lines, ""]))

    return write


def write_config(output, recipe, settings, mdm, plan, class_names):
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
        "settings": saved_settings(settings),
        "dtype": mdm.network.dtype_policy.name,
        "versions": versions,
        "class_names": class_names,
        "stages": [dataclasses.asdict(stage) for stage in plan],
        "parameters": mdm.network.count_params(),
        "model": mdm.get_config(),
    }
    config = json.loads(json.dumps(config, default=str))
    outside.remember(config)
    config["checksum"] = start.checksum(config)
    text = json.dumps(config, indent=1)
    files.write_text(output / "config.json", text + "\n")


def saved_settings(settings):
    """The settings of a run as a dict, without what is of one process or machine."""
    saved = dataclasses.asdict(settings)
    for name in ("coordinator", "num_processes", "process_id", "connect_timeout"):
        saved["devices"][name] = FIELDS[f"devices.{name}"][0].default
    saved["run"]["cache_dir"] = None
    return saved
