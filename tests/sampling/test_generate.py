"""`generate` against a loop written out here, and its options against each other."""

import itertools

import numpy as np
import pytest
from helpers import lean_nest, randomize, tiny_mdm, to_numpy

import keras_mdm
from keras_mdm.diffusion.noise import sample_noise
from keras_mdm.diffusion.spacing import visited_timesteps

LABELS = [0, 2]


@pytest.fixture(scope="module")
def mdm():
    return tiny_mdm(network=randomize(lean_nest(2, resolution=4)))


def draw(mdm, labels=LABELS, **options):
    options = {
        "seed": 5,
        "sampler": "ddim",
        "num_steps": 3,
        "guidance_scale": 2.5,
        "output": "float",
        "return_pyramid": True,
        **options,
    }
    return mdm.generate(labels=labels, **options)


@pytest.fixture(scope="module")
def usual(mdm):
    return draw(mdm)


def same(first, second, atol=2e-5):
    assert list(first) == list(second)
    return all(np.allclose(first[r], second[r], atol=atol) for r in first)


def _clean(mdm, x, t, scale):
    """Guided clean pictures of both resolutions at noise level `t`, cut to range."""
    halves = []
    for drop in (True, False):
        inputs = {
            "images": [level.astype("float32") for level in x],
            "timesteps": np.full(2, t - 1, "float32"),
            "labels": np.array(LABELS, "int32"),
            "condition_drop": np.array([drop] * 2),
        }
        halves.append(to_numpy(mdm.network(inputs)))
    clean = []
    for level, u, c in zip(_levels(mdm, t), *halves, strict=True):
        v = u + scale * (c - u)
        clean.append(np.clip(level[0] * x[len(clean)] - level[1] * v, -1, 1))
    return clean


def _levels(mdm, t):
    """Shares (square-rooted) of signal and noise of both resolutions."""
    gammas = [mdm.schedule.alphas_cumprod(r).astype("float64")[t] for r in (2, 1)]
    return [(np.sqrt(gamma), np.sqrt(1 - gamma)) for gamma in gammas]


def _reference(mdm, num_steps, scale, sampler="ddim"):
    """A run as the papers write it, in numpy."""
    seeds = np.array([5, 6], "int32")
    indices = visited_timesteps(mdm.schedule, num_steps)
    x = [to_numpy(sample_noise(seeds, r, 0, (r, r, 1))) for r in (8, 4)]
    before = None
    for step, (t, s) in enumerate(itertools.pairwise(indices)):
        clean = _clean(mdm, x, t, scale)
        here, there = _levels(mdm, t), _levels(mdm, s)
        if sampler == "ddpm":
            for i, ((a, _), (a_s, _)) in enumerate(zip(here, there, strict=True)):
                size = x[i].shape[1]
                noise = to_numpy(sample_noise(seeds, size, step + 1, (size, size, 1)))
                forward = (a / a_s) ** 2
                mean = np.sqrt(forward) * (1 - a_s**2) * x[i]
                mean = (mean + a_s * (1 - forward) * clean[i]) / (1 - a**2)
                variance = (1 - forward) * (1 - a_s**2) / (1 - a**2)
                x[i] = mean + np.sqrt(variance) * noise
            continue
        if sampler == "dpm_solver" and 0 < step < num_steps - 1:
            data = []
            for i, ((a, b), (a_s, b_s)) in enumerate(zip(here, there, strict=True)):
                a_p, b_p = _levels(mdm, indices[step - 1])[i]
                h, h_p = np.log(a_s * b / b_s / a), np.log(a * b_p / b / a_p)
                data.append(clean[i] + h / h_p / 2 * (clean[i] - before[i]))
        else:
            data = clean
        # DDIM, with the picture extrapolated or not.
        moved = [
            a_s * x0 + b_s * (x_t - a * x0) / b
            for x_t, x0, (a, b), (a_s, b_s) in zip(x, data, here, there, strict=True)
        ]
        if sampler == "heun" and s > 0:
            other = _clean(mdm, moved, s, scale)
            for i, ((a, b), (a_s, b_s)) in enumerate(zip(here, there, strict=True)):
                # The linear part exactly, the mean of both clean pictures for the rest.
                mean = (clean[i] + other[i]) / 2
                moved[i] = b_s / b * x[i] + (a_s - a * b_s / b) * mean
        x, before = moved, clean
    return dict(zip((8, 4), x, strict=True))


def test_ddim(mdm, usual):
    assert list(usual) == [8, 4] and usual[8].shape == (2, 8, 8, 1)
    assert same(usual, _reference(mdm, 3, 2.5))
    # Another number of steps through the program that was compiled for three.
    assert same(draw(mdm, num_steps=5), _reference(mdm, 5, 2.5))
    assert same(draw(mdm, guidance_scale=0.5), _reference(mdm, 3, 0.5))


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpm_solver"])
def test_other_samplers(mdm, sampler):
    found = draw(mdm, num_steps=4, sampler=sampler)
    assert same(found, _reference(mdm, 4, 2.5, sampler), 1e-4)


def test_output_kinds(mdm, usual):
    pictures = draw(mdm, output="uint8", return_pyramid=False)
    assert pictures.dtype == np.uint8 and pictures.shape == (2, 8, 8, 1)
    np.testing.assert_array_equal(pictures, np.round((usual[8] + 1) * 127.5))
    for level in usual.values():
        assert level.dtype == np.float32 and np.abs(level).max() <= 1.0
    assert pictures.std() > 1  # not one flat colour


def test_inner_resolution_is_that_doll(mdm):
    inner = keras_mdm.MDM(mdm.network.inner, ema_momentum=None)
    found = draw(mdm, resolution=4)
    assert list(found) == [4]
    assert same(found, draw(inner))
    mdm.resolution = 4
    try:
        assert same(draw(mdm), found)
        assert draw(mdm, resolution=8)[8].shape == (2, 8, 8, 1)
    finally:
        mdm.resolution = 8


def test_seeds(mdm, usual):
    """A picture depends on its own seed and label alone."""
    assert same(draw(mdm), usual, 0)
    assert same(draw(mdm, seed=[5, 6]), usual, 0)
    turned = draw(mdm, labels=LABELS[::-1], seed=[6, 5])
    assert same({r: level[::-1] for r, level in turned.items()}, usual)
    alone = draw(mdm, labels=2, seed=6)
    assert same(alone, {r: level[1:] for r, level in usual.items()})
    assert not same(draw(mdm, seed=7), usual, 1e-2)
    assert not np.allclose(usual[8][0], usual[8][1], atol=1e-2)
    first, second = (draw(mdm, seed=None) for _ in range(2))
    assert not same(first, second, 1e-2)


def test_batch_size_changes_nothing(mdm):
    whole = draw(mdm, labels=[0, 1, 2])
    assert same(draw(mdm, labels=[0, 1, 2], batch_size=2), whole)
    assert whole[8].shape[0] == 3


def test_num_samples(mdm, usual):
    found = draw(mdm, num_samples=2)
    assert found[8].shape[0] == 4
    # Two of the first label with seeds 5 and 6, then two of the second.
    assert same(draw(mdm, labels=[0, 0, 2, 2]), found)


def test_guidance_scale_1_is_the_conditional_picture(mdm):
    plain = draw(mdm, guidance_scale=1.0)
    assert same(draw(mdm, guidance_scale=1.0 + 1e-6), plain)
    # Guided from the same condition to the same condition: any scale.
    assert same(draw(mdm, negative_labels=LABELS), plain)
    assert not same(draw(mdm, guidance_scale=2.5), plain, 1e-3)


def test_negative_labels(mdm, usual):
    one = draw(mdm, negative_labels=1)
    assert same(one, draw(mdm, negative_labels=[1, 1]), 0)
    assert not same(one, usual, 1e-3)
    # At scale 0 the negative condition alone is drawn.
    other = draw(mdm, labels=[1, 1], guidance_scale=1.0)
    assert same(draw(mdm, negative_labels=1, guidance_scale=0.0), other)


def test_guidance_interval(mdm, usual):
    plain = draw(mdm, guidance_scale=1.0)
    assert same(draw(mdm, guidance_interval=(0.0, 1.0)), usual)
    assert same(draw(mdm, guidance_interval=(0.002, 0.003)), plain)  # none is there
    part = draw(mdm, guidance_interval=(0.0, 0.5))
    assert not same(part, usual, 1e-3) and not same(part, plain, 1e-3)


def test_guidance_rescale(mdm, usual):
    assert same(draw(mdm, guidance_rescale=0.0), usual, 0)
    assert same(draw(mdm, guidance_rescale=1e-7), usual)
    assert not same(draw(mdm, guidance_rescale=1.0), usual, 1e-3)


def test_thresholds(mdm, usual):
    none = draw(mdm, threshold="none")
    dynamic = draw(mdm, threshold="dynamic", dynamic_percentile=0.8)
    assert not same(dynamic, usual, 1e-3) and not same(none, usual, 1e-3)
    # Of all values the largest, and no limit below it: divided by the maximum only.
    assert same(draw(mdm, threshold="dynamic", dynamic_maximum=1.0), usual)


def test_callback_and_progress(mdm, usual, capsys):
    """Step by step: the same pictures, and a look at the clean ones at each step."""
    seen = []

    def look(step, num_steps, pyramid):
        shapes = {r: level.shape for r, level in pyramid.items()}
        seen.append((step, num_steps, shapes))

    found = draw(mdm, callback=look, progress=True)
    assert same(found, usual)
    shapes = {8: (2, 8, 8, 1), 4: (2, 4, 4, 1)}
    assert seen == [(step, 3, shapes) for step in range(3)]
    assert "3/3" in capsys.readouterr().out
    # A batch that was filled up is shown without what fills it.
    seen.clear()
    draw(mdm, labels=[0, 1, 0], batch_size=2, num_steps=1, callback=look)
    assert [shapes[8][0] for _, _, shapes in seen] == [2, 1]


def test_defaults_belong_to_the_model(mdm, usual):
    defaults = {"sampler": "ddim", "num_steps": 3, "guidance_scale": 2.5}
    other = keras_mdm.MDM(mdm.network, ema_momentum=None, sampling=defaults)
    found = other.generate(labels=LABELS, seed=5, output="float", return_pyramid=True)
    assert same(found, usual)


def test_unconditional():
    mdm = tiny_mdm(network=randomize(lean_nest(1, classes=0, resolution=4)))
    pictures = mdm.generate(num_samples=3, num_steps=2, seed=0)
    assert pictures.shape == (3, 4, 4, 1)
    with pytest.raises(ValueError, match="`labels` was given to a model that is not"):
        mdm.generate(labels=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": None}, r"condition needs \['labels'\]"),
        ({"labels": 3}, "'labels' must be from 0 to 2"),
        ({"labels": 0.5}, "'labels' must be whole numbers"),
        ({"negative_labels": 9}, "'labels' must be from 0 to 2"),
        ({"negative_labels": [1, 1, 1]}, "one entry, or one for each"),
        ({"negative_labels": 1, "guidance_scale": 1}, "negative condition needs"),
        ({"resolution": 16}, r"resolutions \(8, 4\).*resolution=16"),
        ({"num_steps": 0}, "`num_steps` must be a whole number from 1"),
        ({"num_steps": 1001}, "`num_steps` must be from 1 to the 1000"),
        ({"sampler": "euler"}, "`sampler` must be one of .*'euler'"),
        ({"threshold": "clip"}, "`threshold` must be one of .*'clip'"),
        ({"eta": 2.0}, "`eta` must be from 0 to 1"),
        ({"eta": 0.5, "sampler": "heun"}, "`eta` belongs to the sampler 'ddim'"),
        ({"guidance_scale": -1.0}, "`guidance_scale` must be from 0"),
        ({"guidance_rescale": 1.5}, "`guidance_rescale` must be from 0 to 1"),
        ({"guidance_interval": (0.6, 0.4)}, "`guidance_interval` must be two rising"),
        ({"dynamic_maximum": 0.5}, "`dynamic_maximum` must be from 1"),
        ({"num_samples": 0}, "`num_samples` must be a whole number from 1"),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1"),
        ({"seed": [1, 2, 3]}, "`seed` must be one number, or one for each of the 2"),
        ({"seed": -1}, r"`seed` must be from 0 to 2\*\*31 - 1"),
        ({"seed": 0.5}, "`seed` must be whole numbers"),
        ({"output": "int"}, "`output` must be one of .'uint8', 'float'"),
    ],
)
def test_bad_options(mdm, options, words):
    with pytest.raises(ValueError, match=words):
        draw(mdm, **options)
