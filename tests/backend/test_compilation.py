"""Programs that are kept on the disk and told of."""

import pathlib

import keras
import pytest
from helpers import batch_of, run_python, trainer

from keras_mdm.backend import compilation

jax_only = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only JAX keeps programs"
)

RECIPES = str(pathlib.Path(__file__).parents[2] / "recipes")


def use(mdm):
    batch = batch_of(4, 8)
    mdm.train_on_batch(batch)
    mdm.test_on_batch(batch)
    mdm.generate(labels=[1], num_steps=2, seed=0)


@jax_only
def test_programs_of_training_evaluation_and_sampling_are_found_again(monkeypatch):
    import jax

    # The cache of this test session, see `conftest.py`.
    monkeypatch.setattr(compilation, "_MIN_SECONDS", 0.0)
    told = {}

    def tell(name, seconds, found):
        assert seconds > 0
        told[name] = found

    compilation.tell_programs(tell)
    use(trainer())
    wanted = {"train_step", "test_step", "draw"}
    assert wanted <= set(told)
    jax.clear_caches()
    told.clear()
    use(trainer())
    assert {name: told[name] for name in wanted} == dict.fromkeys(wanted, True)


@jax_only
def test_the_folder_can_be_chosen_and_turned_off(tmp_path):
    code = f"""
import os, sys
del os.environ["JAX_COMPILATION_CACHE_DIR"]
os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
sys.path.insert(0, {RECIPES!r})
from keras_mdm_recipes import start
start.choose_backend("jax")
import jax
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1, inline=True)(1.0)
start.choose_backend("jax", "none")
print(jax.config.jax_enable_compilation_cache)
"""
    folder, enabled = run_python(code).split()
    assert folder == str(tmp_path / "keras_mdm" / "jax")
    assert list((tmp_path / "keras_mdm" / "jax").iterdir())
    assert enabled == "False"
