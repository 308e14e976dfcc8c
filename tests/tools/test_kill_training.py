"""`tools/kill_training.py`: a recipe that is killed and resumed leaves the same.

The same tool by hand, with `--kills 50`, on each backend and with `--workers 2`.
"""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks")
def test_ten_kills():
    done = subprocess.run(
        [sys.executable, str(TOOLS / "kill_training.py"), "--kills", "10"]
        + ["--backend", keras.backend.backend()],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(TOOLS.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert sum(report["kills"].values()) == 10 and report["different"] == {}
    assert len(report["kills"]) > 3  # Kinds of moments.
