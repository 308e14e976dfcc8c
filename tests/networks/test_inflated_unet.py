"""Clips from a network of pictures, and attention over frames between its layers."""

import keras
import numpy as np
import pytest
from helpers import compute, randomize, tiny_mdm, tiny_unet, to_numpy

import keras_mdm
from keras_mdm.networks.cost import count_flops

FRAMES = 4
OPTIONS = {"channels": (32, 32), "mid_blocks": True}


def picture_unet(**options):
    return tiny_unet(8, **OPTIONS, num_attention_layers=(0, 1), **options)


def inputs_of(clips=2, pictures=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": [
            rng.normal(size=(clips, FRAMES, 8, 8, 1)).astype("float32"),
            rng.normal(size=(pictures, 8, 8, 1)).astype("float32"),
        ],
        "timesteps": np.array([3, 500, 900][:pictures], "float32"),
        "labels": np.arange(pictures, dtype="int32") % 3,
    }


def run(network, inputs):
    return compute(lambda x: network(x), inputs)


@pytest.fixture(scope="module")
def fresh():
    pictures = randomize(picture_unet())
    return keras_mdm.InflatedUNet(pictures, FRAMES)


@pytest.fixture
def trained(fresh):
    return randomize(keras_mdm.InflatedUNet.from_config(fresh.get_config()))


def test_fresh_one_draws_what_the_picture_network_draws(fresh):
    inputs = inputs_of()
    clips, pictures = run(fresh, inputs)
    assert np.abs(clips).mean() > 0.01
    expected = run(fresh.inner, {**inputs, "images": inputs["images"][1:]})[0]
    np.testing.assert_allclose(pictures, expected, rtol=1e-4, atol=1e-5)
    given = {key: inputs[key][:2] for key in ("timesteps", "labels")}
    for i in range(FRAMES):
        given["images"] = [inputs["images"][0][:, i]]
        expected = run(fresh.inner, given)[0]
        np.testing.assert_allclose(clips[:, i], expected, rtol=1e-4, atol=1e-5)


def test_it_is_the_unet_of_clips_that_has_its_weights(trained):
    """But for the embedding of frames, which a `UNet` of clips has not."""
    for variable in trained.frame_embedding.output_projection.variables:
        variable.assign(np.zeros(variable.shape, "float32"))
    expected = tiny_unet(
        8,
        **OPTIONS,
        num_attention_layers=(0, 1),
        frames=FRAMES,
        num_temporal_attention_layers=1,
        rotary_positions=True,
    )
    weights = {}
    for variable in trained.inner.variables:
        weights[variable.path.split("/", 1)[1]] = variable
    own = iter(trained.temporal_attentions)
    for _, block in expected.blocks():
        for layer in block.temporal_attentions:
            for mine, its in zip(layer.variables, next(own).variables, strict=True):
                mine.assign(its.value)
    for variable in expected.variables:
        if "temporal_attention" not in variable.path:
            variable.assign(weights.pop(variable.path.split("/", 1)[1]).value)
    assert not weights and next(own, None) is None
    inputs = inputs_of(2, 2)
    clips = run(trained, inputs)[0]
    wanted = run(expected, {**inputs, "images": inputs["images"][:1]})[0]
    np.testing.assert_allclose(clips, wanted, rtol=1e-4, atol=1e-5)


def test_frames_see_each_other_and_no_other_sample(trained):
    inputs = inputs_of()
    before = run(trained, inputs)
    inputs["images"][0][0, 3] += 1.0
    inputs["images"][1][2] += 1.0
    clips, pictures = (
        np.abs(a - b).max(axis=(-1, -2, -3))
        for a, b in zip(run(trained, inputs), before, strict=True)
    )
    assert clips[0].min() > 1e-4 and clips[1].max() < 1e-5
    assert pictures[2] > 1e-4 and pictures[:2].max() < 1e-5


def test_embedding_of_frames_tells_their_places():
    network = keras_mdm.InflatedUNet(
        randomize(picture_unet()), FRAMES, 0, rotary_positions=False
    )
    inputs = inputs_of()
    inputs["images"][0][:] = inputs["images"][0][:, :1]

    def spread():
        return np.ptp(run(network, inputs)[0], axis=1).max()

    assert spread() < 1e-5
    randomize(network.frame_embedding)
    assert spread() > 1e-3


def test_around_it_is_a_doll_of_larger_frames(trained):
    network = randomize(keras_mdm.NestedUNet(trained, (8, 8), 1, groups=8))
    assert network.levels == ("4x16", "4x8", 8)
    inputs = inputs_of()
    large = np.random.default_rng(1).normal(size=(1, FRAMES, 16, 16, 1))
    inputs["images"].insert(0, large.astype("float32"))
    before = run(network, inputs)
    assert [len(level) for level in before] == [1, 2, 3]
    inputs["images"][0] = -inputs["images"][0]
    after = run(network, inputs)
    # What the network lends goes to the frames of its clip, and to nothing else.
    assert np.abs(after[1][0] - before[1][0]).min(axis=(1, 2, 3)).max() > 0
    assert np.abs(after[1][0] - before[1][0]).max() > 1e-4
    np.testing.assert_allclose(after[1][1], before[1][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[2], before[2], rtol=1e-4, atol=1e-5)


def test_remat_changes_no_prediction(trained):
    inputs = inputs_of()
    expected = run(trained, inputs)
    trained.set_remat(["4x8"])
    found = compute(lambda x: trained(x, training=True), inputs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_training_with_frozen_pictures_trains_what_ties_frames(remat):
    inner = randomize(picture_unet())
    network = keras_mdm.InflatedUNet(inner, FRAMES, remat=remat)
    mdm = tiny_mdm(network=network)
    mdm.set_active("4x8", freeze_inner=True)
    mdm.compile(keras.optimizers.SGD(0.1))
    before = to_numpy([v.value for v in network.variables])
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 255, (4, FRAMES, 8, 8, 1)).astype("uint8")
    mdm.fit({"videos": clips, "labels": np.arange(4) % 3}, batch_size=4, verbose=0)
    changed = {
        variable.path.split("/", 1)[1]
        for variable, old in zip(network.variables, before, strict=True)
        if np.abs(to_numpy(variable.value) - old).max() > 0
    }
    # Last layers start at zero, so that they alone get a gradient at first.
    last = [f"{layer.name}/upsample" for layer in network.temporal_attentions]
    assert changed == {
        f"{layer}/{name}"
        for layer in [*last, "frame_embedding/output"]
        for name in ("kernel", "bias")
    }


def test_preset_keeps_it(trained, tmp_path):
    mdm = keras_mdm.MDM(trained, ema_momentum=None)
    mdm.save_to_preset(tmp_path / "preset")
    loaded = keras_mdm.MDM.from_preset(tmp_path / "preset").network
    inputs = inputs_of()
    for one, other in zip(run(loaded, inputs), run(trained, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_cost_is_that_of_a_unet_of_clips():
    options = {**OPTIONS, "num_attention_layers": (0, 1), "classes": 0}
    clips = tiny_unet(8, **options, frames=FRAMES, num_temporal_attention_layers=(0, 1))
    pictures = tiny_unet(8, **options)
    found = count_flops(keras_mdm.InflatedUNet(pictures, FRAMES, (0, 1)))
    assert found[8] == count_flops(pictures)[8]
    time = clips.time_embedding
    once = [time.hidden, time.output_projection]
    once = sum(2 * int(np.prod(layer.kernel.shape)) for layer in once)
    size = pictures.embedding_size
    places = 2 * size * size * (1 + FRAMES)
    assert found["4x8"] == count_flops(clips)["4x8"] - once + places


@pytest.mark.parametrize("frames", [1, 2.0])
def test_wrong_frames(frames):
    with pytest.raises(ValueError, match=f"from 2. Received: frames={frames}"):
        keras_mdm.InflatedUNet(picture_unet(), frames)


def test_wrong_inner():
    nest = keras_mdm.NestedUNet(tiny_unet(4), (8, 8), 1, groups=8)
    for wrong in (nest, tiny_unet(8, frames=2), None):
        with pytest.raises(ValueError, match="`inner` must be a `UNet` of pictures"):
            keras_mdm.InflatedUNet(wrong, 4)


def test_wrong_number_of_layers():
    with pytest.raises(ValueError, match="num_temporal_attention_layers"):
        keras_mdm.InflatedUNet(picture_unet(), 4, (1, 1, 1))
