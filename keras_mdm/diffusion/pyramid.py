"""From clean pictures or clips to the levels of a nest."""

from keras import ops

from keras_mdm.levels import read_level

FRAME_POOLINGS = ("first", "average")


def pyramid(pictures, levels, frame_pooling="first"):
    """Pools pictures or clips down to every level, step by step.

    Height and width are pooled by averages.

    Args:
        pictures: Tensor of the largest level: `(batch, height, width, channels)` or
            `(batch, frames, height, width, channels)`.
        levels: Sequence of levels, largest first, see `keras_mdm.levels`. Frames,
            height and width of each divide those of the one before.
        frame_pooling: str. Which frames a level with fewer of them has: `"first"` of
            every group of neighbors, as the official code, or their `"average"`.

    Returns:
        List of tensors, one for each level.

    Reference:
        - [Gu et al., 2023](https://arxiv.org/abs/2310.15111), 3.1
    """
    found = [pictures]
    for larger, smaller in zip(levels, levels[1:], strict=False):
        frames, resolution = read_level(larger)
        fewer, lower = read_level(smaller)
        x = found[-1]
        if frames != fewer:
            x = _pool_frames(x, frames // fewer, frame_pooling)
        factor, batch = resolution // lower, ops.shape(x)[0]
        if factor > 1:
            x = ops.reshape(x, (-1, *x.shape[-3:]))
            x = ops.average_pool(x, factor, factor, data_format="channels_last")
        shape = (lower, lower, x.shape[-1])
        if fewer > 1:
            shape = (fewer, *shape)
        found.append(ops.reshape(x, (batch, *shape)))
    return found


def _pool_frames(clips, factor, frame_pooling):
    if frame_pooling == "first":
        return clips[:, ::factor]
    shape = clips.shape
    groups = ops.reshape(clips, (-1, shape[1] // factor, factor, *shape[2:]))
    return ops.mean(groups, axis=2)
