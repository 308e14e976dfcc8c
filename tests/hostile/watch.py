"""Runs forged cases in this process and tells what each did; a program of its own.

    python -m hostile.watch FOLDER CASE ...

An audit hook sees what Python opens, changes, imports, starts and connects to.
Libraries in C are watched from outside: inotify tells of every access to what lies
outside of the cases, and a socket of every connection.
"""

import ctypes
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import unicodedata
import warnings

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "pty.")
_CHANGES = ("os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir",
            "os.truncate", "os.chmod", "os.chown", "shutil.")  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_LONGEST = 120  # Seconds until a reader is taken to wait for ever.
# What every Python program reads.
_SYSTEM = (sys.prefix, sys.base_prefix, str(_ROOT), "/proc", "/sys", "/usr", "/lib")
_SYSTEM += (os.path.realpath(sysconfig.get_path("purelib")),)
_SYSTEM += ("/dev/null", "/dev/urandom", "/dev/shm", "/etc/hosts", "/etc/ssl")
_SYSTEM += ("/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/mime.types")
_SYSTEM += ("/etc/localtime", "/etc/os-release", "/etc/host.conf", "/etc/gai.conf")


class Watch:
    """Notes what happens while a case is read."""

    def __init__(self, root):
        self.outside = root / "outside"
        self.seen, self.reads, self.writes, self.on = [], (), (), False
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.events = self.libc.inotify_init1(os.O_NONBLOCK)
        for folder in (self.outside, *self.outside.rglob("*/")):
            mask = 0x20 | 0x2 | 0x1  # Opened, changed, read.
            self.libc.inotify_add_watch(self.events, os.fsencode(folder), mask)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        sys.addaudithook(self._hook)

    def _accept(self):
        while True:
            connection, _ = self.server.accept()
            self.seen.append("a connection")
            connection.close()

    def _hook(self, event, arguments):
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            writes = bool((flags or 0) & _WRITES)
            if isinstance(mode, str):
                writes = bool(set(mode) & set("wax+"))
            # Of a link that is not followed the link itself is opened, or nothing.
            follow = not (flags or 0) & os.O_NOFOLLOW
            self._check(path, self.writes if writes else self.reads, event, follow)
        elif event.startswith(_CHANGES):
            # Names may be in a folder that is open, whose number comes last.
            number = arguments[-1] if event.startswith("os.") else None
            opened = type(number) is int and number >= 0 and event != "os.truncate"
            start = os.readlink(f"/proc/self/fd/{number}") if opened else ""
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike):
                    path = os.path.join(start, os.fsdecode(path))
                    self._check(path, self.writes, event, follow=False)
        elif event.startswith(_STARTS) or event in (
            "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "socket.sendto",
        ):  # fmt: skip
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "import" and str(arguments[0]).startswith(
            ("evil", "antigravity")
        ):
            self.seen.append(f"import {arguments[0]}")

    def _check(self, path, allowed, event, follow=True):
        path = os.path.abspath(os.fsdecode(path))
        # Where a link itself is changed, not what it leads to.
        folder, name = os.path.split(path)
        real = os.path.realpath(path if follow else folder)
        real = real if follow else os.path.join(real, name)
        if not real.startswith(allowed):
            self.seen.append(f"{event} {real}")

    def outside_events(self):
        """Names of files outside that were opened, by whatever library."""
        names = []
        while select.select([self.events], [], [], 0)[0]:
            data = os.read(self.events, 2**16)
            while data:
                size = int.from_bytes(data[12:16], "little")
                mask = int.from_bytes(data[4:8], "little")
                name = data[16 : 16 + size].rstrip(b"\0").decode()
                if not mask & 0x40000000:  # Folders are looked at by `rglob`.
                    names.append(f"outside {name}")
                data = data[16 + size :]
        return names


def _peak():
    """Largest memory of this process since the last `_restart`, in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


def _restart():
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def run(case, folder, watch):
    """What reading a case did, as a dict."""
    case.make(folder, watch.outside)
    watch.outside_events()
    watch.seen.clear()
    cache = os.environ["XDG_CACHE_HOME"]
    watch.writes = (str(folder.resolve()), cache, tempfile.gettempdir(), "/dev/null")
    watch.reads = (*watch.writes, *_SYSTEM)
    # Of this process alone: others may keep the machine busy.
    before, start = _restart(), time.process_time()
    signal.alarm(_LONGEST)
    outcome, why = "loaded", ""
    try:
        watch.on = True
        reasons = case.read(folder)
        if reasons:
            outcome, why = "skipped", reasons
    except (ValueError, OSError) as error:
        outcome, why = "refused", str(error)
    except Exception as error:
        outcome, why = "failed", f"{error!r} {traceback.format_exc()[-1500:]}"
    finally:
        watch.on = False
        signal.alarm(0)
    text = "".join(why) if isinstance(why, list) else str(why)
    watch.seen += sorted({f"shows {ascii(c)}" for c in text if _is_obeyed(c)})
    seconds, memory = time.process_time() - start, _peak() - before
    return {
        "id": case.id,
        "outcome": outcome,
        "why": str(why)[:1500],
        "seconds": round(seconds, 3),
        "memory": memory,
        "seen": watch.seen + watch.outside_events(),
        "marker": [str(path) for path in watch.outside.parent.rglob("*MARKER*")],
    }


def _is_obeyed(letter):
    """Whether a terminal does something at a letter, or turns the text behind it."""
    if letter in "\n\t":
        return False
    turns = unicodedata.bidirectional(letter) in _TURNS
    return turns or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _too_long(*_):
    raise AssertionError(f"more than {_LONGEST} seconds")


def _warm_up():
    """Imports what the readers need, which opens and starts much of its own."""
    import av
    import datasets
    import keras_hub.tokenizers
    import matplotlib.pyplot
    import safetensors
    import tensorflow_datasets
    import torch

    assert all(
        (av, datasets, keras_hub, matplotlib, safetensors, tensorflow_datasets, torch)
    )
    from hostile.presets import preset

    preset()


def main(root, names):
    warnings.simplefilter("ignore")
    root = pathlib.Path(root).resolve()
    from hostile import forge, proof
    from hostile.cases import CASES

    forge.make_outside(root / "outside")
    sys.path.append(str(root / "outside"))
    sys.dont_write_bytecode = True
    cases = {case.id: case for case in CASES}
    names = names or list(cases)
    cases |= proof.PROOFS
    watch = Watch(root)
    forge.PORT = watch.port
    signal.signal(signal.SIGALRM, _too_long)
    _warm_up()
    precious = {p: p.read_bytes() for p in watch.outside.rglob("*") if p.is_file()}
    for number, name in enumerate(names):
        folder = root / "cases" / str(number) / "given"
        folder.mkdir(parents=True)
        result = run(cases[name], folder, watch)
        shutil.rmtree(folder.parent)
        result["changed"] = [
            str(p)
            for p, old in precious.items()
            if not p.exists() or p.read_bytes() != old
        ]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
