"""What importing costs, life without TensorFlow, and what these tests ask for."""

import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_mdm

IMPORT = """
import sys, time
import keras
start = time.perf_counter()
import keras_mdm
print(time.perf_counter() - start, "tensorflow" in sys.modules)
"""


def test_import_is_quick(capsys):
    seconds, tensorflow = run_python(IMPORT).split()
    with capsys.disabled():
        print(f"\nimport keras_mdm: {float(seconds):.2f} s on top of Keras")
    assert float(seconds) < 2.0
    if keras.backend.backend() == "jax":
        assert tensorflow == "False"


NAMES = """
import functools, sys
import keras_mdm
for name in sys.stdin.read().split():
    try:
        functools.reduce(getattr, name.split(".")[1:], keras_mdm)
    except AttributeError:
        print(name)
"""


def test_names_of_the_documentation_are_there_after_one_import():
    package = pathlib.Path(keras_mdm.__file__).parent
    texts = [path.read_text() for path in package.rglob("*.py")]
    readme = package.parent / "README.md"
    texts += [readme.read_text()] if readme.is_file() else []
    lines = [line for text in texts for line in text.splitlines()]
    lines = [line for line in lines if not re.match(r"\s*(from|import) ", line)]
    names = set(re.findall(r"\bkeras_mdm(?:\.\w+)+", "\n".join(lines)))
    # What files say of other files.
    names = sorted(name for name in names if not _is_module(name))
    assert "keras_mdm.metrics.Judge" in names
    assert run_python(NAMES, stdin="\n".join(names)).split() == []


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


WITHOUT = """
import sys
sys.modules["tensorflow"] = None  # an import of it raises ImportError
import tempfile
import numpy as np
from helpers import batch_of, keras, keras_mdm, trainer
mdm = trainer()
mdm.fit(batch_of(4, 8), batch_size=4, verbose=0)
pictures = mdm.generate(labels=[0, 1], num_steps=2, seed=0)
assert pictures.shape == (2, 8, 8, 1)
folder = tempfile.mkdtemp() + "/preset"
mdm.save_to_preset(folder)
other = keras_mdm.MDM.from_preset(folder)
again = other.generate(labels=[0, 1], num_steps=2, seed=0)
np.testing.assert_array_equal(again, pictures)
print("done")
"""


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="this is the TensorFlow backend"
)
def test_without_tensorflow():
    assert run_python(WITHOUT).split()[-1] == "done"


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX' programs")
def test_products_of_float32_are_asked_for_in_full():
    """On accelerators, too, whose rounding no test here allows for."""
    import jax

    program = jax.jit(lambda x: x @ x).lower(np.zeros((2, 2), "float32"))
    assert "HIGHEST" in program.as_text()
