"""The official implementation (apple/ml-mdm): its networks and its weights.

Says which of our variables each official parameter is, and how its axes are laid out.
"""

import math

import keras
import numpy as np

from keras_mdm.conditioning import TextEmbeddings
from keras_mdm.layers import FrameConv
from keras_mdm.networks import NestedUNet, UNet
from keras_mdm.text_files import printable

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


# Official names of layers, and the attributes that are those layers here. An attribute
# that a network lacks, or that is None, is not there officially either. A dense layer
# that is officially a convolution of one pixel is marked with *.
_NETWORK = {
    "temb_layer1": "time_embedding.hidden",
    "temb_layer2": "time_embedding.output_projection",
    "conv_in": "conv_in",
    "norm_out": "norm_out",
    "conv_out": "conv_out",
    "in_adapter": "adapter_in",
    "out_adapter": "adapter_out",
    "cond_emb": "tokens.pooled",
    "lm_proj": "tokens.projection",
}
_MICRO_EMBEDDING = {"0": "hidden", "1": "output_projection"}
_RESIDUAL = {
    "norm1": "norm_1",
    "conv1": "conv_1",
    "time_layer": "modulation",
    "norm2": "norm_2",
    "conv2": "conv_2",
    "conv3": "*skip",
}
_ATTENTION = {
    "norm": "norm",
    "qkv": "*qkv",
    "proj_out": "*output_projection",
    "norm_cond": "token_norm",
    "kv_cond": "token_kv",
    "ffn.0": "feed_forward.norm",
    "ffn.1": "*feed_forward.expand",
    "ffn.3": "*feed_forward.project",
}
_SEQUENCE_ATTENTION = {
    "attn.norm": "norm",
    "attn.qkv": "qkv",
    "attn.proj_out": "output_projection",
    "mlp.main.0": "feed_forward.norm",
    "mlp.main.1": "feed_forward.expand",
    "mlp.main.3": "feed_forward.project",
    "down_conv": "downsample",
    "up_conv": "upsample",
}


def named_variables(network, prefix=""):
    """Yields (official name, variable, layout) of every parameter of a network.

    Layouts are keys of `TO_KERAS` and `TO_TORCH`.
    """
    yield from _layers(prefix, network, _NETWORK)
    for micro in network.micro_embeddings:
        name = f"{prefix}cond_layers.{micro.feature}."
        yield from _layers(name, micro, _MICRO_EMBEDDING)
    for i, block in enumerate(network.down_blocks):
        yield from _block(f"{prefix}down_blocks.{i}.", block)
    for i, block in enumerate(network.up_blocks):
        yield from _block(f"{prefix}up_blocks.{i}.", block)
    if isinstance(network, NestedUNet):
        yield from named_variables(network.inner, f"{prefix}inner_unet.")
        return
    if network.mid_block is not None:
        yield from _block(f"{prefix}mid_blocks.0.", network.mid_block)
        name = f"{prefix}mid_blocks.1.resnets.0."
        yield from _layers(name, network.mid_residual, _RESIDUAL)
    for i, block in enumerate(network.tokens.blocks if network.tokens else ()):
        yield from _layers(f"{prefix}lm_head.{i}.", block, _SEQUENCE_ATTENTION)


def _block(prefix, block):
    for kind, layers, table in (
        ("resnets", block.residuals, _RESIDUAL),
        ("attn", block.attentions, _ATTENTION),
        ("t_attn", block.temporal_attentions, _SEQUENCE_ATTENTION),
    ):
        for i, layer in enumerate(layers):
            yield from _layers(f"{prefix}{kind}.{i}.", layer, table)
    yield from _layers(prefix, block, {"resample": "resample.conv"})


def _layers(prefix, owner, table):
    """Kernel and bias, or gamma and beta, of the layers of a table."""
    for name, path in table.items():
        layer = owner
        for attribute in path.removeprefix("*").split("."):
            layer = getattr(layer, attribute, None)
        if layer is None:
            continue
        name = f"{prefix}{name}"
        if hasattr(layer, "gamma"):
            yield f"{name}.weight", layer.gamma, "vector"
            yield f"{name}.bias", layer.beta, "vector"
            continue
        layout = "conv" if len(layer.kernel.shape) == 4 else "dense"
        if isinstance(layer, FrameConv):
            layout = "frames"
        if path.startswith("*"):
            layout = "pointwise"
        yield f"{name}.weight", layer.kernel, layout
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
    outer = len(network.networks) - 1
    present = {name for name in weights if not _is_unused(name, outer)}
    problems = [f"missing: {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected: {name}" for name in sorted(present - set(wanted))]
    for name in sorted(present & set(wanted)):
        shape, expected = tuple(weights[name].shape), official_shape(*wanted[name])
        if shape != expected:
            problems.append(f"shape of {name}: {shape}, expected {expected}")
    if problems:
        problems = "\n".join(map(printable, problems))
        raise ValueError(f"the weights do not fit the network:\n{problems}")
    for done, (name, (variable, layout)) in enumerate(wanted.items(), start=1):
        # A copy: backends may take an array for their own, and this one is a file's.
        variable.assign(np.array(TO_KERAS[layout](weights[name])))
        if progress is not None:
            progress(done, len(wanted))


def official_weights(network, progress=None):
    """Yields (official name, array in the official layout) of every parameter."""
    variables = list(named_variables(network))
    for done, (name, variable, layout) in enumerate(variables, start=1):
        yield name, TO_TORCH[layout](keras.ops.convert_to_numpy(variable.value))
        if progress is not None:
            progress(done, len(variables))


def _is_unused(name, outer):
    """Whether the official code never reads a parameter of such a nest."""
    parts = name.split(".")
    depth = parts.count("inner_unet")
    if depth < outer and parts[depth] in _UNUSED_OUTER:
        return True
    return any(part in UNUSED for part in parts)
