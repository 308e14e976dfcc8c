"""Packages of pictures: fetched by the clients of npm, Debian and pip, and opened.

No client runs anything of a package: npm and pip only pack and download, and the
archive of Debian's is read without being installed.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib

_INSTALL = {
    "npm": "npm (Debian: `apt-get install npm`; others: https://nodejs.org)",
    "apt-get": "apt-get, the package client of Debian and Ubuntu",
    "dpkg-deb": "dpkg-deb (`apt-get install dpkg`; others: `brew install dpkg`)",
    "pip": "pip in this Python (`python -m ensurepip`)",
}
_HINTS = {
    "npm": "Is its registry reachable from here?",
    "apt": "Does `apt-get update` help?",
    "pip": "Is its registry reachable from here?",
}
_CLIENTS = {"npm": "npm", "apt": "apt-get", "pip": "pip"}


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that has pictures or their names.

    Attributes:
        client: `"npm"`, `"apt"` or `"pip"`.
        name: str.
        version: str. The one that the tool was written for. npm and pip fetch it; apt
            fetches that of the machine's release, which may differ.
        sha256: str. Checksum of that version's file.
        megabytes: int. Size of that file.
    """

    client: str
    name: str
    version: str
    sha256: str
    megabytes: int

    @property
    def pattern(self):
        """Glob of the file's name."""
        return {
            "npm": f"{self.name}-{self.version}.tgz",
            "apt": f"{self.name}_*.deb",
            "pip": f"{self.name}-{self.version}-*.whl",
        }[self.client]

    @property
    def command(self):
        """The command that fetches it into the working directory."""
        return {
            "npm": ["npm", "pack", "--loglevel=error", f"{self.name}@{self.version}"],
            "apt": ["apt-get", "-qq", "download", self.name],
            "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            + ["--only-binary=:all:", f"{self.name}=={self.version}"],
        }[self.client]


def fetch(package, folder):
    """Fetches a package unless its file is there.

    Args:
        package: `Package`.
        folder: Path. Made if need be. A file that a user put there is taken as well.

    Returns:
        Path of the file.

    Raises:
        OSError: If a client is missing or can't fetch the package.
        ValueError: If the file is damaged.
    """
    files = sorted(folder.glob(package.pattern))
    tools = [] if files else [_CLIENTS[package.client]]
    if package.client == "apt":
        tools.append("dpkg-deb")
    for tool in tools:
        if not _is_installed(tool):
            raise OSError(
                f"'{package.name}' needs {_INSTALL[tool]}, and there is none on this "
                "machine. " + _elsewhere(package, folder)
            )
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"'{folder}' has {names}: leave one of them there.")
    file = files[0] if files else _download(package, folder)
    check(package, file)
    return file


def _is_installed(tool):
    if tool == "pip":
        return importlib.util.find_spec("pip") is not None
    return shutil.which(tool) is not None


def _download(package, folder):
    print(
        f"Fetching {package.name} ({package.megabytes} MB) by "
        f"`{' '.join(package.command)}`",
        flush=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".partial-*"):  # Of a start that was killed.
        shutil.rmtree(partial)
    # What was fetched is there whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        done = subprocess.run(
            package.command, cwd=partial, capture_output=True, text=True
        )
        files = sorted(pathlib.Path(partial).glob(package.pattern))
        if done.returncode or len(files) != 1:
            raise OSError(
                f"`{' '.join(package.command)}` failed: {_reason(done)} "
                f"{_HINTS[package.client]} {_elsewhere(package, folder)}"
            )
        return files[0].rename(folder / files[0].name)


def _reason(done):
    """The lines of a client's output that say why it failed, as one."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "err", "npm e"))]
    # npm closes with where its log is.
    errors = [line for line in errors if "log of this run" not in line]
    found = errors[:3] or lines[-3:] or ["no reason given"]
    return " / ".join(found)[:300].rstrip(".") + "."


def _elsewhere(package, folder):
    return (
        f"Or put {package.pattern.replace('*', '...')}, fetched elsewhere, into "
        f"'{folder}'."
    )


def check(package, file):
    """Raises a `ValueError` if the file of a pinned version is not what it was."""
    digest = sha256(file)
    if digest == package.sha256:
        return
    if package.client != "apt" or f"_{package.version}_" in file.name:
        raise ValueError(
            f"'{file}' is damaged, or not {package.name} {package.version}: its sha256 "
            f"is {digest}, not {package.sha256}. Delete it, and start again."
        )
    print(
        f"{file.name}: another version than {package.version}, for which this tool was "
        "written.",
        flush=True,
    )


def sha256(file):
    """Checksum of a file, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read(file, wanted):
    """Reads some files of a package.

    Args:
        file: Path of a `.tgz`, `.deb` or `.whl`.
        wanted: Callable of a path in the package, such as
            `"usr/share/doc/x/copyright"`.

    Returns:
        dict of path to bytes.

    Raises:
        ValueError: If the archive is damaged.
    """
    try:
        with _members(file) as members:
            return {path: data() for path, data in members if wanted(path)}
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"'{file}' is damaged: {error}. Delete it, and start again."
        ) from error


@contextlib.contextmanager
def _members(file):
    """Pairs of the path of a regular file and a function that reads it."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            yield ((name, lambda name=name: archive.read(name)) for name in names)
    elif file.suffix == ".deb":
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", file], capture_output=True)
        if done.returncode:
            reason = done.stderr.decode(errors="replace")
            raise tarfile.ReadError(reason.strip().replace("\n", " / "))
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            yield _regular(archive)
    else:
        with tarfile.open(file) as archive:
            yield _regular(archive)


def _regular(archive):
    for member in archive:
        # Hard links have the content of what they name.
        if member.isfile() or member.islnk():
            path = member.name.removeprefix("./")
            yield path, lambda member=member: archive.extractfile(member).read()
