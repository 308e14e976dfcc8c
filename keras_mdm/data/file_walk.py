"""The files of a folder and its sub-folders, each real folder once."""

import collections
import dataclasses
import os
import pathlib

from keras_mdm.paths import leads_out
from keras_mdm.text_files import printable

# Of archives and file systems, not of the user.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"})


@dataclasses.dataclass
class Listing:
    """What a folder holds; sorted paths, relative to it.

    `files` have one of the endings, and `others` not; `folders` are names directly
    below, `flaws` pairs `(path, why)` of what can't be read, `notes` sentences.
    """

    files: list
    others: list
    folders: list
    flaws: list
    notes: list


def list_files(root, extensions, follow):
    """The `Listing` of a folder; files that are meant have one of `extensions`.

    Links that lead out of the folder are flaws, unless they are followed. Each real
    folder is read once: by its own path if it is in the folder, else by the first link.
    Links to files that are read anyway are left out. Names that begin with a dot are
    left out: thumbnails, caches.
    """
    listing = Listing([], [], [], [], [])
    repeated, linked, plain, seen = [], [], set(), set()
    folders, links = collections.deque([root]), collections.deque()
    while folders or links:
        by_link = not folders
        folder = links.popleft() if by_link else folders.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                if by_link:
                    repeated.append(folder.relative_to(root))
                continue
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            why = f"can't be read: {error.strerror}"
            listing.flaws.append((folder.relative_to(root), why))
            continue
        seen.add((status.st_dev, status.st_ino))
        if folder.parent == root:
            listing.folders.append(folder.name)
        real = os.path.realpath(folder)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_symlink() and not follow and leads_out(path, root):
                why = "is a link out of the folder; '?links=1' behind PATH follows it"
                listing.flaws.append((path.relative_to(root), why))
                # As a class it keeps its number.
                if folder == root and _is(entry.is_dir):
                    listing.folders.append(entry.name)
                continue
            if _is(entry.is_dir):
                if entry.name not in _SYSTEM_FOLDERS:
                    (links if entry.is_symlink() else folders).append(path)
                continue
            file = path.relative_to(root)
            meant = path.suffix.lower() in extensions
            if meant and entry.is_symlink():
                linked.append(file)
            elif not _is(entry.is_file):
                # A pipe would be waited for.
                listing.flaws.append((file, "is no regular file"))
            elif meant:
                listing.files.append(file)
                plain.add(os.path.join(real, entry.name))
            else:
                listing.others.append(file)
    for file in linked:
        target = os.path.realpath(root / file)
        if target in plain:
            repeated.append(file)
        elif not os.path.isfile(target):
            listing.flaws.append((file, "leads to no regular file"))
        else:
            listing.files.append(file)
    for paths in (listing.files, listing.others, listing.folders):
        paths.sort()
    if repeated:
        listing.notes.append(
            f"{len(repeated)} link(s) lead to what is read anyway, and were left out: "
            f"{name_some(sorted(repeated))}."
        )
    return listing


def count_endings(files):
    """Counts files by ending, for messages: `"12 .heic, 1 without an ending"`."""
    counts = collections.Counter(
        pathlib.PurePath(file).suffix.lower() or "without an ending" for file in files
    )
    return ", ".join(
        f"{count} {printable(ending)}" for ending, count in counts.most_common()
    )


def name_some(names):
    """Names the first five, for messages."""
    shown = ", ".join(printable(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return shown + more


def _is(kind):
    try:
        return kind()
    except OSError:  # A link to itself.
        return False
