"""PyTorch checkpoint files, read and written by torch, which never runs what they hold.

A pickle can name any Python function to be called on loading. `torch.load` with
`weights_only=True` knows the names that describe tensors and calls nothing else.
Official checkpoints have their options and losses beside the weights: those become
placeholders that do nothing. Any other name is refused before anything is loaded.
"""

import contextlib
import zipfile

import ml_dtypes
import numpy as np

from keras_mdm.files import reserve, whole_file
from keras_mdm.paths import as_path
from keras_mdm.text_files import reason

# Packages whose objects stand beside the weights of an official checkpoint: its
# options, under their present and their older names, and its list of losses.
_BESIDE = (
    "ml_mdm",
    "argparse",
    "config",
    "diffusion",
    "language_models",
    "models",
    "numpy",
    "pathlib",
    "reader",
    "samplers",
    "simple_parsing",
)
_BESIDE_EXACTLY = (
    "builtins.getattr",  # how Python 3.11 pickles a member of an enumeration
    "collections.defaultdict",
)


class _Placeholder:
    """Stands for an object of the official code. Whatever is done to it, does nothing.

    It also stands for functions: torch calls it, and sets the state of what it makes.
    """

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def _empty_dict(*args):
    """Stands for `defaultdict`, since torch fills plain dicts alone."""
    return {}


def read_checkpoint(path):
    """The weights of a `.pth` file.

    Args:
        path: str or path. A file that `torch.save` wrote: a dict of tensors, or, as
            the official code writes it, one under the key `state_dict`.

    Returns:
        dict of official name to array. Arrays lie in the file, which is mapped into
        memory: copy what shall outlive it.

    Raises:
        ValueError: if the file is damaged, is not a checkpoint, or names anything
            that could run code.

    Example:

    ```python
    kernel = np.array(read_checkpoint("vis_model.pth")["conv_in.weight"])
    ```
    """
    torch, path = _torch(), as_path(path)
    if not path.is_file():
        raise ValueError(f"the checkpoint '{path}' does not exist.")
    size = _check_archive(path)
    with _as_damage(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    for name in names:
        if name.split(".")[0] not in _BESIDE and name not in _BESIDE_EXACTLY:
            raise ValueError(
                f"'{path}' is refused: it names '{name}', which is not part of a "
                "checkpoint of weights and could run any code. Nothing of it was run. "
                "Use a file from a source that you trust."
            )
    stand_ins = [
        (_empty_dict if name == "collections.defaultdict" else _Placeholder, name)
        for name in names
    ]
    with _as_damage(path), torch.serialization.safe_globals(stand_ins):
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    content = _plain(content)
    content = _plain(content.get("state_dict")) or content
    if not content:
        raise ValueError(
            f"'{path}' holds no weights: it must be a dict of tensors, or have one as "
            "'state_dict'."
        )
    wrong = [
        str(name)
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if wrong:
        raise ValueError(f"'{path}' holds no weights: {sorted(wrong)[:10]} are none.")
    with _as_damage(path):
        storages = [tensor.untyped_storage() for tensor in content.values()]
        arrays = {name: _as_array(tensor) for name, tensor in content.items()}
    needed = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
    if needed > size:
        raise ValueError(
            f"'{path}' is damaged: it has {size} bytes of values, and its tensors "
            f"need {needed}."
        )
    return arrays


def _plain(content):
    """A copy of a dict, without what a file may have set on it; `{}` of all else."""
    return dict.copy(content) if isinstance(content, dict) else {}


def _torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'PyTorch checkpoints need `pip install "keras-mdm[convert]"`.'
        ) from error
    return torch


def _check_archive(path):
    """Bytes that an archive has for tensors, if its check sums are right.

    torch does not compare them where it maps a file.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # of a damaged directory of members too
        raise ValueError(
            f"'{path}' is not a whole PyTorch checkpoint: it is truncated or damaged, "
            "or was written by a torch older than 1.6. Compare its size with that of "
            f"the original. Cause: {reason(error)}"
        ) from error
    with archive:
        with _as_damage(path):
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"'{path}' is damaged: the check sum of '{damaged}'.")
        return sum(e.file_size for e in archive.infolist() if "/data/" in e.filename)


@contextlib.contextmanager
def _as_damage(path):
    """Whatever a damaged file raises as a `ValueError` that names it."""
    try:
        yield
    except Exception as error:  # a damaged pickle can raise almost anything
        # Without torch's advice to load it with `weights_only=False`.
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]
        raise ValueError(
            f"'{path}' is refused: it is damaged, or holds something else than "
            "tensors. Nothing of it was run. "
            f"Cause: {type(error).__name__}: {reason}"
        ) from error


def _as_array(tensor):
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":  # which numpy does not know
        return tensor.view(_torch().uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def write_checkpoint(path, tensors):
    """Writes float32 tensors as a checkpoint of the official code.

    `torch.load(path, weights_only=True)` gives `{"state_dict": {name: tensor}}`.

    Args:
        path: str or path. File to write.
        tensors: Iterable of pairs (official name, array).

    Raises:
        OSError: if the disk is full.
    """
    torch = _torch()
    weights = {name: torch.from_numpy(np.array(a, "float32")) for name, a in tensors}
    size = sum(4 * tensor.numel() + 1024 for tensor in weights.values())
    # torch raises no `OSError` where the disk fills up.
    reserve(as_path(path).parent, size)
    with whole_file(path) as temporary:
        torch.save({"state_dict": weights}, temporary)
