"""On JAX everything here works where TensorFlow is not installed."""

import os
import subprocess
import sys

import keras
import pytest

# Finders that do not find TensorFlow, as if it were not there.
HIDE = """
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, key):
        return getattr(self.finder, key)
if {hide}:
    sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""

LIGHT = """
heavy = {"tensorflow_datasets", "grain", "tensorflow"}
import keras_mdm.data
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""

PREPARE_READ_FIT = """
import keras
from keras_mdm.data import make_dataset, open_source, shapes_builder
for config in shapes_builder.Shapes.BUILDER_CONFIGS:
    config.num_train, config.num_test = 12, 4
for name in ("shapes/single", "shapes/clips"):
    source = open_source(name, data_dir=sys.argv[1])
    assert len(source) == 12 and source[0]["caption"]
source = open_source("shapes", data_dir=sys.argv[1])
dataset = make_dataset(source, 16, 4)
class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
    def call(self, batch):
        return self.dense(keras.ops.cast(batch["images"], "float32") / 255)
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_):
        return keras.ops.mean(y_pred**2)
model = Model()
model.compile("sgd")
model.fit(dataset, epochs=2, verbose=0)
assert "tensorflow" not in sys.modules
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(keras.config.backend() != "jax", reason="about the JAX backend")
@pytest.mark.parametrize("hide", [True, False], ids=["not installed", "installed"])
def test_tensorflow_is_never_imported(tmp_path, hide):
    code = HIDE.replace("{hide}", str(hide)) + LIGHT + PREPARE_READ_FIT
    finished = run(code, str(tmp_path))
    assert finished.returncode == 0, finished.stderr[-3000:]
