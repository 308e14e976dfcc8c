"""The folder with states of training: their names, order, and which are kept.

Of a run of one process a state is one file, of several a file of each, such as
`stage1_epoch2_step0.1-of-2.state`. One that lacks a file is not complete.
"""

import dataclasses
import pathlib
import re

from keras_mdm.paths import as_path

KEPT = 3  # States that are kept, the newest ones.
_PATTERN = re.compile(
    r"stage(\d+)_epoch(\d+)_step(\d+)(?:\.(\d+)-of-(\d+))?\.state", re.ASCII
)


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of one state.

    Args:
        folder: Path.
        key: Tuple of stage, epoch and step, all from 0.
        count: int. Number of processes that write it.
        numbers: Sequence of int. Processes whose files are there, from 0.
    """

    folder: pathlib.Path
    key: tuple
    count: int
    numbers: tuple = ()

    @property
    def complete(self):
        """Whether the files of all processes are there."""
        return len(self.numbers) == self.count

    @property
    def paths(self):
        """List of the paths of the files that are there."""
        return [self.path(number) for number in sorted(self.numbers)]

    def path(self, number):
        """Path of the file of a process."""
        part = f".{number + 1}-of-{self.count}" if self.count > 1 else ""
        stage, epoch, step = self.key
        return self.folder / f"stage{stage + 1}_epoch{epoch}_step{step}{part}.state"

    def remove(self):
        """Removes those that are there."""
        for path in self.paths:
            path.unlink(missing_ok=True)


def listed(folder):
    """List of the `Files` of each state in a folder, the oldest first."""
    folder, found = as_path(folder), {}
    for path in folder.glob("*.state"):
        if match := _PATTERN.fullmatch(path.name):
            stage, epoch, step, number, count = (int(n or 1) for n in match.groups())
            place = ((stage - 1, epoch, step), count)
            named_alike = path == Files(folder, *place).path(number - 1)
            if named_alike and 1 <= number <= count:
                found.setdefault(place, []).append(number - 1)
    return [Files(folder, *place, tuple(found[place])) for place in sorted(found)]


def remove_later(files):
    """Removes what is not of the training that writes a state: all after it, and the
    same one by another number of processes.
    """
    for other in listed(files.folder):
        same = other.key == files.key and other.count != files.count
        if other.key > files.key or same:
            other.remove()


def remove_older(folder, keep_every):
    """Removes complete states but the newest and those kept for good; and before the
    newest complete one those that lack files: each process writes one after the other.

    Args:
        folder: Path.
        keep_every: int or `None`. Epochs whose multiples are kept for good.
    """
    found = listed(folder)
    complete = [files for files in found if files.complete]
    if not complete:
        return
    for files in found[: found.index(complete[-1])]:
        stays = files in complete[-KEPT:] or _stays(files.key, keep_every)
        if not (files.complete and stays):
            files.remove()


def _stays(key, keep_every):
    _, epoch, step = key
    return bool(keep_every and epoch and not step and epoch % keep_every == 0)
