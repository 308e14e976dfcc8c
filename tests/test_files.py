"""Files and folders that appear whole or not at all, whenever the writer is killed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from keras_mdm import files, paths
from keras_mdm.files import check_free, whole_file, whole_folder, write_text
from keras_mdm.paths import as_path

pytestmark = pytest.mark.once

PARTS = ("config", "weights", "vocabulary")

# For each line of its input, a process of its own writes version 2 of a folder or a
# file, and ends at the n-th change of the disk that Python tells of: without clearing
# up, as a process that is killed. They are forks, which import nothing again.
WRITER = """
import json, os, sys
from keras_mdm import files

def hook(event, arguments):
    global left
    writes = event == "open" and arguments[1] is None or (
        event == "open" and isinstance(arguments[1], str) and arguments[1][0] != "r")
    if writes or event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove"):
        left -= 1
        if left < 0:
            os._exit(9)

def write(target, kind):
    if kind == "file":
        with files.whole_file(target) as part:
            part.write_text("2" * 1000)
    else:
        with files.whole_folder(target, lambda path: True, overwrite=True) as folder:
            for name in {parts!r}:
                (folder / name).write_text("2")

for line in sys.stdin:
    left, target, kind = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            sys.addaudithook(hook)
            write(target, kind)
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def kill():
    """Whether the writer was killed at its `at`-th change, rather than finished."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    package = pathlib.Path(importlib.util.find_spec("keras_mdm").origin).parent
    with subprocess.Popen(
        [sys.executable, "-c", WRITER.format(parts=PARTS)],
        cwd=package.parent,  # where `-c` looks for modules first
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def kill(at, target, kind):
            print(json.dumps([at, str(target), kind]), file=process.stdin, flush=True)
            code = int(process.stdout.readline())
            assert code in (0, 9)
            return code == 9

        yield kill
        process.stdin.close()


def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path, kill):
    seen = set()
    for at in range(100):
        folder = tmp_path / str(at)
        for name in PARTS:
            write_text(folder / name, "1")
        write_text(folder / "notes" / "mine.txt", "mine")
        killed = kill(at, folder, "folder")
        check_free(folder, lambda path: True, overwrite=True)  # what readers do
        versions = {(folder / name).read_text() for name in PARTS}
        assert len(versions) == 1
        assert (folder / "notes" / "mine.txt").read_text() == "mine"
        seen |= versions
        if not killed:
            break
    assert seen == {"1", "2"} and at > 6
    assert {entry.name for entry in folder.iterdir()} == {*PARTS, "notes"}


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path, kill):
    path = tmp_path / "a.txt"
    for at in range(20):
        path.write_text("1")
        killed = kill(at, path, "file")
        assert path.read_text() == ("1" if killed else "2" * 1000)
        if not killed:
            break
    assert at >= 3


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "p"
    with pytest.raises(OSError, match="nothing of it was left"):
        with whole_folder(path, lambda path: True) as folder:
            (folder / "config").write_text("mine")
            path.mkdir()
            (path / "theirs").write_text("theirs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p"]
    assert [entry.name for entry in path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_not_ours_is_never_replaced(tmp_path, what):
    path = tmp_path / "p"
    if what == "file":
        path.write_text("theirs")
    elif what == "folder":
        write_text(path / "config", "theirs")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`path` exists and holds something else"):
        with whole_folder(path, lambda path: False, overwrite=True):
            raise AssertionError("nothing may be written")
    assert os.path.lexists(path)


def test_links_are_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = tmp_path / "a.json"
    path.symlink_to(precious)
    write_text(path, "{}")
    assert precious.read_text() == "precious"
    assert path.read_text() == "{}" and not path.is_symlink()


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_modes_follow_the_umask(tmp_path):
    """As those of files that Python opens itself."""
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "whole", "")
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "whole")}
    assert len(modes) == 1


def test_long_names(tmp_path):
    name = "ö" * 120 + ".txt"  # 244 of the 255 bytes that a name may have
    write_text(tmp_path / name, "x")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/a") == tmp_path / "a"
    write_text("~/b.json", json.dumps(1))
    assert json.loads((tmp_path / "b.json").read_text()) == 1
    assert as_path(pathlib.Path("c")) == pathlib.Path("c")


def test_what_a_killed_writer_left_is_cleared_once(tmp_path):
    code = textwrap.dedent(
        f"""
        import os
        from keras_mdm.files import whole_file, whole_folder
        kept = ()
        for kind in (whole_file, lambda path: whole_folder(path, lambda path: True)):
            kept = kind({str(tmp_path)!r} + "/a.png"), *kept
            kept[0].__enter__()
        os._exit(9)
        """
    )
    subprocess.run([sys.executable, "-c", code])
    left = {entry.name for entry in tmp_path.iterdir()}
    assert len(left) == 2 and all(name.startswith(".a.png.part-") for name in left)
    mine = [".a.png", ".a.png.part-1234", "b.part-12345678"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    precious = tmp_path / "c" / "precious"
    write_text(precious, "precious")
    (tmp_path / ".c.part-12345678").symlink_to(precious.parent)
    with pytest.warns(UserWarning, match="killed") as told:
        write_text(tmp_path / "b", "")
    assert len(told) == 1 and all(name in str(told[0].message) for name in left)
    with whole_file(tmp_path / "d") as living:
        files._cleared.clear()
        write_text(tmp_path / "e", "")
        assert living.exists()
    assert not {entry.name for entry in tmp_path.iterdir()} & left
    assert precious.exists() and all((tmp_path / name).exists() for name in mine)


def test_a_replacement_that_is_a_link_moves_nothing(tmp_path):
    """Readers finish what a killed writer of a folder had begun."""
    write_text(tmp_path / "mine" / "precious", "precious")
    theirs = tmp_path / "theirs"
    write_text(theirs / "config", "1")
    (theirs / ".replacement").symlink_to(tmp_path / "mine")
    files.finish_replacement(theirs)
    assert (tmp_path / "mine" / "precious").exists()
    assert not (theirs / "precious").exists()


def test_rows_are_not_added_through_a_link(tmp_path):
    (tmp_path / "history.csv").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="history.csv"):
        files.append_whole(tmp_path / "history.csv", b"row")
    assert not (tmp_path / "precious").exists()
    with pytest.raises(ValueError, match="is a link"):
        paths.own_folder(tmp_path, "history.csv")


def test_bytes_are_added_whole_or_not_at_all(tmp_path):
    """Where a file may not grow beyond 100 bytes, of which the disk takes a part."""
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "rows", resource.getrlimit(resource.RLIMIT_FSIZE)
    files.append_whole(path, b"a" * 60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError):
            files.append_whole(path, b"b" * 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"a" * 60
    files.append_whole(path, b"c")
    assert path.read_bytes() == b"a" * 60 + b"c"


def test_a_file_that_another_process_took_for_a_leftover(tmp_path, monkeypatch):
    """Between being made and being locked it has no living writer."""
    touch = pathlib.Path.touch

    def cleared(path, **options):
        touch(path, **options)
        path.unlink()

    monkeypatch.setattr(pathlib.Path, "touch", cleared)
    files.write_text(tmp_path / "x", "written")
    assert (tmp_path / "x").read_text() == "written"
    assert os.listdir(tmp_path) == ["x"]
