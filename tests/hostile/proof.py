"""What no reader may do, done: the watch must see each. Not part of the corpus."""

import socket
import subprocess
import sys

from hostile import forge

PROOFS = {}


def proof(function):
    name = f"proof-{function.__name__}"
    make = lambda folder, outside: None  # noqa: E731
    PROOFS[name] = forge.Case("proof", function.__name__, make, function)


def _outside(folder):
    return folder.parents[2] / "outside"


@proof
def opens(folder):
    (_outside(folder) / "secret.txt").read_text()


@proof
def opens_in_c(folder):
    import av

    av.open(str(_outside(folder) / "secret.png")).close()


@proof
def follows_a_link(folder):
    (folder / "a").symlink_to(_outside(folder) / "precious" / "file")
    (folder / "a").write_text("changed")


@proof
def writes_beside(folder):
    (folder.parent / "beside.txt").write_text("x")


@proof
def removes(folder):
    (_outside(folder) / "secret.txt").rename(_outside(folder) / "moved.txt")
    (_outside(folder) / "moved.txt").rename(_outside(folder) / "secret.txt")


@proof
def starts(folder):
    subprocess.run([sys.executable, "-c", ""])


@proof
def connects(folder):
    socket.create_connection(("127.0.0.1", forge.PORT)).close()


@proof
def imports(folder):
    import evil_package.module

    assert evil_package


@proof
def takes_memory(folder):
    assert bytearray(b"x") * (3 * 2**29)


@proof
def shows_an_escape(folder):
    raise ValueError("a name: \x1b[31m")
