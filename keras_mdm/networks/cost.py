"""Cost of one forward pass, counted from the shapes of a network's layers.

Convolutions and matrix products are counted, a multiplication and an addition as two.
Nothing is run, so the count is the same on every backend, dtype and device.
"""

import math

from keras_mdm.networks.inflated_unet import InflatedUNet


def count_flops(network, num_tokens=1):
    """Counts the FLOPs of one forward pass of one sample, for each doll.

    A training step costs about three times as much: the backward pass has two products
    for each one of the forward pass.

    Args:
        network: `UNet` or a doll around one.
        num_tokens: int. Condition tokens of a sample, padding included. Defaults to 1,
            a class label. A network without conditioner has none.

    Returns:
        dict of level to int, largest first: the doll of that level without
        those inside it. The sum of the values is the cost of the whole network.

    Example:

    ```python
    network = keras_mdm.UNet(16, channels=(32, 64))
    sum(count_flops(network).values())
    ```
    """
    conditions = count_condition_flops(network, num_tokens)
    return {
        doll.level: conditions[doll.level]
        + _count_doll(doll, _tokens_seen(network, num_tokens))
        for doll in network.dolls
    }


def count_condition_flops(network, num_tokens=1):
    """Counts the part of `count_flops` that does not depend on the timestep.

    This is `encode_condition`: a sampling run does it once, not at every step.

    Args:
        network: `UNet` or a doll around one.
        num_tokens: int. See `count_flops`.

    Returns:
        dict of level to int, largest first.
    """
    tokens = _tokens_seen(network, num_tokens)
    return {doll.level: _count_condition(doll, tokens) for doll in network.dolls}


def _tokens_seen(network, num_tokens):
    if num_tokens < 1:
        raise ValueError(
            f"`num_tokens` must be at least 1. Received: num_tokens={num_tokens}"
        )
    return num_tokens if network.conditioner is not None else 0


def _blocks(doll):
    """Pairs of a resolution block and the frames and pixels of its input."""
    shapes = [doll.level_shape(i) for i in range(len(doll.channels))]
    yield from zip(doll.down_blocks, shapes, strict=True)
    if getattr(doll, "mid_block", None) is not None:
        yield doll.mid_block, shapes[-1]
    yield from zip(doll.up_blocks, reversed(shapes), strict=True)


def _count_inflated(doll, tokens):
    """The inner network once a frame, though its embeddings only once."""
    inner = doll.inner
    embeddings = [inner.time_embedding, *inner.micro_embeddings]
    once = sum(_scalar_embedding(layer) for layer in embeddings)
    total = doll.frames * (_count_doll(inner, tokens) - once)
    frames = doll.frame_embedding
    total += _dense(frames.hidden, 1) + _dense(frames.output_projection, doll.frames)
    for layer, level in doll.placed_attentions():
        total += _temporal_attention(layer, *doll.level_shape(level))
    return total


def _count_doll(doll, tokens):
    if isinstance(doll, InflatedUNet):
        return _count_inflated(doll, tokens)
    frames, size = doll.level_shape(0)
    total = _scalar_embedding(doll.time_embedding)
    total += sum(_scalar_embedding(micro) for micro in doll.micro_embeddings)
    total += frames * (_conv(doll.conv_in, size) + _conv(doll.conv_out, size))
    total += sum(_block(block, *shape, tokens) for block, shape in _blocks(doll))
    fewer, bottom = doll.level_shape(len(doll.channels) - 1)
    if getattr(doll, "mid_residual", None) is not None:
        total += fewer * _residual(doll.mid_residual, bottom)
    if len(doll.dolls) > 1:
        adapters = _conv(doll.adapter_in, bottom) + _conv(doll.adapter_out, bottom)
        total += fewer * adapters
    return total


def _count_condition(doll, tokens):
    if tokens == 0 or isinstance(doll, InflatedUNet):
        return 0
    total = sum(
        _dense(attention.token_kv, tokens)
        for block, _ in _blocks(doll)
        for attention in block.attentions
    )
    encoder = getattr(doll, "tokens", None)
    if encoder is not None:
        if encoder.projection is not None:
            total += _dense(encoder.projection, tokens)
        total += sum(_token_block(block, tokens) for block in encoder.blocks)
        total += _dense(encoder.pooled, 1)
    return total


def _scalar_embedding(layer):
    return _dense(layer.hidden, 1) + _dense(layer.output_projection, 1)


def _block(block, frames, size, tokens):
    total = sum(_residual(residual, size) for residual in block.residuals)
    total += sum(_attention(layer, size, tokens) for layer in block.attentions)
    total *= frames
    for layer in block.temporal_attentions:
        total += _temporal_attention(layer, frames, size)
    if block.resample is not None:
        down = block.resample.conv.strides[0] > 1
        if block.temporal_resampling:
            frames = frames // 2 if down else frames * 2
        else:
            size = size // 2 if down else size * 2
        total += frames * _conv(block.resample.conv, size)
    return total


def _temporal_attention(layer, frames, size):
    """Attention over frames at half the size, and the convolutions around it."""
    places = (size // 2) ** 2
    total = _conv(layer.downsample, size // 2) + _conv(layer.upsample, size)
    for part in (layer.qkv, layer.output_projection):
        total += _dense(part, places)
    total += _feed_forward(layer.feed_forward, places)
    return frames * total + places * _products(frames, frames, layer.channels)


def _residual(block, size):
    total = _conv(block.conv_1, size) + _conv(block.conv_2, size)
    total += _dense(block.modulation, 1)
    return total + (_dense(block.skip, size * size) if block.skip is not None else 0)


def _attention(layer, size, tokens):
    pixels = size * size
    total = _dense(layer.qkv, pixels) + _dense(layer.output_projection, pixels)
    total += _products(pixels, pixels, layer.channels)
    if tokens > 1:  # the weight of a single token is 1: nothing is multiplied
        total += _products(pixels, tokens, layer.channels)
    return total + _feed_forward(layer.feed_forward, pixels)


def _token_block(block, tokens):
    total = _dense(block.qkv, tokens) + _dense(block.output_projection, tokens)
    if tokens > 1:
        total += _products(tokens, tokens, block.size)
    return total + _feed_forward(block.feed_forward, tokens)


def _feed_forward(layer, positions):
    if layer is None:
        return 0
    return _dense(layer.expand, positions) + _dense(layer.project, positions)


def _products(queries, keys, channels):
    """Scores of queries and keys, then weighted sums of values, over all heads."""
    return 2 * (2 * queries * keys * channels)


def _dense(layer, positions):
    return 2 * positions * math.prod(layer.kernel.shape)


def _conv(layer, size):
    """A convolution whose result has height and width `size`."""
    return 2 * size * size * math.prod(layer.kernel.shape)
