"""Folders of pictures and of videos: `"folder:PATH"` and `"clips:PATH"`.

Sub-folders are classes, unless the files have captions. What can't be read is skipped
and reported, never fatal.
"""

import hashlib

from keras_mdm.data.captions import TABLES, TextFiles, find_captions
from keras_mdm.data.file_walk import count_endings, list_files, name_some
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.pictures import picture_extensions, read_picture
from keras_mdm.data.source import Source, caption_items, digests, fingerprints
from keras_mdm.data.video_files import READABLE, import_av, read_clip
from keras_mdm.paths import as_path, local_path
from keras_mdm.text_files import printable

# Per cent that go to each split, by a hash of the relative path.
_PERCENT = {"train": range(90), "validation": range(90, 95), "test": range(95, 100)}
SPLITS = (*_PERCENT, "all")
_LINKS = "?links=1"
_SPLIT_FOLDERS = frozenset(
    "train training test testing val valid validation dev eval".split()
)


class Files(Source):
    """Files of a folder, with captions, or with its sub-folders as classes.

    Captions are in a file `NAME.txt` beside each file, or in `metadata.csv`,
    `.tsv` or `.jsonl` with the columns `file_name` and `text` (or `caption`), in the
    folder or in its sub-folders. A file without one is then skipped, and there are
    classes only if each row says its own in a column `class`. A file has several
    captions if several rows name it, or if a row of `metadata.jsonl` has a list of
    them. A column `split` says the split of a file.

    Files may lie at any depth; the class is the first sub-folder. Without
    sub-folders the source is unlabelled. If there are sub-folders with files,
    files beside them have no class and are skipped, and empty sub-folders are classes
    too. `report` tells what else lies there and is not read.

    Sub-classes implement `_read_file(path)`, which returns the item's picture or video.

    Args:
        kind: String. What stands before the path in the name of the source.
        path: String or path of the folder. Links that lead out of it are skipped;
            `"PATH?links=1"` follows them.
        split: `"train"`, `"validation"`, `"test"` (what a table says; else 90, 5 and
            5 in a hundred, chosen by a hash of the relative path, so adding files
            moves none) or `"all"`. Folders that are splits are opened as `"all"`.
        extensions: Collection of strings, such as `".png"`: which files are meant.
        limits: `Limits`.
        is_video, num_frames: As `Source` takes them.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If the folder or the split has no such files, or its sub-folders are
            splits.
    """

    def __init__(
        self,
        kind,
        path,
        split,
        extensions,
        limits=LIMITS,
        is_video=False,
        num_frames=None,
    ):
        check_split("a folder", split)
        folder, follow = _links_option(path)
        self._root = root = local_path(folder, f"The path in '{kind}:PATH'")
        where = f"{printable(root)} (absolute: {printable(root.absolute())})"
        if not root.is_dir():
            what = "Not a folder" if root.exists() else "No such folder"
            raise FileNotFoundError(f"{what}: {where}.")
        listing = list_files(root, extensions, follow)
        found = listing.files
        if not found:
            others = count_endings(listing.others)
            flaws = name_some([f"{file} {why}" for file, why in listing.flaws])
            raise ValueError(
                f"No {'videos' if is_video else 'pictures'} in {where} or its "
                f"sub-folders. Looked for: {' '.join(sorted(extensions))}"
                + (f". Found: {others}" if others else "")
                + (f". Skipped: {flaws}" if flaws else "")
            )
        written = find_captions(root, found, listing.others, limits)
        self._captions, notes = written.texts, written.notes
        classes = {file.parts[0] for file in found if len(file.parts) > 1}
        self._refuse_splits(kind, classes)
        self._classes, names = {}, set()
        if written.classes and len(written.classes) == len(written.texts):
            self._classes = written.classes
            names = set(self._classes.values())
        elif written.classes:
            notes.append(
                f"Only {len(written.classes)} of {len(written.texts)} captioned files "
                "have a class, so there are none."
            )
        elif self._captions is None and classes:
            empty = sorted(set(listing.folders) - classes)
            if empty:
                notes.append(
                    f"{len(empty)} class folder(s) have no file that is read, and keep "
                    f"their numbers: {name_some(empty)}."
                )
            names = {*classes, *empty}
        self._labels = {name: label for label, name in enumerate(sorted(names))}
        super().__init__(
            f"{kind}:{path}",
            class_names=map(printable, self._labels) if self._labels else None,
            has_captions=self._captions is not None,
            is_video=is_video,
            num_frames=num_frames,
            no_captions=written.why,
        )
        flaws = {file: self._flaw(file) for file in found}
        self._files = [
            file
            for file in found
            if not flaws[file]
            and split in ("all", written.splits.get(file) or split_of(file.as_posix()))
        ]
        if not self._files:
            raise ValueError(
                f"The split {split!r} of {printable(root)} is empty: it got none "
                f"of the {len(found)} {self.noun} found. Use split='all', or add "
                f"{self.noun}. {' '.join(map(printable, notes))}".rstrip()
            )
        for file, flaw in (*flaws.items(), *listing.flaws):
            if flaw:
                self.skip(str(root / file), flaw)
        for row, flaw in written.flaws:
            self.skip(row, flaw)
        self.note(*notes, *listing.notes)
        unread = [file for file in listing.others if not self._is_caption_file(file)]
        if unread:
            self.note(f"Files of other kinds, not read: {count_endings(unread)}.")

    def _refuse_splits(self, kind, folders):
        """Raises a `ValueError` if splits would become classes, or one set."""
        splits = sorted(name for name in folders if name.lower() in _SPLIT_FOLDERS)
        if len(splits) > 1 or (splits and len(folders) == 1 and self._captions is None):
            first = next(
                (n for n in splits if n.lower().startswith("train")), splits[0]
            )
            raise ValueError(
                f"The sub-folders {splits} of {printable(self._root)} look like splits "
                "of a data set. Open each by itself with split='all', such as "
                f"'{kind}:{printable(self._root / first)}', or rename them."
            )

    def _is_caption_file(self, file):
        if isinstance(self._captions, TextFiles):
            return file.suffix.lower() == ".txt"
        return file.name.lower() in TABLES

    def _flaw(self, file):
        """Why a file can't be used, or `None`."""
        if self._captions is not None and file not in self._captions:
            return "has no caption"
        if self._labels and not self._classes and len(file.parts) == 1:
            return "lies in no class folder"
        return None

    def __len__(self):
        return len(self._files)

    def contents(self):
        files, captions = self._files, self._captions
        paths = [self._root / file for file in files]
        if isinstance(captions, TextFiles):
            paths += map(captions.path, files)
        found = fingerprints(paths)
        texts = found[len(files) :] or [captions and captions[file] for file in files]
        names = [printable(file.as_posix()) for file in files]
        values = zip(names, found[: len(files)], texts, strict=True)
        items = zip(map(self._group, files), values, strict=True)
        return {**super().contents(), "files": digests(items)}

    def _group(self, file):
        """The class of a file, or the folder that it lies in."""
        group = file.parts[0] if len(file.parts) > 1 else "."
        return printable(self._classes.get(file, group))

    def describe(self, index):
        return printable(self._root / self._files[index])

    def _read(self, index):
        file = self._files[index]
        item = self._read_file(self._root / file)
        if self._captions is not None:
            item |= caption_items(self._captions[file])
        if self._labels:
            item["label"] = self._labels[self._classes.get(file, file.parts[0])]
        return item


class Folder(Files):
    """Pictures of a folder. `Files` documents captions, classes and arguments."""

    def __init__(self, path, split="train", limits=LIMITS):
        super().__init__("folder", path, split, picture_extensions(), limits)
        self._limits = {
            "max_pixels": limits.picture_pixels,
            "max_bytes": limits.picture_bytes,
        }

    def _read_file(self, path):
        return {"image": read_picture(path, **self._limits)}


class Clips(Files):
    """The beginnings of the videos of a folder; `Files` documents the rest.

    Args:
        path, split: See `Files`.
        num_frames: Int. Frames of a clip. Defaults to all that a video has.
        frame_rate: Float. Frames a second, picked by their time stamps. Defaults to
            the frames of each video as they follow each other.
        limits: `Limits`.
    """

    def __init__(
        self, path, split="train", num_frames=None, frame_rate=None, limits=LIMITS
    ):
        import_av(f"The source 'clips:{path}'")
        super().__init__(
            "clips", path, split, READABLE, limits, is_video=True, num_frames=num_frames
        )
        self._frame_rate = frame_rate
        self._limits = limits.clip_pixels, limits.clip_frames, limits.frame_pixels

    def _read_file(self, path):
        found = read_clip(path, self.num_frames, self._frame_rate, *self._limits)
        return {"video": found}


def _links_option(path):
    """The folder of a path, and whether `?links=1` stands behind it."""
    name = str(path)
    asked = name.endswith(_LINKS) and not as_path(name).is_dir()
    return (name.removesuffix(_LINKS) if asked else path), asked


def check_split(what, split):
    """Raises a `ValueError` if there is no such split."""
    if split not in SPLITS:
        raise ValueError(
            f"`split` of {what} must be one of {SPLITS}. Received: split={split!r}"
        )


def split_of(name):
    """The split that a file of this name is in, by a hash of the name."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    return next(split for split, range_ in _PERCENT.items() if percent in range_)
