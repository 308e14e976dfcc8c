"""Weights of a preset for a model that shares some of its networks."""

import numpy as np
import pytest
from helpers import (
    compute,
    equal_values,
    randomize,
    tiny_mdm,
    tiny_nest,
    tiny_unet,
    values_of,
)

import keras_mdm
from keras_mdm.layers import TemporalAttention

pytestmark = pytest.mark.usefixtures("eager_functions")

FRAMES = 4


def test_inner_preset_in_a_larger_nest(tmp_path):
    """Weights of a small model go into the network that they fit."""
    inner = tiny_mdm(network=randomize(tiny_nest(2, resolution=4)))
    inner.save_to_preset(tmp_path / "p")
    nest = tiny_mdm(
        network=randomize(tiny_nest(3, resolution=4), seed=1), ema_momentum=0.5
    )
    nest_ids = {id(v) for v in nest.network.inner.variables}
    outer = [v for v in nest.network.variables if id(v) not in nest_ids]
    before = values_of(outer)
    nest.load_weights(tmp_path / "p")
    assert equal_values(inner.network.get_weights(), nest.network.inner.get_weights())
    assert equal_values(before, values_of(outer))
    assert equal_values(values_of(nest.ema.sources), values_of(nest.ema.averages))


def test_a_doll_of_a_larger_preset_in_a_smaller_model(tmp_path):
    """The largest that both have, by name of a preset, of a folder or of a run."""
    large = tiny_mdm(network=randomize(tiny_nest(3, resolution=4)))
    large.save_to_preset(tmp_path / "p")
    small = tiny_mdm(network=tiny_nest(2, resolution=4), ema_momentum=0.5)
    small.load_weights(tmp_path / "p")
    assert equal_values(large.network.inner.get_weights(), small.network.get_weights())
    assert equal_values(values_of(small.ema.sources), values_of(small.ema.averages))


def test_built_in_presets_give_weights_if_they_have_some():
    shapes = keras_mdm.MDM.from_preset("mdm_shapes_64")
    inner = keras_mdm.UNet.from_config(shapes.network.innermost.get_config())
    small = tiny_mdm(network=inner)
    small.load_weights("mdm_shapes_64")
    assert equal_values(shapes.network.innermost.get_weights(), inner.get_weights())
    with pytest.raises(ValueError, match="published for preset 'mdm_tiny_32'"):
        small.load_weights("mdm_tiny_32")


def test_preset_that_fits_no_doll(tmp_path):
    tiny_mdm(2, resolution=4).save_to_preset(tmp_path / "p")
    other = tiny_mdm(network=tiny_nest(2, classes=5, resolution=4))
    with pytest.raises(ValueError, match="has none of the networks of this model"):
        other.load_weights(tmp_path / "p")


def picture_nest(**options):
    """Pictures of 4, 8 and 16 pixels; no two networks have the same options."""
    nest = keras_mdm.NestedUNet(tiny_unet(4), (8, 8), 1, groups=8, **options)
    return keras_mdm.NestedUNet(nest, (8, 16), 1, groups=4)


def clip_nest(**options):
    """Clips of the 4 and 8 pixels of `picture_nest`."""
    inflated = keras_mdm.InflatedUNet(tiny_unet(4), FRAMES)
    temporal = {"num_temporal_attention_layers": (1, 0), "rotary_positions": True}
    return keras_mdm.NestedUNet(inflated, (8, 8), 1, groups=8, **temporal, **options)


@pytest.mark.parametrize("frames", ["inflated", "own"])
def test_clips_begin_as_the_pictures_that_their_frames_are(frames, tmp_path):
    """Every frame of every network is what the model of pictures predicts."""
    pictures = tiny_mdm(network=randomize(picture_nest()))
    pictures.save_to_preset(tmp_path / "p")
    clips = clip_nest()
    if frames == "own":
        unet = tiny_unet(4, frames=FRAMES, num_temporal_attention_layers=1)
        clips = keras_mdm.NestedUNet(unet, (8, 8), 1, groups=8)
    mdm = tiny_mdm(network=clips, ema_momentum=0.5)
    mdm.load_weights(tmp_path / "p")
    assert equal_values(values_of(mdm.ema.sources), values_of(mdm.ema.averages))
    rng = np.random.default_rng(0)
    sizes = [(FRAMES, 8), (FRAMES, 4), *([(1, 4)] if frames == "inflated" else [])]
    images = [
        rng.normal(size=(2, count, size, size, 1)).astype("float32")
        for count, size in sizes
    ]
    given = {"timesteps": np.array([3.0, 700.0], "float32"), "labels": np.array([0, 2])}
    drawn = compute(
        lambda x: clips(x),
        {**given, "images": [x[:, 0] if x.shape[1] == 1 else x for x in images]},
    )
    inner = pictures.network.inner
    for i in range(FRAMES):
        expected = compute(
            lambda x: inner(x), {**given, "images": [x[:, i] for x in images[:2]]}
        )
        for clip, picture in zip(drawn[:2], expected, strict=True):
            assert np.abs(picture).mean() > 0.01
            np.testing.assert_allclose(clip[:, i], picture, rtol=1e-4, atol=1e-5)


def test_attention_over_frames_keeps_its_weights(tmp_path):
    tiny_mdm(network=randomize(picture_nest())).save_to_preset(tmp_path / "p")
    mdm = tiny_mdm(network=randomize(clip_nest(), seed=1))
    temporal = [
        variable
        for layer in mdm.network._flatten_layers()
        if isinstance(layer, TemporalAttention)
        for variable in layer.variables
    ]
    assert len(temporal) > 20
    before = values_of(temporal)
    mdm.load_weights(tmp_path / "p")
    assert equal_values(before, values_of(temporal))


def test_a_doll_of_clips_with_other_options_keeps_its_weights(tmp_path):
    """The networks inside it, which fit, get theirs all the same."""
    pictures = tiny_mdm(network=randomize(picture_nest(normalize_input=True)))
    pictures.save_to_preset(tmp_path / "p")
    mdm = tiny_mdm(network=randomize(clip_nest(), seed=1))
    before = values_of(mdm.network.conv_in.variables)
    mdm.load_weights(tmp_path / "p")
    assert equal_values(before, values_of(mdm.network.conv_in.variables))
    innermost = [net.innermost.get_weights() for net in (mdm.network, pictures.network)]
    assert equal_values(*innermost)
