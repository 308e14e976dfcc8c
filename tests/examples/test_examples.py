"""Each extension in one file: the examples run, and do what they say."""

import pathlib
import runpy
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mdm
from keras_mdm import data

pytestmark = pytest.mark.once

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """A function that imports an example by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        # Anew each time: what it registers belongs to one test.
        sys.modules.pop(name, None)
        return __import__(name)

    return load


def small_batches(count=2):
    source = data.open_source("digits")
    dataset = data.make_dataset(source, 32, batch_size=4, seed=0)
    return [batch for _, batch in zip(range(count), dataset, strict=False)]


def test_every_example_explains_itself(capsys):
    for path in sorted(EXAMPLES.glob("*.py")):
        source = path.read_text()
        assert f"python examples/{path.name}" in source
        assert runpy.run_path(str(path))["main"].__module__ != "__main__"


def test_own_sampler_is_exact_where_the_answer_is_known(example):
    """One point: every run ends there. Normal data: the right spread, any start."""
    sampler = example("own_sampler").SDEDPMSolver()
    visited = keras_mdm.diffusion.spacing.visited_timesteps(
        keras_mdm.NoiseSchedule(), 40
    )
    alpha, sigma = (t[visited] for t in keras_mdm.NoiseSchedule().levels())
    c = sampler.coefficients(alpha, sigma)
    rng = np.random.default_rng(0)

    def run(denoise):
        x, before = rng.normal(size=20_000), np.zeros(20_000)
        start = x
        for i in range(40):
            x0 = denoise(x, alpha[i], sigma[i])
            x = c.on_x[i] * x + c.on_x0[i] * x0 + c.on_history[i] * before
            x, before = x + c.on_noise[i] * rng.normal(size=x.shape), x0
        return start, x

    _, found = run(lambda *_: 0.3)
    np.testing.assert_allclose(found, 0.3, atol=1e-9)
    s = 0.5
    start, found = run(lambda x, a, b: a * s**2 * x / (a**2 * s**2 + b**2))
    assert found.std() == pytest.approx(s, rel=0.05)
    assert abs(np.corrcoef(start, found)[0, 1]) < 0.1


def test_own_sampler_draws(example, tmp_path, capsys):
    path = tmp_path / "drawn.png"
    arguments = ["--steps", "3", "--num-samples", "2", "--output", str(path)]
    example("own_sampler").main(arguments)
    assert Image.open(path).size == (128, 64)


def test_own_schedule_is_trained_saved_and_loaded(example, tmp_path, capsys):
    module = example("own_schedule")
    folder, path = tmp_path / "preset", tmp_path / "drawn.png"
    module.main(["--steps", "1", "--output", str(path), "--preset", str(folder)])
    assert Image.open(path).size == (320, 32)
    loaded = keras_mdm.MDM.from_preset(folder)
    alpha, sigma = loaded.schedule.levels()
    u = np.arange(1, 1000) / 1000
    expected = -1.5 * np.sign(0.5 - u) * np.log(1.0 - 2.0 * np.abs(0.5 - u))
    np.testing.assert_allclose(2 * np.log(alpha[1:-1] / sigma[1:-1]), expected)
    assert sigma[1] < 0.05 and alpha[-1] == 0.0


def test_rectified_flow_learns(example):
    """A batch is learned by heart: the loss falls, and what is saved is loaded."""
    mdm = example("rectified_flow").make_model()
    mdm.compile(keras_mdm.AdamW(2e-3))
    (batch,) = small_batches(1)
    losses = mdm.fit([batch] * 12, epochs=2, verbose=0).history["loss"]
    assert losses[1] < 0.8 * losses[0]
    config = mdm.get_config()
    copy = keras_mdm.MDM.from_config(config)
    assert copy.process.timesteps.mean == 0.8 and copy.schedule.path == "flow"
    images = mdm.generate(labels=[0, 1], num_steps=2, seed=0)
    assert images.shape == (2, 32, 32, 1)


def test_a_transformer_is_nested(example, tmp_path):
    module = example("transformer")
    network = module.make_network(width=32, num_blocks=1)
    mdm = keras_mdm.MDM(network, seed=0)
    mdm.compile(keras_mdm.AdamW(2e-3))
    (batch,) = small_batches(1)
    losses = mdm.fit([batch] * 8, epochs=2, verbose=0).history
    assert losses["loss_16"][1] < losses["loss_16"][0]
    drawn = mdm.generate(labels=[0, 1], num_steps=2, seed=0, return_pyramid=True)
    assert [a.shape for a in drawn.values()] == [(2, 32, 32, 1), (2, 16, 16, 1)]
    mdm.save_to_preset(tmp_path / "preset")
    loaded = keras_mdm.MDM.from_preset(tmp_path / "preset")
    again = loaded.generate(labels=[0, 1], num_steps=2, seed=0)
    np.testing.assert_array_equal(again, drawn[32])


def test_pixels_are_put_back_where_patches_were_cut(example):
    inner = example("transformer").Transformer(8, 8, 1, patch=4, feature_channels=3)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    patches = inner._patches(keras.ops.convert_to_tensor(x))
    assert patches.shape == (2, 4, 48)
    first = keras.ops.convert_to_numpy(patches)[:, 1].reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(first, x[:, :4, 4:])
    back = keras.ops.convert_to_numpy(inner._pixels(patches))
    np.testing.assert_array_equal(back, x)
