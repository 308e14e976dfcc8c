"""Official YAML configurations: what is read of them, and what is refused."""

import sys
import warnings

import pytest
import yaml
from official import DIFFUSION, NESTED, UNET
from released import RELEASED

from keras_mdm.convert.config import complete, model_options, read_config
from keras_mdm.convert.config_writer import write_config
from keras_mdm.convert.ml_mdm import network_from_config

pytestmark = pytest.mark.once

FILE = """
sample_image_size: 64
unet_config: {resolution_channels: [32]}
"""


def _read(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return read_config(path)


def test_blocks_of_the_same_name_are_merged(tmp_path):
    """As two published files have them; the later value holds."""
    config = _read(
        tmp_path,
        FILE
        + """
diffusion_config:
  sampler_config: {schedule_type: DEEPFLOYD, loss_target_type: HA_STYLE,
    schedule_shifted_power: 2}
  use_vdm_loss_weights: false
diffusion_config:
  sampler_config: {loss_target_type: DDPM, schedule_shifted: true}
""",
    )
    assert config["px"] == 64
    assert config["diffusion_config"] == {
        "use_vdm_loss_weights": False,
        "sampler_config": {
            "schedule_type": "DEEPFLOYD",
            "loss_target_type": "DDPM",
            "schedule_shifted_power": 2,
            "schedule_shifted": True,
        },
    }


def test_fields_at_the_top_fill_in(tmp_path):
    text = """
schedule_shifted_power: 2
schedule_type: COSINE
use_vdm_loss_weights: false
diffusion_config:
  sampler_config: {schedule_type: DEEPFLOYD}
"""
    with pytest.warns(UserWarning, match=r"'schedule_shifted_power', 'use_vdm_loss"):
        config = _read(tmp_path, FILE + text)
    assert config["diffusion_config"] == {
        "sampler_config": {"schedule_type": "DEEPFLOYD", "schedule_shifted_power": 2},
        "use_vdm_loss_weights": False,
    }


def test_resolution_of_the_reader(tmp_path):
    text = "unet_config: {}\nsample_image_size: -1\nreader_config: {image_size: 32}"
    assert _read(tmp_path, text)["px"] == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "has no `unet_config`"),
        ("sample_image_size: 64", "has no `unet_config`"),
        ("unet_config: {}", "does not say the resolution"),
        ("unet_config: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_bad_files(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        _read(tmp_path, text)
    with pytest.raises(ValueError, match="can't read"):
        read_config(tmp_path / "none.yaml")


def _options(unet=UNET, px=8, sampler=None, **diffusion):
    sampler = {**DIFFUSION["sampler_config"], **(sampler or {})}
    diffusion = {**DIFFUSION, **diffusion, "sampler_config": sampler}
    config = {"px": px, "unet_config": unet, "diffusion_config": diffusion}
    return model_options(config)


def test_options():
    options = _options()
    assert options["schedule"] == {
        "name": "cosine",
        "num_timesteps": 1000,
        "shift_power": 1.0,
        "scale_signal": False,
    }
    assert (options["prediction"], options["loss_target"]) == ("v", "epsilon")
    assert options["loss_weighting"] == "uniform" and options["output_limit"] is None
    assert options["sampling"] == {
        "sampler": "ddim",
        "spacing": "index",
        "threshold": "static",
        "num_steps": 50,
    }
    shifted = _options(NESTED, sampler={"schedule_shifted_power": 2})
    assert shifted["schedule"]["shift_power"] == 2.0
    scaled = _options(NESTED, sampler={"schedule_shifted": False})["schedule"]
    assert (scaled["shift_power"], scaled["scale_signal"]) == (0.0, True)
    other = _options(sampler={"prediction_type": "DDIM", "loss_target_type": None})
    assert (other["prediction"], other["loss_target"]) == ("epsilon", "epsilon")
    dynamic = _options(sampler={"threshold_function": "dynamic_if"})["sampling"]
    assert (dynamic["dynamic_percentile"], dynamic["dynamic_maximum"]) == (0.95, 1.5)
    assert _options(use_vdm_loss_weights=True)["loss_weighting"] == "vdm"
    assert _options(model_output_scale=2.0)["output_limit"] == 2.0
    assert _options(NESTED, model_output_scale=2.0)["output_limit"] is None
    assert _options(sampler={"num_diffusion_steps": 6})["sampling"]["num_steps"] == 6


def test_options_left_out_take_the_official_defaults():
    config = {"px": 8, "unet_config": UNET, "diffusion_config": {"sampler_config": {}}}
    options = model_options(config)
    assert options["schedule"]["name"] == "linear_unscaled"
    assert options["schedule"]["num_timesteps"] == 32
    assert options["prediction"] == "epsilon" and options["loss_weighting"] == "vdm"
    unet = complete({"resolution_channels": [32, 32, 32]})
    network = network_from_config(unet, 8)
    assert network.num_residual_blocks == (2, 2, 2)
    assert network.num_attention_layers == (0, 0, 1)


@pytest.mark.parametrize(
    "sampler",
    [
        {"schedule_type": "SIGMOID"},
        {"prediction_type": "HA_STYLE"},
        {"loss_target_type": "HA_STYLE"},
        {"threshold_function": "SOFT"},
        {"rescale_schedule": 2.0},
        {"rescale_signal": 2},
        {"schedule_type": "DDPM", "beta_end": 0.03},
    ],
)
def test_options_without_counterpart(sampler):
    with pytest.raises(ValueError, match=f"`{list(sampler)[-1]}` must be one of"):
        _options(sampler=sampler)


def test_networks_that_can_not_be_built():
    for name in ("temporal_mode", "temporal_spatial_ds", "skip_inner_unet_input"):
        with pytest.raises(ValueError, match=f"`{name}: true`.*can't be converted"):
            complete({**NESTED, "inner_config": {**UNET, name: True}})
    with pytest.raises(ValueError, match="must have `resolution_channels`"):
        complete({})


def test_groups_and_dropout():
    residual = {"num_groups_norm": 16, "dropout": 0.1}
    network = network_from_config({**UNET, "resnet_config": residual}, 8)
    assert (network.groups, network.dropout) == (16, 0.1)
    assert not network.attention_feed_forward


def test_what_the_official_code_lacks(tmp_path):
    from helpers import tiny_mdm, tiny_nest

    options = {"schedule": "sigmoid", "loss_weighting": "snr", "prediction": "x0"}
    mdm = tiny_mdm(network=tiny_nest(), **options)
    with pytest.raises(ValueError, match="has no such model") as caught:
        write_config(tmp_path / "a.yaml", mdm)
    for words in (
        "schedule 'sigmoid'",
        "loss_weighting 'snr'",
        "prediction 'x0'",
        "condition ClassLabels",
        "images of 1 channels",
    ):
        assert words in str(caught.value)
    assert not (tmp_path / "a.yaml").exists()


def test_clips_have_no_official_reader(tmp_path):
    from helpers import tiny_mdm, tiny_unet

    network = tiny_unet(8, classes=0, frames=4)
    with pytest.raises(ValueError, match="clips of 4 frames in the network of 8"):
        write_config(tmp_path / "a.yaml", tiny_mdm(network=network))
    assert not (tmp_path / "a.yaml").exists()


def test_released_options():
    """Shifts and steps as in `FACTS.md` 6 and the table of the official demo."""
    wanted = {"64": (1.0, 50, 0.0), "256": (1.0, 100, 0.0), "1024": (2.0, 250, 1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (power, steps, eta) in wanted.items():
            options = model_options(RELEASED[name])
            assert options["schedule"]["shift_power"] == power
            sampling = options["sampling"]
            assert (sampling["num_steps"], sampling["eta"]) == (steps, eta)


def test_written_file_is_plain_yaml(tmp_path):
    import keras_mdm

    mdm = keras_mdm.MDM(network_from_config(UNET, 8, 24), ema_momentum=None)
    write_config(tmp_path / "a.yaml", mdm)
    content = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert content["model"] == content["vision_model"] == "unet"
    for key in set(UNET) - {"resnet_config"}:
        assert content["unet_config"][key] == UNET[key]


def test_yaml_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"`pip install \"keras-mdm\[convert\]\""):
        _read(tmp_path, FILE)
