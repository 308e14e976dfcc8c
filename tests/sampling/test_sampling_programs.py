"""The compiled sampling run: what is compiled anew, and what it sees and draws."""

import keras
import numpy as np
import pytest
from helpers import counting, randomize, tiny_mdm, tiny_nest, to_numpy, values_of

import keras_mdm
from keras_mdm import backend
from keras_mdm.diffusion.samplers import get_sampler
from keras_mdm.diffusion.spacing import visited_timesteps
from keras_mdm.sampling.plan import RunKind, plan
from keras_mdm.sampling.run import SamplingRun
from keras_mdm.sampling.settings import SamplingSettings


def _draw(mdm, **options):
    options = {"labels": [0, 1], "seed": 5, "num_steps": 3, **options}
    return mdm.generate(output="float", **options)


@pytest.fixture(scope="module")
def mdm():
    network = randomize(tiny_nest(2, resolution=4))
    return tiny_mdm(network=network, ema_momentum=0.5)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch runs eagerly: nothing is traced"
)
def test_what_is_compiled_anew(mdm):
    with counting(mdm.network, "denoise") as calls:

        def traced(**options):
            before = len(calls)
            _draw(mdm, **options)
            return len(calls) > before

        assert traced(sampler="ddpm")  # the counter counts
        for options in (
            {"num_steps": 7},
            {"num_steps": 1000 // 50},
            {"seed": 9},
            {"seed": [3, 1]},
            {"guidance_scale": 7.5},
            {"labels": [2, 2]},
            {"labels": 1, "num_samples": 2},
            {"use_ema": False},
        ):
            assert not traced(sampler="ddpm", **options), options
        # The same program: DDIM with noise is DDPM with other coefficients.
        assert not traced(sampler="ddim", eta=1.0)
        assert not traced(sampler="ddim", eta=0.3)
        assert traced(sampler="ddim")
        assert not traced(sampler="ddim", eta=0.0)
        assert traced(labels=[0, 1, 2])  # another shape


def test_changed_weights_are_seen(mdm):
    """Raw and averaged, by programs that were compiled before the change."""
    mdm.reset_ema()
    first = {use: _draw(mdm, use_ema=use) for use in (True, False)}
    np.testing.assert_array_equal(first[True], first[False])
    raw = mdm.network.get_weights()
    for average, value in zip(mdm.ema.averages, raw, strict=True):
        average.assign(value + 0.1)
    moved = _draw(mdm, use_ema=True)
    assert np.abs(moved - first[True]).max() > 1e-3
    np.testing.assert_array_equal(_draw(mdm, use_ema=False), first[False])
    mdm.network.set_weights([value + 0.1 for value in raw])
    mdm.reset_ema()
    for use in (True, False):
        np.testing.assert_allclose(_draw(mdm, use_ema=use), moved, atol=1e-6)
    mdm.network.set_weights(raw)
    np.testing.assert_array_equal(_draw(mdm, use_ema=False), first[False])
    mdm.reset_ema()


def test_generate_leaves_the_model_as_it_was(mdm):
    before = values_of(mdm.variables)
    _draw(mdm)
    for one, other in zip(before, values_of(mdm.variables), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_step_adds_noise_of_its_own():
    """A network that predicts a black picture: what is left is the noise.

    Its variance after all but the last step must be that of independent steps;
    one noise for all steps, or that of the start again, would add up.
    """
    network = keras_mdm.UNet(32, (8,), 1, groups=8, mid_blocks=False, image_channels=1)
    mdm = keras_mdm.MDM(network, prediction="x0", ema_momentum=None)
    num_steps = 12
    kind = RunKind(32, False, False, False, False, False, True, "none")
    run = SamplingRun(mdm, kind)
    settings = SamplingSettings(num_steps=num_steps)
    table = plan(mdm.process, [32], get_sampler("ddpm"), settings)
    table = {key: keras.ops.convert_to_tensor(value) for key, value in table.items()}
    seeds = keras.ops.convert_to_tensor(np.arange(4, dtype="int32"))
    numbers = ("guidance_scale", "guidance_rescale", "percentile", "maximum")
    options = {key: keras.ops.convert_to_tensor(1.0) for key in numbers}
    condition, start = run.prepare(seeds, {}, None)

    def run_steps(x, first, stop):
        count = keras.ops.convert_to_tensor(num_steps, "int32")
        result, _ = run.run_steps(
            x, x, first, stop, seeds, condition, count, table, options
        )
        return result

    compiled = backend.compile_with_weights(run_steps, network.variables, False)
    weights = list(map(keras.ops.convert_to_tensor, network.variables))

    def after(x, first, stop):
        bounds = (keras.ops.convert_to_tensor(v, "int32") for v in (first, stop))
        return compiled(weights, x, *bounds)

    visited = visited_timesteps(mdm.schedule, num_steps)
    alpha, sigma = (values[visited] for values in mdm.schedule.levels())
    c = get_sampler("ddpm").coefficients(alpha, sigma)
    gamma = 1.0
    for i in range(num_steps - 1):
        gamma = c.on_x[i] ** 2 * gamma + c.on_noise[i] ** 2
    found = to_numpy(after(start, 0, num_steps - 1)[0])
    assert found.var() == pytest.approx(gamma, rel=0.1)

    x, rows = start, [to_numpy(start[0]).ravel()]
    for i in range(4):
        moved = after(x, i, i + 1)
        added = to_numpy(moved[0]) - c.on_x[i] * to_numpy(x[0])
        assert added.std() == pytest.approx(c.on_noise[i], rel=0.1)
        rows.append(added.ravel())
        x = moved
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 5 / len(rows[0]) ** 0.5
