"""Repositories of Hugging Face, with errors that say what to fetch by hand."""

import pathlib


def download_repository(address, files):
    """The folder with what is needed of a repository, downloaded.

    Args:
        address: str. `"hf://user/repository"`.
        files: List of str. Names or patterns of files; others are left there.

    Raises:
        ValueError: if it can't be downloaded.
    """
    repository = address.removeprefix("hf://")
    try:
        from huggingface_hub import snapshot_download

        return pathlib.Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # of the network, the hub or the file system
        raise ValueError(
            f"'{address}' can't be downloaded. Fetch {files} of "
            f"https://huggingface.co/{repository}/tree/main into a folder and pass the "
            f"folder instead. {cause_of(error)}"
        ) from error


def cause_of(error):
    """The last sentence of an error message on a download that failed."""
    if isinstance(error, ImportError):
        return 'Downloads need `pip install "keras-mdm[hub]"`.'
    return f"Cause: {type(error).__name__}: {error}"
