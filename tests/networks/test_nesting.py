"""A new network leaves the network inside it as it was."""

import numpy as np
import pytest
from helpers import (
    batch_of,
    compute,
    equal_values,
    randomize,
    tiny_nest,
    tiny_unet,
    values_of,
)

import keras_mdm


def _inputs(resolutions, batch=2, seed=0, counts=None):
    rng = np.random.default_rng(seed)
    counts = counts or [batch] * len(resolutions)
    return {
        "images": [
            rng.normal(size=(count, r, r, 1)).astype("float32")
            for count, r in zip(counts, resolutions, strict=True)
        ],
        "timesteps": np.array([3, 500, 998, 7][:batch], "float32"),
        "labels": np.arange(batch, dtype="int32") % 3,
    }


def _wrap(inner):
    return keras_mdm.NestedUNet(inner, (8, 8), 1, groups=8)


@pytest.fixture(scope="module")
def nest():
    """Three networks, random inside and with fresh outer networks; and the inputs."""
    inner = randomize(tiny_unet(4))
    middle = _wrap(inner)
    return inner, middle, _wrap(middle)


@pytest.fixture(scope="module")
def alone(nest):
    inputs = _inputs((16, 8, 4))
    inputs["images"] = inputs["images"][2:]
    return compute(lambda x: nest[0](x), inputs)


@pytest.mark.parametrize("levels", [2, 3])
def test_inner_outputs_are_bit_equal(nest, alone, levels):
    inputs = _inputs((16, 8, 4))
    inputs["images"] = inputs["images"][3 - levels :]
    outputs = compute(lambda x: nest[levels - 1](x), inputs)
    assert len(outputs) == levels and np.any(alone[0])
    np.testing.assert_array_equal(outputs[-1], alone[0])
    for outer in outputs[:-1]:
        assert not outer.any()  # a fresh network predicts zero


def test_adapters_start_at_zero(nest):
    for part in nest[1:]:
        for adapter in (part.adapter_in, part.adapter_out):
            assert not any(np.any(v) for v in values_of(adapter.weights))


def test_dolls(nest):
    inner, middle, outer = nest
    assert outer.levels == (16, 8, 4)
    assert outer.networks == (outer, middle, inner)
    assert outer.innermost is inner and outer.at_level(8) is middle
    assert outer.conditioner is inner.own_conditioner
    own = {
        id(v) for part in outer.networks for la in part.own_layers for v in la.weights
    }
    assert own == {id(v) for v in outer.weights}
    with pytest.raises(ValueError, match=r"resolutions \(16, 8, 4\).*resolution=32"):
        outer.at_level(32)


def test_both_adapters_carry_something():
    """Once trained, each level sees the other."""
    network = randomize(tiny_nest(2, resolution=4))
    inputs = _inputs((8, 4))

    def outputs(large, small):
        return network({**inputs, "images": [large, small]})

    large, small = inputs["images"]
    first = compute(outputs, large, small)
    other_large = compute(outputs, large + 1, small)
    other_small = compute(outputs, large, small + 1)
    assert not np.allclose(first[1], other_large[1])
    assert not np.allclose(first[0], other_small[0])


def test_mixed_batch():
    """Samples without the large picture are as if the outer network gave nothing."""
    network = randomize(tiny_nest(2, resolution=4))
    whole = _inputs((8, 4), batch=4)
    mixed = {**whole, "images": [whole["images"][0][:1], whole["images"][1]]}
    full = compute(lambda x: network(x), whole)
    part = compute(lambda x: network(x), mixed)
    assert part[0].shape == (1, 8, 8, 1) and part[1].shape == (4, 4, 4, 1)
    np.testing.assert_allclose(part[0], full[0][:1], atol=1e-5)
    np.testing.assert_allclose(part[1][:1], full[1][:1], atol=1e-5)
    inner = {**whole, "images": whole["images"][1:]}
    alone = compute(lambda x: network.inner(x), inner)
    np.testing.assert_allclose(part[1][1:], alone[0][1:], atol=1e-5)
    assert not np.allclose(full[1][1:], alone[0][1:], atol=1e-3)


def test_timestep_and_label_reach_every_doll():
    network = randomize(tiny_nest(2, resolution=4))
    inputs = _inputs((8, 4))

    def outputs(timesteps, labels):
        return network({**inputs, "timesteps": timesteps, "labels": labels})

    times, labels = inputs["timesteps"], inputs["labels"]
    first = compute(outputs, times, labels)
    for other in (
        compute(outputs, times + 1, labels),
        compute(outputs, times, labels + 1),
    ):
        for one, two in zip(first, other, strict=True):
            assert np.abs(one - two).max() > 1e-5


@pytest.mark.parametrize("options", [{}, {"normalize_input": True}])
def test_config_round_trip(options, tmp_path):
    network = keras_mdm.NestedUNet(
        tiny_nest(2, resolution=4), (8, 16), (1, 2), groups=8, **options
    )
    copy = keras_mdm.NestedUNet.from_config(network.get_config())
    assert copy.get_config() == network.get_config()
    assert [v.path for v in copy.variables] == [v.path for v in network.variables]
    randomize(network)
    network.save_weights(tmp_path / "n.weights.h5")
    copy.load_weights(tmp_path / "n.weights.h5")
    assert equal_values(values_of(network.weights), values_of(copy.weights))


def test_pictures_are_normalized():
    """With `normalize_input`, brightness contrast of the large picture is lost."""
    network = randomize(
        keras_mdm.NestedUNet(
            tiny_unet(4, classes=0), (8, 8), 1, groups=8, normalize_input=True
        )
    )
    inputs = _inputs((8, 4))
    large, small = inputs["images"]

    def outputs(large):
        return network({**inputs, "images": [large, small]})

    for one, two in zip(
        compute(outputs, large), compute(outputs, 3 * large), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_labels_in_a_batch_are_not_needed_without_conditioner():
    batch = batch_of(2, 4, classes=0)
    assert set(batch) == {"images"}
    network = tiny_unet(4, classes=0)
    assert network.conditioner is None and network.encode_condition({}) is None


def _enlarged(picture):
    """Bilinear doubling: a pixel is three quarters its own, a quarter its neighbor."""
    for axis in (1, 2):
        size = picture.shape[axis]
        places = np.arange(size)
        before = picture.take(np.maximum(places - 1, 0), axis)
        after = picture.take(np.minimum(places + 1, size - 1), axis)
        pairs = [0.75 * picture + 0.25 * other for other in (before, after)]
        shape = [2 * n if i == axis else n for i, n in enumerate(picture.shape)]
        picture = np.stack(pairs, axis + 1).reshape(shape)
    return picture


def test_residual_prediction_starts_from_the_smaller_picture(alone):
    inner = randomize(tiny_unet(4))
    network = keras_mdm.NestedUNet(inner, (8, 8), 1, groups=8, residual_prediction=True)
    inputs = _inputs((8, 4))
    inputs["images"][1] = _inputs((16, 8, 4))["images"][2]
    outputs = compute(lambda x: network(x), inputs)
    np.testing.assert_array_equal(outputs[1], alone[0])
    np.testing.assert_allclose(outputs[0], _enlarged(alone[0]), rtol=1e-5, atol=1e-6)


def test_residual_prediction_of_a_mixed_batch():
    network = keras_mdm.NestedUNet(
        tiny_unet(4), (8, 8), 1, groups=8, residual_prediction=True
    )
    randomize(network)
    inputs = _inputs((8, 4), batch=4, counts=[2, 4])
    high, low = compute(lambda x: network(x), inputs)
    assert high.shape == (2, 8, 8, 1) and low.shape == (4, 4, 4, 1)


def test_residuals_need_a_prediction_that_resembles_the_smaller_one():
    network = keras_mdm.NestedUNet(
        tiny_unet(4), (8, 8), 1, groups=8, residual_prediction=True
    )
    keras_mdm.MDM(network, prediction="x0")
    with pytest.raises(ValueError, match="must have `prediction='x0'`.*'v'"):
        keras_mdm.MDM(network, prediction="v")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((1, 8, 8, 1)), "`images`.*`timesteps`"),
        (
            {"images": [np.zeros((1, 8, 8, 1))]},
            r"levels \(8, 4\).*Received: \['images'\]",
        ),
        (
            {"images": np.zeros((1, 8, 8, 1)), "timesteps": np.zeros(1)},
            "a list of noisy pictures.*images=",
        ),
    ],
)
def test_inputs_of_another_form(inputs, words):
    with pytest.raises(ValueError, match=words):
        tiny_nest(2, resolution=4)(inputs)
