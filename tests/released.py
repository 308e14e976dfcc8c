"""The released text-to-image configurations of apple/ml-mdm, which presets are held to.

Field names are the official ones. `network_from_config` builds the networks:

```python
released = RELEASED["256"]
network = network_from_config(
    released["unet_config"], released["px"], released["lm_dim"]
)
```
"""

import json
import pathlib

# The innermost network, the same in all three.
_UNET_64 = {
    "resolution_channels": [256, 512, 768],
    "num_resnets_per_resolution": [2, 2, 2],
    "attention_levels": [1, 2],
    "num_attention_layers": [0, 1, 5],
    "conditioning_feature_proj_dim": 2048,
    "masked_cross_attention": 0,
    "num_lm_head_layers": 0,
    "micro_conditioning": "scale:64",
    "temporal_dim": 1024,
    "resnet_config": {"use_attention_ffn": True},
}


def _around(inner, channels, scale, skip_normalization):
    """A network around another: no attention, no mid blocks."""
    return {
        "resolution_channels": channels,
        "num_resnets_per_resolution": [2, 2, 1],
        "attention_levels": [],
        "num_attention_layers": [0, 0, 0],
        "micro_conditioning": f"scale:{scale}",
        "temporal_dim": 1024,
        "skip_mid_blocks": True,
        "skip_cond_emb": True,
        "skip_normalization": skip_normalization,
        "inner_config": {**inner, "nesting": True},
    }


_UNET_256 = _around(_UNET_64, [64, 128, 256], 256, skip_normalization=True)
# Inside the largest network, the middle one normalizes its input.
_UNET_1024 = _around(
    {**_UNET_256, "skip_normalization": False},
    [32, 32, 64],
    1024,
    skip_normalization=True,
)


def _diffusion(shift_power=None):
    sampler = {
        "num_diffusion_steps": 1000,
        "schedule_type": "DEEPFLOYD",
        "prediction_type": "V_PREDICTION",
        "loss_target_type": "DDPM",
    }
    if shift_power is None:
        return {"sampler_config": sampler, "use_vdm_loss_weights": False}
    return {
        "sampler_config": {
            **sampler,
            "schedule_shifted": True,
            "schedule_shifted_power": shift_power,
        },
        "use_vdm_loss_weights": False,
        "use_double_loss": True,
        "no_use_residual": True,
    }


# `px` is the largest resolution, `lm_dim` the size of the text embeddings
# (FLAN-T5-XL).
RELEASED = {
    "64": {
        "px": 64,
        "lm_dim": 2048,
        "unet_config": _UNET_64,
        "diffusion_config": _diffusion(),
    },
    "256": {
        "px": 256,
        "lm_dim": 2048,
        "unet_config": _UNET_256,
        "diffusion_config": _diffusion(shift_power=1),
    },
    "1024": {
        "px": 1024,
        "lm_dim": 2048,
        "unet_config": _UNET_1024,
        "diffusion_config": _diffusion(shift_power=2),
    },
}

# Official configurations of which the original's FLOPs and parameters are recorded.
_CONFIGS = pathlib.Path(__file__).parents[1] / "tools" / "benchmark_configs"
SMALL_NESTED = json.loads((_CONFIGS / "small_nested.json").read_text())["unet_config"]
SMALL_UNET = SMALL_NESTED["inner_config"]
