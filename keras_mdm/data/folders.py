"""A folder of pictures on disk as a source: `open_source("folder:PATH")`.

Sub-folders are classes, unless the pictures have captions. What cannot be read is
skipped and reported, never fatal. `Files` is what a folder of videos (`clips.py`) does
alike.
"""

import collections
import hashlib
import mimetypes
import os

from keras_mdm.data import pictures
from keras_mdm.data.captions import find_captions
from keras_mdm.data.source import Source
from keras_mdm.files import as_path, printable

# Share of a hundred that goes to each split, by a hash of the relative path.
_SHARES = {"train": range(90), "validation": range(90, 95), "test": range(95, 100)}
SPLITS = (*_SHARES, "all")
# Folders of these names at the top are splits rather than classes.
_SPLIT_FOLDERS = {
    *("train", "training", "test", "testing"),
    *("val", "valid", "validation", "dev", "eval"),
}
# Pictures and videos that `mimetypes` does not know.
_MORE_MEDIA = {
    *(".avif", ".heic", ".heif", ".jxl", ".webp", ".raw", ".dng", ".cr2", ".cr3"),
    *(".nef", ".arw", ".orf", ".rw2", ".dds", ".exr", ".hdr", ".mkv", ".flv"),
}


class Files(Source):
    """Files of a folder, with captions, or with its sub-folders as classes.

    Captions are in a file `NAME.txt` beside each file, or in `metadata.csv` or
    `metadata.jsonl` with the columns `file_name` and `text` (or `caption`), in the
    folder or in its sub-folders. A file without one is then skipped, and there are
    no classes. A file may have several: rows of its name, or a list in jsonl.

    Files may lie at any depth; the class is the first sub-folder. Without
    sub-folders the source is unlabelled. If there are sub-folders with files,
    files beside them have no class and are skipped. A folder that has nothing yet is a
    class, so that it gets its number before its pictures. Links are followed, each
    folder once. What is not used is in `report()`; what the folder hardly means, such
    as classes without pictures, is warned of.

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
        ValueError: If the folder or the split has no such files, or its sub-folders
            are splits.
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
        found, others, folders = _find_files(self._root, extensions)
        if not found:
            raise ValueError(
                f"No {'videos' if is_video else 'pictures'} in {self._root} (absolute: "
                f"{self._root.absolute()}) or its sub-folders. "
                f"Looked for: {' '.join(sorted(extensions))}"
            )
        first = {file.parts[0] for file in found if len(file.parts) > 1}
        if first and {name.lower() for name in first} <= _SPLIT_FOLDERS:
            raise ValueError(
                f"the sub-folders of {self._root} are splits, not classes: "
                f"{sorted(first)}. Open one of them with split='all', such as "
                f"'{scheme}:{self._root / min(first)}'."
            )
        self._captions, why, notes = find_captions(self._root, found)
        classes = []
        if self._captions is None and first:
            classes = sorted(first | folders)
            if folders - first:
                notes.append(
                    f"class folders without {'videos' if is_video else 'pictures'}, "
                    f"which keep their numbers: {sorted(folders - first)}"
                )
        if others:
            counts = ", ".join(f"{n} {end}" for end, n in sorted(others.items()))
            notes.append(f"files that can't be read here were left out: {counts}")
        self._class_folders = classes
        super().__init__(
            f"{scheme}:{path}",
            channels=3,
            class_names=[printable(name) for name in classes] or None,
            has_captions=self._captions is not None,
            is_video=is_video,
            num_frames=num_frames,
            no_captions=why,
        )
        for note in notes:
            self.note(note)
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
                self.skip(printable(self._root / file), flaw)

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
        return printable(self._root / self._files[index])

    def _read(self, index):
        file = self._files[index]
        item = self._read_file(self._root / file)
        if self._captions is not None:
            item["captions"] = self._captions[file]
            item["caption"] = item["captions"][0]
        if self.class_names is not None:
            item["label"] = self._class_folders.index(file.parts[0])
        return item


class Folder(Files):
    """Pictures of a folder. `Files` documents captions, classes and arguments."""

    def __init__(self, path, split="train"):
        super().__init__("folder", path, split, pictures.extensions())

    def _read_file(self, path):
        return {"image": pictures.read_picture(path)}


def _find_files(root, extensions):
    """Looks for files through all sub-folders and links, each folder once.

    Args:
        root: Path of the folder.
        extensions: Collection of strings: endings of the files that are meant.

    Returns:
        Sorted relative paths of such files; the number of other pictures and videos by
        their ending; and the set of sub-folders, if they hold nothing but such files.
    """
    found, others = [], collections.Counter()
    own = {e.name for e in root.iterdir() if e.is_dir() and not e.is_symlink()}
    folders = {name for name in own if not name.startswith(".")}
    # Links last: a folder is known by its own place rather than by that of a link.
    seen, waiting, links = set(), [root], []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        status = folder.stat()
        around = folder != root and root.resolve().is_relative_to(folder.resolve())
        if around or (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(folder.iterdir()):
            # Hidden ones are thumbnails and caches.
            if entry.name.startswith("."):
                continue
            place, ending = entry.relative_to(root), entry.suffix.lower()
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(entry)
            elif ending in extensions:
                found.append(place)
            elif _is_media(ending):
                others[ending] += 1
            else:
                folders.discard(place.parts[0])
    return sorted(found), others, folders


def _is_media(ending):
    kind = mimetypes.guess_type(f"x{ending}")[0] or ""
    return kind.startswith(("image/", "video/")) or ending in _MORE_MEDIA


def belongs(name, split):
    """Whether the file of a name is in a split: by a hash of the name."""
    if split == "all":
        return True
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:8], "big") % 100 in _SHARES[split]
