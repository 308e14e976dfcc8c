"""Networks of clips: frames on their own, frames together, and nests of both."""

import numpy as np
import pytest
from helpers import compute, randomize, tiny_unet

import keras_mdm
from keras_mdm.networks.cost import count_flops


def _inputs(shapes, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    return {
        "images": [rng.normal(size=(batch, *s)).astype("float32") for s in shapes],
        "timesteps": np.array([3, 500][:batch], "float32"),
        "labels": np.arange(batch, dtype="int32") % 3,
    }


def _video_unet(frames=4, **options):
    return tiny_unet(
        8,
        channels=(8, 8),
        frames=frames,
        num_temporal_attention_layers=(0, 1),
        **options,
    )


@pytest.fixture(scope="module")
def pair():
    """A network of pictures, and one of clips that has its weights by name."""
    kinds = {"channels": (32, 32), "mid_blocks": True, "groups": 8}
    pictures = randomize(tiny_unet(8, **kinds, name="net"))
    clips = tiny_unet(
        8, **kinds, frames=4, num_temporal_attention_layers=(1, 1), name="net"
    )
    weights = {variable.path: variable for variable in pictures.variables}
    for variable in clips.variables:
        if "temporal_attention" not in variable.path:
            variable.assign(weights.pop(variable.path).value)
    assert not weights
    return pictures, clips


def test_fresh_temporal_layers_leave_each_frame_as_it_was(pair):
    pictures, clips = pair
    inputs = _inputs([(4, 8, 8, 1)])
    clip = compute(lambda x: clips(x), inputs)[0]
    assert clip.shape == (2, 4, 8, 8, 1)
    for frame in range(4):
        alone = {**inputs, "images": [inputs["images"][0][:, frame]]}
        picture = compute(lambda x: pictures(x), alone)[0]
        np.testing.assert_allclose(clip[:, frame], picture, rtol=1e-4, atol=1e-5)


def test_trained_temporal_layers_join_the_frames_of_one_clip_only(pair):
    _, clips = pair
    clips = randomize(keras_mdm.UNet.from_config(clips.get_config()), scale=0.3, seed=1)
    inputs = _inputs([(4, 8, 8, 1)])
    before = compute(lambda x: clips(x), inputs)[0]
    inputs["images"][0][0, 3] += 1.0
    after = compute(lambda x: clips(x), inputs)[0]
    assert np.abs(after - before)[0, 0].max() > 1e-4  # the first frame sees the last
    np.testing.assert_allclose(after[1], before[1], rtol=1e-5, atol=1e-5)


def test_rotary_positions_tell_the_order_of_frames():
    def change(rotary):
        network = randomize(_video_unet(rotary_positions=rotary), scale=0.5)
        inputs = _inputs([(4, 8, 8, 1)])
        straight = compute(lambda x: network(x), inputs)[0]
        inputs["images"][0] = inputs["images"][0][:, ::-1].copy()
        back = compute(lambda x: network(x), inputs)[0][:, ::-1]
        return np.abs(back - straight).max()

    assert change(rotary=False) < 1e-4 < change(rotary=True)


@pytest.fixture(scope="module")
def nest():
    """Pictures inside 2 frames inside 4 frames inside 4 larger frames."""
    network = randomize(tiny_unet(4))
    for options in (
        {"temporal_resampling": True},
        {"temporal_resampling": True, "num_temporal_attention_layers": (1, 0)},
        {},
    ):
        network = keras_mdm.NestedUNet(network, (8, 8), 1, groups=8, **options)
    return network


SHAPES = [(4, 8, 8, 1), (4, 4, 4, 1), (2, 4, 4, 1), (4, 4, 1)]


def test_levels_of_a_nest_in_space_and_time(nest):
    assert nest.levels == ("4x8", "4x4", "2x4", 4)
    assert nest.at_level("2x4").levels == ("2x4", 4)
    assert nest.at_level("2x4") is nest.inner.inner
    with pytest.raises(ValueError, match="'4x8', '4x4', '2x4', 4.*resolution=8"):
        nest.at_level(8)


def test_fresh_dolls_leave_the_picture_inside_bit_equal(nest):
    inputs = _inputs(SHAPES)
    outputs = compute(lambda x: nest(x), inputs)
    assert [output.shape[1:] for output in outputs] == SHAPES
    alone = {**inputs, "images": inputs["images"][-1:]}
    expected = compute(lambda x: nest.innermost(x), alone)[0]
    np.testing.assert_array_equal(outputs[-1], expected)
    assert not any(output.any() for output in outputs[:-1])


def test_a_picture_inside_gets_features_from_every_frame(nest):
    network = randomize(keras_mdm.NestedUNet.from_config(nest.get_config()))
    inputs = _inputs(SHAPES)
    before = compute(lambda x: network(x), inputs)
    inputs["images"][0][0, 3] *= -1.0
    after = compute(lambda x: network(x), inputs)
    changed = [
        np.abs(a - b).max(axis=tuple(range(1, a.ndim)))
        for a, b in zip(after, before, strict=True)
    ]
    for first, second in changed:
        assert first > 1e-5 and second < 1e-5


def test_residual_predictions_repeat_frames(nest):
    network = keras_mdm.NestedUNet(
        nest.inner.inner,
        (8, 8),
        1,
        groups=8,
        temporal_resampling=True,
        residual_prediction=True,
    )
    randomize(network.inner)
    large, small, _ = compute(lambda x: network(x), _inputs(SHAPES[1:]))
    np.testing.assert_array_equal(large, np.repeat(small, 2, axis=1))


def test_mixed_batches_of_clips_and_pictures(nest):
    network = randomize(keras_mdm.NestedUNet.from_config(nest.get_config()))
    inputs = _inputs(SHAPES)
    inputs["images"][:3] = [level[:1] for level in inputs["images"][:3]]
    outputs = compute(lambda x: network(x), inputs)
    assert [len(output) for output in outputs] == [1, 1, 1, 2]
    alone = {key: value[1:] for key, value in inputs.items() if key != "images"}
    alone["images"] = [inputs["images"][-1][1:]]
    expected = compute(lambda x: network.innermost(x), alone)[0]
    np.testing.assert_allclose(outputs[-1][1:], expected, rtol=1e-4, atol=1e-5)


def test_cost_counts_every_frame():
    one = sum(count_flops(tiny_unet(8)).values())
    four = sum(count_flops(tiny_unet(8, frames=4)).values())
    layers = tiny_unet(8)
    fixed = sum(
        2 * int(np.prod(layer.kernel.shape))
        for embedding in [layers.time_embedding]
        for layer in (embedding.hidden, embedding.output_projection)
    )
    pooled = 2 * int(np.prod(layers.tokens.pooled.kernel.shape))
    assert four - fixed - pooled == pytest.approx(4 * (one - fixed - pooled), rel=0.05)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"frames": 0}, "`frames` must be a whole number from 1.*frames=0"),
        ({"num_temporal_attention_layers": 1}, "are for clips.*one frame"),
        (
            {
                "resolution": 2,
                "channels": (8, 8),
                "frames": 2,
                "num_temporal_attention_layers": 1,
            },
            "even sides. Place 1 of a path of 2 pixels has 1",
        ),
    ],
)
def test_wrong_options_of_clips(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_unet(**{"resolution": 8, **options})


def test_wrong_levels():
    for wrong in ("64", "1x64", "ax8", 0, 2.5):
        with pytest.raises(ValueError, match="such as '16x64'. Received"):
            keras_mdm.Stage(wrong, steps=1)
