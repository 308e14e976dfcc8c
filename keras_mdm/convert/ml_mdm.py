"""The official implementation (apple/ml-mdm): its networks and its weights.

Says which of our variables each official parameter is, and how its axes are laid out.
"""

import math

import keras
import numpy as np

from keras_mdm.conditioning import TextEmbeddings
from keras_mdm.layers import FrameConv
from keras_mdm.networks import NestedUNet, UNet

# Parameters that the official code creates and never uses, or never trains (the
# frequencies of rotary positions): in any network, and in an outer network.
UNUSED = ("interp_layer1", "interp_layer2", "pos_emb")
_UNUSED_OUTER = ("mid_blocks", "cond_emb", "lm_proj")


def network_from_config(config, resolution, text_size=None, **options):
    """Builds our network from an official UNet configuration.

    Args:
        config: dict with the field names of the official dataclasses; an
            `inner_config` makes it nested. Lists may be strings such as `"0,1,5"`.
        resolution: int. Largest resolution, in pixels. For the official code a clip
            is one image, whose frames are its tiles: this is the side of that.
        text_size: int or `None`. Size of the text embeddings.
        **options: Arguments of every network, such as `dtype` or `remat`.

    Returns:
        A `UNet` or `NestedUNet`.
    """
    channels = _integers(config["resolution_channels"])
    inner = innermost = config.get("inner_config")
    # The official innermost network hands its tokens and its mask, or none, to the
    # outer networks; their own `masked_cross_attention` is not read.
    while innermost and innermost.get("inner_config"):
        innermost = innermost["inner_config"]
    residual = config.get("resnet_config") or {}
    shared = {
        "channels": channels,
        "num_residual_blocks": _spread(config["num_resnets_per_resolution"], channels),
        "num_attention_layers": _attention_layers(config, channels),
        "masked_attention": bool(
            (innermost or config).get("masked_cross_attention", 1)
        ),
        "micro_conditioning": _micro(config.get("micro_conditioning")),
        "attention_feed_forward": bool(residual.get("use_attention_ffn", False)),
        "groups": residual.get("num_groups_norm", 32),
        "dropout": residual.get("dropout", 0.0),
        **options,
    }
    if inner is not None:
        factor = 2 ** (len(channels) - 1)
        temporal = config.get("temporal_mode") and not config.get("temporal_spatial_ds")
        return NestedUNet(
            network_from_config(
                inner,
                resolution // (math.isqrt(factor) if temporal else factor),
                text_size,
                **options,
            ),
            temporal_resampling=bool(temporal),
            num_temporal_attention_layers=_spread(
                config.get("num_temporal_attention_layers") or 0, channels
            ),
            rotary_positions=bool(config.get("temporal_positional_encoding")),
            normalize_input=not config.get("skip_normalization", False),
            **shared,
        )
    projection = config.get("conditioning_feature_proj_dim", -1)
    has_text = text_size is not None and text_size > 0
    return UNet(
        resolution,
        conditioner=TextEmbeddings(text_size, as_encoded=True) if has_text else None,
        token_projection_size=projection if has_text and projection > 0 else None,
        num_token_blocks=config.get("num_lm_head_layers") or 0,
        embedding_size=config.get("temporal_dim"),
        mid_blocks=not config.get("skip_mid_blocks", False),
        **shared,
    )


def _integers(value):
    """A tuple of int from a sequence, an int, or a string such as `"0,1,5"`."""
    if isinstance(value, str):
        return tuple(int(part) for part in value.split(",") if part)
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)


def _spread(value, channels):
    """One number for each resolution; a single one holds for all."""
    values = _integers(value)
    return values * len(channels) if len(values) == 1 else values


def _attention_layers(config, channels):
    layers = _spread(config.get("num_attention_layers", 1), channels)
    levels = _integers(config.get("attention_levels", ()))
    return tuple(n if i in levels else 0 for i, n in enumerate(layers))


def _micro(text):
    """`"scale:64,score:0.5"` as a dict."""
    if not text:
        return {}
    pairs = (part.split(":") for part in text.split(","))
    return {name: float(default) for name, default in pairs}


def named_variables(network, prefix=""):
    """Yields (official name, variable, layout) of every parameter of a network.

    Layouts are keys of `TO_KERAS` and `TO_TORCH`.
    """
    yield from _layer(f"{prefix}temb_layer1", network.time_embedding.hidden)
    yield from _layer(f"{prefix}temb_layer2", network.time_embedding.output_projection)
    for micro in network.micro_embeddings:
        name = f"{prefix}cond_layers.{micro.feature}"
        yield from _layer(f"{name}.0", micro.hidden)
        yield from _layer(f"{name}.1", micro.output_projection)
    yield from _layer(f"{prefix}conv_in", network.conv_in)
    yield from _layer(f"{prefix}norm_out", network.norm_out)
    yield from _layer(f"{prefix}conv_out", network.conv_out)
    for way in ("down", "up"):
        for i, block in enumerate(getattr(network, f"{way}_blocks")):
            yield from _block(f"{prefix}{way}_blocks.{i}", block)
    if isinstance(network, NestedUNet):
        yield from _layer(f"{prefix}in_adapter", network.adapter_in)
        yield from _layer(f"{prefix}out_adapter", network.adapter_out)
        yield from named_variables(network.inner, f"{prefix}inner_unet.")
        return
    if network.mid_block is not None:
        yield from _block(f"{prefix}mid_blocks.0", network.mid_block)
        yield from _residual(f"{prefix}mid_blocks.1.resnets.0", network.mid_residual)
    if network.tokens is not None:
        yield from _tokens(prefix, network.tokens)


def _tokens(prefix, tokens):
    yield from _layer(f"{prefix}cond_emb", tokens.pooled)
    if tokens.projection is not None:
        yield from _layer(f"{prefix}lm_proj", tokens.projection)
    for i, block in enumerate(tokens.blocks):
        name = f"{prefix}lm_head.{i}"
        yield from _sequence_attention(name, block)


def _sequence_attention(name, block):
    yield from _layer(f"{name}.attn.norm", block.norm)
    yield from _layer(f"{name}.attn.qkv", block.qkv)
    yield from _layer(f"{name}.attn.proj_out", block.output_projection)
    yield from _layer(f"{name}.mlp.main.0", block.feed_forward.norm)
    yield from _layer(f"{name}.mlp.main.1", block.feed_forward.expand)
    yield from _layer(f"{name}.mlp.main.3", block.feed_forward.project)


def _temporal_attention(name, attention):
    yield from _sequence_attention(name, attention)
    yield from _layer(f"{name}.down_conv", attention.downsample)
    yield from _layer(f"{name}.up_conv", attention.upsample)


def _block(name, block):
    for i, residual in enumerate(block.residuals):
        yield from _residual(f"{name}.resnets.{i}", residual)
    for i, attention in enumerate(block.attentions):
        yield from _attention(f"{name}.attn.{i}", attention)
    for i, attention in enumerate(block.temporal_attentions):
        yield from _temporal_attention(f"{name}.t_attn.{i}", attention)
    if block.resample is not None:
        yield from _layer(f"{name}.resample", block.resample.conv)


def _residual(name, block):
    yield from _layer(f"{name}.norm1", block.norm_1)
    yield from _layer(f"{name}.conv1", block.conv_1)
    yield from _layer(f"{name}.time_layer", block.modulation)
    yield from _layer(f"{name}.norm2", block.norm_2)
    yield from _layer(f"{name}.conv2", block.conv_2)
    if block.skip is not None:
        yield from _layer(f"{name}.conv3", block.skip, pointwise=True)


def _attention(name, attention):
    yield from _layer(f"{name}.norm", attention.norm)
    yield from _layer(f"{name}.qkv", attention.qkv, pointwise=True)
    yield from _layer(f"{name}.proj_out", attention.output_projection, pointwise=True)
    if attention.token_size is not None:
        yield from _layer(f"{name}.norm_cond", attention.token_norm)
        yield from _layer(f"{name}.kv_cond", attention.token_kv)
    if attention.feed_forward is not None:
        yield from _layer(f"{name}.ffn.0", attention.feed_forward.norm)
        yield from _layer(f"{name}.ffn.1", attention.feed_forward.expand, True)
        yield from _layer(f"{name}.ffn.3", attention.feed_forward.project, True)


def _layer(name, layer, pointwise=False):
    """Kernel and bias, or gamma and beta, of one layer."""
    if hasattr(layer, "gamma"):
        yield f"{name}.weight", layer.gamma, "vector"
        yield f"{name}.bias", layer.beta, "vector"
        return
    layout = "conv" if len(layer.kernel.shape) == 4 else "dense"
    if isinstance(layer, FrameConv):
        layout = "frames"
    yield f"{name}.weight", layer.kernel, "pointwise" if pointwise else layout
    if layer.bias is not None:
        yield f"{name}.bias", layer.bias, "vector"


TO_KERAS = {
    "vector": lambda array: array,
    "dense": lambda array: array.T,
    "conv": lambda array: array.transpose(2, 3, 1, 0),
    "frames": lambda array: array.transpose(2, 1, 0)[:, None],
    "pointwise": lambda array: array[:, :, 0, 0].T,
}

TO_TORCH = {
    "vector": lambda array: array,
    "dense": lambda array: array.T,
    "conv": lambda array: array.transpose(3, 2, 0, 1),
    "frames": lambda array: array[:, 0].transpose(2, 1, 0),
    "pointwise": lambda array: array.T[:, :, None, None],
}


def official_shape(variable, layout):
    """Shape of a parameter in the official layout."""
    return TO_TORCH[layout](np.empty(tuple(variable.shape), "bool")).shape


def assign_weights(network, weights, progress=None):
    """Puts official weights into a network, after checking every one of them.

    Args:
        network: `UNet` or `NestedUNet`.
        weights: dict of official parameter name to array. They are copied one after
            the other, so that a checkpoint is never in memory as a whole.
        progress: Optional callable `(done, total)`, called after each parameter.

    Raises:
        ValueError: if parameters are missing, unexpected or of another shape; nothing
            is assigned then.
    """
    wanted = {
        name: (variable, layout) for name, variable, layout in named_variables(network)
    }
    outer = len(network.dolls) - 1
    present = {name for name in weights if not _is_unused(name, outer)}
    problems = [f"missing: {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected: {name}" for name in sorted(present - set(wanted))]
    for name in sorted(present & set(wanted)):
        shape, expected = tuple(weights[name].shape), official_shape(*wanted[name])
        if shape != expected:
            problems.append(f"shape of {name}: {shape}, expected {expected}")
    if problems:
        raise ValueError("the weights do not fit the network:\n" + "\n".join(problems))
    for done, (name, (variable, layout)) in enumerate(wanted.items(), start=1):
        # A copy: backends may take an array for their own, and this one is a file's.
        variable.assign(np.array(TO_KERAS[layout](weights[name])))
        if progress is not None:
            progress(done, len(wanted))


def official_weights(network):
    """Yields (official name, array in the official layout) of every parameter."""
    for name, variable, layout in named_variables(network):
        yield name, TO_TORCH[layout](keras.ops.convert_to_numpy(variable.value))


def _is_unused(name, outer):
    """Whether the official code never reads a parameter of such a nest."""
    parts = name.split(".")
    depth = parts.count("inner_unet")
    if depth < outer and parts[depth] in _UNUSED_OUTER:
        return True
    return any(part in UNUSED for part in parts)
