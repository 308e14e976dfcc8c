"""A folder of pictures on disk as a source: `open_source("folder:PATH")`.

Sub-folders are classes, unless the pictures have captions. Any format that Pillow
reads; what it cannot read is skipped and reported, never fatal. `Files` is what a
folder of videos (`clips.py`) does alike.
"""

import hashlib
import os
import pathlib
import struct

import numpy as np

from keras_mdm.data.captions import find_captions
from keras_mdm.data.source import Source, UnusablePicture
from keras_mdm.files import as_path

# Share of a hundred that goes to each split, by a hash of the relative path.
_SHARES = {"train": range(90), "validation": range(90, 95), "test": range(95, 100)}
SPLITS = (*_SHARES, "all")


class Files(Source):
    """Files of a folder, with captions, or with its sub-folders as classes.

    Captions are in a file `NAME.txt` beside each file, or in `metadata.csv` or
    `metadata.jsonl` with the columns `file_name` and `text` (or `caption`), in the
    folder or in its sub-folders. A file without one is then skipped, and there are
    no classes.

    Files may lie at any depth; the class is the first sub-folder. Without
    sub-folders the source is unlabelled. If there are sub-folders with files,
    files beside them have no class and are skipped.

    Sub-classes implement `_read_file(path)`, which returns the item's picture or video.

    Args:
        scheme: String. What stands before the path in the name of the source.
        path: String or path of the folder.
        split: `"train"`, `"validation"`, `"test"` (90, 5 and 5 in a hundred, chosen
            by a hash of the relative path, so adding files moves none) or
            `"all"`. For folders that are already split, open each as `"all"`.
        extensions: Collection of strings, such as `".png"`: which files are meant.
        is_video, num_frames: As `Source` takes them.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If the folder or the split has no such files.
    """

    def __init__(
        self, scheme, path, split, extensions, is_video=False, num_frames=None
    ):
        if split not in SPLITS:
            raise ValueError(
                f"`split` of a folder must be one of {SPLITS}. "
                f"Received: split={split!r}"
            )
        self._root = as_path(path)
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"No such folder: {self._root} (absolute: {self._root.absolute()})."
            )
        found = _find_files(self._root, extensions)
        if not found:
            raise ValueError(
                f"No {'videos' if is_video else 'pictures'} in {self._root} (absolute: "
                f"{self._root.absolute()}) or its sub-folders. "
                f"Looked for: {' '.join(sorted(extensions))}"
            )
        self._captions, why = find_captions(self._root, found)
        classes = []
        if self._captions is None:
            classes = sorted({file.parts[0] for file in found if len(file.parts) > 1})
        super().__init__(
            f"{scheme}:{path}",
            channels=3,
            class_names=classes or None,
            has_captions=self._captions is not None,
            is_video=is_video,
            num_frames=num_frames,
            no_captions=why,
        )
        flaws = {file: self._flaw(file) for file in found}
        self._files = [
            file
            for file in found
            if not flaws[file] and belongs(file.as_posix(), split)
        ]
        if not self._files:
            raise ValueError(
                f"The split {split!r} of {self._root} is empty: it got none of the "
                f"{len(found)} {self.noun} found. Use split='all', or add {self.noun}."
            )
        for file, flaw in flaws.items():
            if flaw:
                self.skip(str(self._root / file), flaw)

    def _flaw(self, file):
        """Why a file can't be used, or `None`."""
        if self._captions is not None and file not in self._captions:
            return "has no caption"
        if self.class_names is not None and len(file.parts) == 1:
            return "lies in no class folder"
        return None

    def __len__(self):
        return len(self._files)

    def describe(self, index):
        return str(self._root / self._files[index])

    def _read(self, index):
        file = self._files[index]
        item = self._read_file(self._root / file)
        if self._captions is not None:
            item["caption"] = self._captions[file]
        if self.class_names is not None:
            item["label"] = self.class_names.index(file.parts[0])
        return item


class Folder(Files):
    """Pictures of a folder. `Files` documents captions, classes and arguments."""

    def __init__(self, path, split="train"):
        super().__init__("folder", path, split, _picture_extensions())

    def _read_file(self, path):
        return {"image": read_picture(path)}


def read_picture(path, name=None):
    """Reads a picture file as 8-bit RGB.

    The EXIF orientation is applied, transparency is laid on white, 16-bit greys
    are scaled, and of an animation the first frame is taken.

    Args:
        path: Path of the file, or a binary file object.
        name: String. Its name in errors. Defaults to the path.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        UnusablePicture: If the file is not a picture, is truncated or damaged.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture))
    # All that Pillow's decoders were seen to raise on damaged files.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnusablePicture(
            str(name or path), f"corrupt or unreadable: {error}"
        ) from error


def _to_rgb(picture):
    from PIL import Image

    if picture.mode.startswith("I"):
        # 16-bit greys; Pillow's own conversion would clip them at 255.
        wide = np.asarray(picture).astype(np.float64)
        grey = np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA") or (
        "transparency" in picture.info
    ):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def _picture_extensions():
    """Returns the extensions of the formats that Pillow can open."""
    from PIL import Image

    return {
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN
    }


def _find_files(root, extensions):
    """Returns sorted relative paths of the files that have one of the extensions."""
    found = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        # Hidden ones are thumbnails and caches.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            known = pathlib.Path(name).suffix.lower() in extensions
            if known and not name.startswith("."):
                found.append(pathlib.Path(folder, name).relative_to(root))
    return sorted(found)


def belongs(name, split):
    """Whether the file of a name is in a split: by a hash of the name."""
    if split == "all":
        return True
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 in _SHARES[split]
