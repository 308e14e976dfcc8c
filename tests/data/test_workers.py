"""Worker processes of programs that can't have any: a sentence, not a wait for ever."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.once

# Its pictures are white where they are read by a process that has imported Keras.
PROGRAM = """
    import sys
    import numpy as np
    from keras_mdm import data

    class Pictures(data.Source):
        def __len__(self):
            return 4

        def _read(self, index):
            white = 255 * ("keras" in sys.modules)
            return {"image": np.full((16, 16, 3), white, "uint8")}

    def read():
        dataset = data.make_dataset(Pictures("seen", 3), 16, 4, num_workers=1)
        images = next(iter(dataset))["images"]
        print("shape", images.shape, "white", images.any())
"""
GUARDED = PROGRAM + "\n    if __name__ == '__main__':\n        read()\n"
BARE = PROGRAM + "\n    read()\n"
KILLED = """
    import os, signal
    from keras_mdm import data

    source = data.open_source("shapes")
    batches = iter(data.make_dataset(source, 16, 4, num_workers=1))
    print("shape", next(batches)["images"].shape, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code, way, folder):
    code = textwrap.dedent(code)
    file = folder / "program.py"
    file.write_text(code)
    command = {
        "stdin": [sys.executable, "-"],
        "-c": [sys.executable, "-c", code],
        "file": [sys.executable, str(file)],
        "-m": [sys.executable, "-m", "program"],
    }[way]
    root = str(pathlib.Path(__file__).parents[2])
    paths = [root, str(folder), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        command,
        input=code if way == "stdin" else "",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("code", "way", "told"),
    [
        (GUARDED, "stdin", "needs a program in a file"),
        (BARE, "file", "under `if __name__ == '__main__':`"),
        (BARE, "-m", "under `if __name__ == '__main__':`"),
    ],
)
def test_programs_that_can_have_no_workers(code, way, told, tmp_path):
    done = run(code, way, tmp_path)
    assert done.returncode == 1 and "shape (" not in done.stdout
    assert told in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    ("code", "way"), [(GUARDED, "file"), (GUARDED, "-m"), (BARE, "-c")]
)
def test_programs_that_can_have_workers(code, way, tmp_path):
    done = run(code, way, tmp_path)
    assert "shape (4, 16, 16, 3) white False" in done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no such signals")
def test_workers_leave_signals_to_the_program():
    code = (
        "import os, signal; from keras_mdm.data import workers\n"
        "workers.multiprocessing.parent_process = lambda: workers.threading.Event()\n"
        "workers.threading.Event.join = workers.threading.Event.wait\n"
        "workers.end_with_parent()\n"
        "for s in (signal.SIGINT, signal.SIGTERM): os.kill(os.getpid(), s)\n"
        "print('left', signal.alarm(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "left 60\n", done.stderr


def test_workers_end_with_a_program_that_is_killed(tmp_path):
    """They hold its output open: this would not return before."""
    done = run(KILLED, "-c", tmp_path)
    assert done.returncode == -signal.SIGKILL and "shape (4" in done.stdout
