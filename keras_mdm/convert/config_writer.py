"""Writes the YAML configuration with which the official code builds a model of ours."""

from keras_mdm.conditioning import TextEmbeddings
from keras_mdm.convert.config import PREDICTIONS, SCHEDULES, import_yaml
from keras_mdm.files import write_text
from keras_mdm.networks import NestedUNet


def write_config(path, mdm):
    """Writes the official configuration of an `MDM`; a `ValueError` if it has none."""
    network, schedule = mdm.network, mdm.schedule
    _check_official(mdm)
    outer = len(network.networks) - 1
    kind = ("unet", "nested_unet")[outer] if outer < 2 else f"nested{outer}_unet"
    content = {
        "name": mdm.name,
        "model": kind,
        "vision_model": kind,
        "sample_image_size": network.resolution,
        "unet_config": _unet_config(network),
        "diffusion_config": {
            "sampler_config": {
                "num_diffusion_steps": schedule.num_timesteps,
                "schedule_type": _official_schedule(schedule),
                "prediction_type": _key(PREDICTIONS, mdm.prediction),
                "loss_target_type": _key(PREDICTIONS, mdm.loss_target),
                "schedule_shifted": outer > 0 and not schedule.scale_signal,
                "schedule_shifted_power": schedule.shift_power or 1.0,
            },
            "model_output_scale": mdm.output_limit or 0.0,
            "use_vdm_loss_weights": mdm.loss_weighting == "vdm",
            "use_double_loss": outer > 0,
            "no_use_residual": True,
        },
        "reader_config": {"image_size": network.resolution},
    }
    write_text(path, import_yaml().safe_dump(content, sort_keys=False))


def _official_schedule(schedule):
    """The official name of a noise schedule, or `None`."""
    name = schedule.name
    if name == "linear" and schedule.num_timesteps == 1000:
        name = "linear_unscaled"  # The same for 1000 timesteps.
    return _key(SCHEDULES, name)


def _key(choices, value):
    return next((key for key, choice in choices.items() if choice == value), None)


def _check_official(mdm):
    """Lists everything about a model that the official implementation lacks."""
    network, schedule, conditioner = mdm.network, mdm.schedule, mdm.network.conditioner
    nested = isinstance(network, NestedUNet)
    found = {
        f"schedule {schedule.name!r}": _official_schedule(schedule) is None,
        "a schedule that is both shifted and scaled, or neither": nested
        and schedule.scale_signal == (schedule.shift_power > 0),
        f"prediction {mdm.prediction!r}": mdm.prediction not in PREDICTIONS.values(),
        f"loss_target {mdm.loss_target!r}": mdm.loss_target not in PREDICTIONS.values(),
        f"loss_weighting {mdm.loss_weighting!r}": mdm.loss_weighting
        not in ("uniform", "vdm"),
        "output_limit of nested networks": nested and mdm.output_limit,
        f"condition {type(conditioner).__name__}": not isinstance(
            conditioner, TextEmbeddings | None
        ),
        f"images of {network.image_channels} channels": network.image_channels != 3,
    }
    for level in network.networks:
        where = f"in the network of {level.resolution} pixels"
        found |= {
            f"clips of {level.frames} frames {where}": level.frames > 1,
            f"{level.num_heads} attention heads {where}": level.num_heads != 8,
            f"no pooled condition {where}": conditioner is not None
            and not level.pooled_condition,
            f"masked_attention unlike that of the innermost, {where}": (
                level.masked_attention != network.innermost.masked_attention
            ),
        }
    problems = [problem for problem, is_one in found.items() if is_one]
    if problems:
        raise ValueError(
            "the official implementation has no such model:\n" + "\n".join(problems)
        )


def _unet_config(network):
    layers = list(network.num_attention_layers)
    micro = network.micro_conditioning
    config = {
        "resolution_channels": list(network.channels),
        "num_resnets_per_resolution": list(network.num_residual_blocks),
        "attention_levels": [i for i, count in enumerate(layers) if count],
        "num_attention_layers": layers,
        "masked_cross_attention": int(network.masked_attention),
        "micro_conditioning": ",".join(f"{k}:{v:g}" for k, v in micro.items()) or None,
        "temporal_dim": network.embedding_size,
        "resnet_config": {
            "num_groups_norm": network.groups,
            "dropout": network.dropout,
            "use_attention_ffn": network.attention_feed_forward,
        },
    }
    if isinstance(network, NestedUNet):
        return {
            **config,
            "conditioning_feature_proj_dim": -1,
            "skip_mid_blocks": True,
            "skip_cond_emb": True,
            "skip_normalization": not network.normalize_input,
            "inner_config": {**_unet_config(network.inner), "nesting": True},
        }
    return {
        **config,
        "conditioning_feature_proj_dim": network.token_projection_size or -1,
        "num_lm_head_layers": network.num_token_blocks,
        "skip_mid_blocks": not network.mid_blocks,
        "skip_cond_emb": False,
    }
