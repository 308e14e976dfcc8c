"""PyTorch checkpoint files, read without torch and without running what they hold.

A `.pth` file is a zip archive: `data.pkl` describes the tensors, and each storage is a
file of raw numbers. A pickle can name any Python function to be called on loading. The
reader below knows the few names that describe tensors; classes of the official code,
whose options are saved beside the weights, become placeholders that do nothing; any
other name is refused before anything is looked up.
"""

import collections
import io
import pickle
import zipfile

import ml_dtypes
import numpy as np

from keras_mdm.files import as_path

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

# Packages whose objects stand beside the weights of an official checkpoint: its
# options, under their present and their older names, and its list of losses. They
# become placeholders.
_BESIDE = (
    "ml_mdm",
    "argparse",
    "config",
    "diffusion",
    "language_models",
    "models",
    "numpy",
    "reader",
    "samplers",
    "simple_parsing",
)
_BESIDE_EXACTLY = (
    ("_codecs", "encode"),
    ("builtins", "getattr"),  # how Python 3.11 pickles a member of an enumeration
    ("__builtin__", "getattr"),
    ("builtins", "set"),
    ("__builtin__", "set"),
    ("collections", "defaultdict"),
    ("pathlib", "PosixPath"),
    ("torch", "device"),
)


class Tensor:
    """A tensor of a checkpoint, which is read when it is asked for.

    `numpy.asarray(tensor)` reads it. Nothing is kept, so a checkpoint of any size
    takes the memory of one tensor.
    """

    def __init__(self, storage, offset, shape, strides):
        self._storage = storage
        self._offset = offset
        self._strides = strides
        self.shape = tuple(shape)
        self.dtype = storage.dtype

    def __array__(self, dtype=None, copy=None):
        size = self.dtype.itemsize
        array = np.ndarray(
            self.shape,
            self.dtype,
            self._storage.read(),
            self._offset * size,
            [stride * size for stride in self._strides],
        )
        return np.array(array, dtype=dtype or self.dtype)


class _Storage:
    """The raw numbers of one or more tensors."""

    def __init__(self, archive, entry, dtype):
        self._archive = archive
        self.entry = entry
        self.dtype = np.dtype(dtype)

    def read(self):
        # The archive checks the sum of what it reads: a damaged file is found here.
        try:
            return self._archive.read(self.entry)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise ValueError(
                f"'{self._archive.filename}' is damaged: '{self.entry}' can't be "
                f"read. Cause: {error}"
            ) from error


class _Placeholder:
    """Stands for an object of the official code. Whatever is done to it, does nothing.

    `pickle` calls it, sets its state, and appends items to it.
    """

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass

    add = append


class _Unpickler(pickle.Unpickler):
    """Reads `data.pkl`. What it hands out for a name is harmless, or an error."""

    def __init__(self, archive, root, path):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8")
        self._archive = archive
        self._root = root
        self._path = path
        self._known = {
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self._rebuild_parameter,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch", "Size"): tuple,
        }

    def find_class(self, module, name):
        if (module, name) in self._known:
            return self._known[module, name]
        if module == "torch" and name in _STORAGES:
            return type(name, (_Placeholder,), {"storage_dtype": _STORAGES[name]})
        if module.split(".")[0] in _BESIDE or (module, name) in _BESIDE_EXACTLY:
            return type("Placeholder", (_Placeholder,), {})
        raise ValueError(
            f"'{self._path}' is refused: it names '{module}.{name}', which is not part "
            "of a checkpoint of weights and could run any code. Nothing of it was run. "
            "Use a file from a source that you trust."
        )

    def persistent_load(self, saved_id):
        try:
            kind, storage, key, _, _ = saved_id
            dtype = storage.storage_dtype
        except (TypeError, ValueError, AttributeError):
            kind = dtype = None
        if kind != "storage" or dtype is None:
            raise ValueError(
                f"'{self._path}' has a storage of an unknown kind. "
                "Save the weights again with a current torch."
            )
        return _Storage(self._archive, f"{self._root}data/{key}", dtype)

    def _rebuild_tensor(self, storage, offset, shape, strides, *unused):
        numbers = (offset, *shape, *strides)
        whole = all(isinstance(n, int) and n >= 0 for n in numbers)
        if not isinstance(storage, _Storage) or not whole or len(shape) != len(strides):
            raise TypeError("a tensor is described wrongly")
        return Tensor(storage, offset, shape, strides)

    def _rebuild_parameter(self, data, *unused):
        return data


class Checkpoint(collections.abc.Mapping):
    """The weights of a `.pth` file by their official names: a mapping to `Tensor`.

    A context manager; the file stays open within it.

    Args:
        path: str or path. A file that `torch.save` wrote: a dict of tensors, or, as
            the official code writes it, one under the key `state_dict`.

    Raises:
        ValueError: if the file is damaged, is not a checkpoint, or names anything
            that could run code.

    Example:

    ```python
    with Checkpoint("vis_model.pth") as weights:
        kernel = np.asarray(weights["conv_in.weight"])
    ```
    """

    def __init__(self, path):
        self.path = as_path(path)
        if not self.path.is_file():
            raise ValueError(f"the checkpoint '{path}' does not exist.")
        try:
            self._archive = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"'{path}' is not a whole PyTorch checkpoint: it is truncated or "
                "damaged, or was written by a torch older than 1.6. Compare its size "
                f"with that of the original. Cause: {error}"
            ) from error
        try:
            self._tensors = self._read_names()
        except BaseException:
            self._archive.close()
            raise

    def _read_names(self):
        names = [n for n in self._archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(
                f"'{self.path}' is not a PyTorch checkpoint: it is a zip archive "
                f"with {len(names)} entries 'data.pkl' instead of one."
            )
        root = names[0].removesuffix("data.pkl")
        try:
            content = _Unpickler(self._archive, root, self.path).load()
        except ValueError:
            raise
        except Exception as error:  # a damaged pickle can raise almost anything
            raise ValueError(
                f"'{self.path}' is damaged: its description of the tensors can't be "
                f"read. Cause: {type(error).__name__}: {error}"
            ) from error
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        if not isinstance(content, dict) or not content:
            raise ValueError(
                f"'{self.path}' holds no weights: it must be a dict of tensors, or "
                f"have one as 'state_dict'. It holds: {type(content).__name__}"
            )
        wrong = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
        if wrong:
            raise ValueError(
                f"'{self.path}' holds no weights: {sorted(wrong)[:10]} are no tensors."
            )
        self._check_storages(content)
        return dict(content)

    def _check_storages(self, tensors):
        """Every tensor must lie inside its storage, and the storage in the file."""
        sizes = {entry.filename: entry.file_size for entry in self._archive.infolist()}
        problems = []
        for name, tensor in tensors.items():
            size = sizes.get(tensor._storage.entry)
            if size is None:
                problems.append(f"{name}: its numbers are missing")
                continue
            reach = tensor._offset + sum(
                (length - 1) * stride
                for length, stride in zip(tensor.shape, tensor._strides, strict=True)
            )
            if 0 not in tensor.shape and (reach + 1) * tensor.dtype.itemsize > size:
                problems.append(f"{name}: its numbers are cut off")
        if problems:
            raise ValueError(f"'{self.path}' is damaged:\n" + "\n".join(problems))

    def __getitem__(self, name):
        return self._tensors[name]

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._archive.close()
