"""Weights in half precision that come with the package."""

import numpy as np
import pytest
from helpers import equal_values, lean_nest, randomize, tiny_mdm, values_of

import keras_mdm
from keras_mdm.saving.bundled import read_bundled_weights, write_bundled_weights


def test_round_trip_of_the_averaged_weights(tmp_path):
    mdm = tiny_mdm(network=randomize(lean_nest(2)), ema_momentum=0.5)
    for average in mdm.ema.averages:
        average.assign(average.value * 0.5)
    write_bundled_weights(mdm, tmp_path / "x.npz")
    other = tiny_mdm(network=lean_nest(2), ema_momentum=0.5)
    read_bundled_weights(other.network, tmp_path / "x.npz")
    for mine, theirs in zip(
        values_of(other.network.variables), values_of(mdm.ema.averages), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="belong to another network"):
        read_bundled_weights(tiny_mdm(3).network, tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "resolutions", "width"),
    [
        ("mdm_shapes_64", (64, 32, 16), 96),
        ("mdm_emoji_64", (64, 32, 16), 96),
        ("mdm_s64_text", (64,), 2048),
        ("mdm_s256_text", (256, 64), 2048),
        ("mdm_s1024_text", (1024, 256, 64), 2048),
    ],
)
def test_presets_on_text(name, resolutions, width):
    preset = keras_mdm.MDM.builtin_presets()[name]
    assert str(resolutions[0]) in preset["description"]
    network = preset["config"]["config"]["network"]
    if name not in ("mdm_shapes_64", "mdm_emoji_64"):
        # Of half a billion parameters: read, not built.
        while "inner" in network["config"]:
            network = network["config"]["inner"]
        config = network["config"]
        assert config["conditioner"]["config"]["size"] == width
        assert config["token_projection_size"] == 1024
        assert config["num_token_blocks"] == 2
        assert config["micro_conditioning"] == {"scale": 64.0}
        return
    mdm = keras_mdm.MDM.from_preset(name, load_weights=False)
    assert mdm.network.levels == resolutions
    assert mdm.network.conditioner.size == width
    # In half precision it fits into the 8 MB that the package may hold.
    assert 2 * mdm.network.count_params() < 8e6


def test_the_shapes_preset_knows_every_word_of_shapes():
    from keras_mdm.data import make_scene

    conditioner = keras_mdm.MDM.from_preset(
        "mdm_shapes_64", load_weights=False
    ).network.conditioner
    captions = [
        make_scene(config, "test", index).caption
        for config in ("single", "scenes")
        for index in range(300)
    ]
    found = conditioner.tokenizer(captions)
    assert not found.unknown and not found.cut


def test_conditioner_of_a_preset_is_replaced():
    encoder = keras_mdm.TextEncoder(32, max_tokens=16)
    mdm = keras_mdm.MDM.from_preset(
        "mdm_shapes_64", load_weights=False, conditioner=encoder
    )
    assert mdm.network.conditioner.get_config() == encoder.get_config()


def test_the_preset_of_clips_can_begin_with_the_pictures_of_another():
    """Those of 16 pixels, and those of 32 where its clips have 32 pixels too."""
    pictures = keras_mdm.MDM.from_preset("mdm_shapes_64").network
    mdm = keras_mdm.MDM.from_preset("mdm_shapes_32v", load_weights=False)
    assert mdm.network.levels == ("8x32", "8x16", 16)
    assert 2 * mdm.network.count_params() < 8e6
    mdm.load_weights("mdm_shapes_64")
    for mine, theirs in (
        (mdm.network.innermost, pictures.innermost),
        (mdm.network.up_blocks[-1], pictures.at_level(32).up_blocks[-1]),
    ):
        assert equal_values(values_of(mine.variables), values_of(theirs.variables))
