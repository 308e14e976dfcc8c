"""Noise that depends on a sample's own seed only, the same on every backend.

`keras.random` draws one stream for a whole batch, so a sample would depend on its
place in it. Here each number is a function of (seed, resolution, step, position):
Threefry-2x32 with 20 rounds ([Salmon et al., 2011](
https://doi.org/10.1145/2063384.2063405)), then Box-Muller. Used by sampling and by
`MDM.evaluate`; written with `keras.ops` on int32, whose sums wrap on all backends.
"""

import math

from keras import ops

from keras_mdm.levels import read_level

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _int32(value):
    """A tensor: with a `floatx` of 16 bits Keras takes whole numbers for others."""
    return ops.convert_to_tensor(value, dtype="int32")


def _rotate_left(x, bits):
    # int32 shifts right with the sign; the mask makes it a logical shift.
    low = ops.bitwise_and(
        ops.right_shift(x, _int32(32 - bits)), _int32((1 << bits) - 1)
    )
    return ops.bitwise_or(ops.left_shift(x, _int32(bits)), low)


def threefry(key, counter):
    """Threefry-2x32 with 20 rounds.

    Args:
        key: Pair of int32 tensors.
        counter: Pair of int32 tensors that broadcast with those of `key`.

    Returns:
        Pair of int32 tensors of uniformly distributed bits.
    """
    keys = (*key, ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), _int32(_PARITY)))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x = x + y
            y = ops.bitwise_xor(_rotate_left(y, bits), x)
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + _int32(group + 1)
    return x, y


def _uniform(bits):
    """Bits to float32 in (0, 1), never 0 or 1."""
    upper = ops.bitwise_and(ops.right_shift(bits, _int32(9)), _int32((1 << 23) - 1))
    return (ops.cast(upper, "float32") + 0.5) * (2.0**-23)


def noise_stream(level):
    """The stream of a level's noise: for pictures their side in pixels."""
    frames, resolution = read_level(level)
    return resolution + ((frames - 1) << 16)


def sample_noise(seeds, stream, step, shape):
    """Standard normal noise, one independent stream for each sample.

    Args:
        seeds: int32 tensor of shape `(batch,)`.
        stream: int. Separates uses of one seed; see `noise_stream`.
        step: int or scalar int32 tensor. 0 for the initial noise, k for step k.
        shape: Sequence of int. Shape of one sample.

    Returns:
        float32 tensor of shape `(batch, *shape)`.
    """
    count = math.prod(shape)
    half = (count + 1) // 2
    seeds = ops.cast(seeds, "int32")[:, None]
    key = (seeds, ops.full_like(seeds, stream, dtype="int32"))
    positions = ops.arange(half, dtype="int32")[None, :]
    steps = ops.zeros_like(positions) + ops.cast(step, "int32")
    first, second = threefry(key, (positions, steps))
    radius = ops.sqrt(-2.0 * ops.log(_uniform(first)))
    angle = (2.0 * math.pi) * _uniform(second)
    noise = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)
    return ops.reshape(noise[:, :count], (-1, *shape))


def sample_uniform(seeds, stream):
    """One uniform number in (0, 1) for each seed, float32 of shape `(batch,)`."""
    seeds = ops.cast(seeds, "int32")
    zeros = ops.zeros_like(seeds)
    first, _ = threefry(
        (seeds, ops.full_like(seeds, stream, dtype="int32")), (zeros, zeros - 1)
    )
    return _uniform(first)
