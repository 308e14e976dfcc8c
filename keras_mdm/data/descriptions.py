"""What the descriptions of data sets name, for the libraries that read the sets.

Those follow any name: of a file elsewhere, of an address, of a module to import.
"""

import os
import pathlib
import sys

from keras_mdm.data.packed import check_packed
from keras_mdm.paths import leads_out
from keras_mdm.text_files import (
    MAX_TEXT,
    MAX_YAML,
    check_repeats,
    printable,
    read_json,
    read_text,
    reason,
    values_in,
)


def check_links(folder):
    """Raises a `ValueError` if a link in a folder leads out of it.

    Returns:
        All that is in the folder, as a sorted list of `pathlib.Path`.
    """
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() and leads_out(path, folder):
            raise ValueError(
                f"'{printable(path)}' is a link out of the folder, and its library "
                "would follow it. Put the file itself there."
            )
    return paths


def check_card(folder):
    """Raises a `ValueError` if a folder or its description leads to files elsewhere."""
    import datasets
    import yaml
    from huggingface_hub.repocard import metadata_load

    check_packed(check_links(folder))
    card = folder / datasets.config.REPOCARD_FILENAME
    description = folder / datasets.config.REPOYAML_FILENAME
    try:
        for path in (card, description):
            if path.is_file():
                read_text(path, MAX_YAML)
        cards = [metadata_load(card)] if card.is_file() else []
        if description.is_file():
            cards.append(yaml.safe_load(read_text(description)))
        check_repeats([dict(card) for card in cards if isinstance(card, dict)])
    # Whatever a damaged one makes YAML raise.
    except Exception as error:
        raise ValueError(
            f"the description of '{printable(folder)}' can't be read: {reason(error)}"
        ) from error
    for value in values_in(cards):
        names = value.get("names") if isinstance(value, dict) else None
        if isinstance(names, dict) and {*map(str, names)} != {
            str(number) for number in range(len(names))
        }:
            # Their library counts as far as the largest number.
            raise ValueError(
                f"the description of '{printable(folder)}' must number the names of "
                "its classes from 0 on, each once."
            )
    configs = [card.get("configs") for card in cards if isinstance(card, dict)]
    for value in values_in(configs):
        if isinstance(value, str) and (
            ":/" in value or value.startswith(("/", "~")) or ".." in value.split("/")
        ):
            raise ValueError(
                f"'{printable(folder)}' names files outside of it in its description: "
                f"{printable(value)!r}. Data are read from the folder itself alone."
            )


def is_own(path, folder):
    """Whether the file of a picture is of its set: in the folder, or of the hub."""
    import datasets
    from huggingface_hub import constants

    *archives, file = path.split("::")
    if any(not archive.startswith(("zip://", "tar://")) for archive in archives):
        return False
    if folder is None and file.startswith("hf://datasets/"):
        return True
    caches = [datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE]
    roots = caches if folder is None else [folder]
    real = pathlib.Path(os.path.realpath(file))
    return "://" not in file and any(
        real.is_relative_to(os.path.realpath(root)) for root in roots
    )


def check_info(folder):
    """Raises a `ValueError` if a set of TFDS, or its description, leads elsewhere."""
    for path in check_links(folder):
        if path.suffix in (".json", ".txt") and path.stat().st_size > MAX_TEXT:
            raise ValueError(
                f"'{printable(path)}' has more than {MAX_TEXT} bytes, which its "
                "library would read at once."
            )
    for path in folder.glob("**/features.json"):
        for value in _dicts_in(path):
            named = [value.get(key) for key in ("pythonClassName", "proto_cls")]
            named += [value["type"]] if "content" in value and "type" in value else []
            for found in named:
                module = str(found).rpartition(".")[0]
                if found is not None and not (
                    module.startswith("tensorflow_datasets.") or module in sys.modules
                ):
                    raise ValueError(
                        f"'{printable(path)}' names the class {str(found)[:80]!r}, "
                        "which is not of TFDS. If it is yours, import it first."
                    )
            if str(value.get("encoding", "")).lower() == "zlib":
                raise ValueError(
                    f"'{printable(path)}' has arrays that are packed with zlib, "
                    "however large they become. Prepare the set without."
                )
    for path in folder.glob("**/dataset_info.json"):
        for value in _dicts_in(path):
            for key in ("filepathTemplate", "filepath_template"):
                name = str(value.get(key, ""))
                if set(name) & {"/", "\\"}:
                    raise ValueError(
                        f"'{printable(path)}' names files that are not beside it: "
                        f"{printable(name[:80])!r}."
                    )


def _dicts_in(path):
    return [value for value in values_in(read_json(path)) if isinstance(value, dict)]
