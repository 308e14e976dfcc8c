"""A tiny model in the form of the official implementation, for the tests here."""

import numpy as np
import yaml

from keras_mdm.convert.checkpoint import write_checkpoint
from keras_mdm.convert.ml_mdm import (
    named_variables,
    network_from_config,
    official_shape,
)

UNET = {
    "resolution_channels": [32, 32],
    "num_resnets_per_resolution": [1, 1],
    "attention_levels": [1],
    "num_attention_layers": [0, 1],
    "conditioning_feature_proj_dim": 16,
    "masked_cross_attention": 0,
    "num_lm_head_layers": 0,
    "micro_conditioning": "scale:64",
    "resnet_config": {"use_attention_ffn": True},
}
NESTED = {
    "resolution_channels": [32, 32],
    "num_resnets_per_resolution": [1, 1],
    "attention_levels": [],
    "num_attention_layers": [0, 0],
    "micro_conditioning": "scale:256",
    "skip_mid_blocks": True,
    "skip_cond_emb": True,
    "skip_normalization": True,
    "inner_config": {**UNET, "nesting": True},
}
DIFFUSION = {
    "sampler_config": {
        "num_diffusion_steps": 1000,
        "schedule_type": "DEEPFLOYD",
        "prediction_type": "V_PREDICTION",
        "loss_target_type": "DDPM",
        "schedule_shifted": True,
    },
    "use_vdm_loss_weights": False,
}
TEXT_SIZE = 24


def tensors(unet_config=UNET, px=8):
    """Random weights of a network by their official names."""
    rng = np.random.default_rng(0)
    network = network_from_config(unet_config, px, TEXT_SIZE)
    return {
        name: rng.normal(0, 0.1, official_shape(variable, layout)).astype("float32")
        for name, variable, layout in named_variables(network)
    }


def save_official(folder, weights=None, unet_config=UNET, px=8, **fields):
    """Writes `vis_model.pth` and `config.yaml` into a folder.

    Returns:
        The weights.
    """
    weights = tensors(unet_config, px) if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "vis_model.pth", weights.items())
    content = {
        "sample_image_size": px,
        "unet_config": unet_config,
        "diffusion_config": DIFFUSION,
        **fields,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return weights
