"""From a source to batches that `fit` accepts: the one road from data to model.

Users and recipes call `make_dataset`. A batch is a dict of `images`
`(batch, height, width, channels)` or `videos` `(batch, frames, height, width,
channels)`, uint8 in [0, 255], and, if wanted, `labels` `(batch,)`, int32, `captions`
`(batch,)`, strings, or the captions' `text_embeddings` with `text_mask`, and values of
micro-conditioning `(batch,)`, float32, by their names.
"""

from keras_mdm.checks import (
    between,
    check_choice,
    check_flags,
    check_number,
    check_whole,
)
from keras_mdm.data.preparation import Preparation
from keras_mdm.data.transforms import check_positive, check_resolution
from keras_mdm.data.workers import default_workers

# Bytes of prepared pictures that are kept in memory.
CACHE_LIMIT = 512 * 2**20

_KEYS = ("images", "videos", "labels", "captions")


def make_dataset(
    source,
    resolution,
    batch_size,
    shuffle=True,
    seed=0,
    flip=False,
    crop="center",
    crop_scale=(0.8, 1.0),
    upscale=False,
    repeat=False,
    num_workers=None,
    channels=None,
    keep=("images", "videos", "labels"),
    micro_conditioning=(),
    embeddings=None,
    shard=(0, 1),
    max_unusable=0.8,
):
    """Makes a dataset of batches that `keras.Model.fit` accepts on every backend.

    Each pass over the data has its own order, crops and flips, which depend on
    `seed`, the number of the pass and, if the source streams, `num_workers` only. The
    last, incomplete batch of a pass is dropped. Several processes share a pass: batch
    for batch, the pictures of their `shard`s, one behind the other, are those that one
    process would read with the sum of their batch sizes.

    Pictures that are damaged or too small are skipped, which never makes a batch
    smaller; `source.report()` tells of them. All frames of a video are cropped, resized
    and mirrored alike.

    With `crop="center"` and no worker processes, prepared pictures stay in memory
    after the first pass if all of them take at most 512 MiB.

    Args:
        source: A `Source`, see `open_source`.
        resolution: Int. Side of the pictures in pixels.
        batch_size: Int. Pictures in a batch; in a sharded run, of this process.
        shuffle: Bool. Whether each pass is shuffled anew.
        seed: Int in [0, 2**32). Of order, crops and flips.
        flip: Bool. Whether pictures are mirrored left and right with probability
            1/2. Leave it off where sides matter: digits, captions with "left".
        crop: `"center"` or `"random"`.
        crop_scale: Pair of floats in (0, 1]: fraction of the shorter side that a
            random crop takes.
        upscale: Bool. Whether pictures smaller than `resolution` are enlarged
            rather than skipped.
        repeat: Bool. `True`: the data never end; give `fit` `steps_per_epoch`.
            `False`: an iteration is one pass, as for `evaluate` and
            `validation_data`; give no `steps_per_epoch`. (`fit` then warns once
            that the data ran out: that is the end of the first pass.)
        num_workers: Int. Worker processes that read and prepare; 0 means threads of
            this process. Scripts with workers need an `if __name__ == "__main__":`, and
            `repeat=True` saves starting them at each pass. Defaults to half of the
            cores, at most 8, if there are more than 2, the data repeat, and are neither
            streamed nor small enough to stay in memory; else to 0.
        channels: 1 or 3. Defaults to the channels of the source.
        keep: Which of `"images"`, `"videos"`, `"labels"`, `"captions"` a batch has,
            as far as the source has them. Captions are strings, which `MDM.fit`
            encodes; of several captions of a picture, each pass takes one at random.
        micro_conditioning: Names of the values that a batch has:
            `"scale"` (the shorter side of the original picture, in pixels),
            `"crop_top"` and `"crop_left"` (where the square was cut, in pixels at the
            size of the batch's pictures; [Podell et al., 2023](
            https://arxiv.org/abs/2307.01952), 2.2), and what else the source's items
            have in their `micro_conditioning`.
        embeddings: Optional `EmbeddingShards` of the captions: a batch then has
            `text_embeddings` and `text_mask`.
        shard: Pair `(index, count)`: of batches of `count * batch_size` pictures, this
            process reads the part number `index`. All shards have the same number of
            batches as long as every picture is usable. (The rows of a source that
            streams are divided otherwise: row by row, or file by file.)
        max_unusable: Float in [0, 1]. If more than this share of the pictures can't be
            used, reading stops with an error that lists the reasons.

    Returns:
        A `grain.IterDataset` of dicts. Its attribute `epoch` is the number of the
        pass with which the next iteration starts; it may be set. Its iterators have
        `get_state()` and `set_state(state)`, which resume at an exact batch.

    Raises:
        ValueError: If an argument is wrong, or fewer than `batch_size` pictures
            are usable.

    Example:

    ```python
    source = keras_mdm.data.open_source("shapes")
    dataset = keras_mdm.data.make_dataset(
        source, resolution=16, batch_size=64, repeat=True
    )
    steps = keras_mdm.data.steps_per_epoch(source, batch_size=64)
    mdm.fit(dataset, epochs=10, steps_per_epoch=steps)
    ```
    """
    resolution = check_resolution(resolution)
    batch_size = check_positive("batch_size", batch_size)
    check_flags(shuffle=shuffle, repeat=repeat, flip=flip, upscale=upscale)
    check_choice(("center", "random"), crop=crop)
    pair = isinstance(crop_scale, tuple | list) and len(crop_scale) == 2
    pair = pair and all(between(scale, 0.0, 1.0) for scale in crop_scale)
    if not pair or not 0 < crop_scale[0] <= crop_scale[1]:
        raise ValueError(
            "`crop_scale` must be a pair (low, high) with 0 < low <= high <= 1. "
            f"Received: crop_scale={crop_scale}"
        )
    check_whole(0, 2**32 - 1, seed=seed)
    if num_workers is not None:
        check_whole(0, num_workers=num_workers)
    if channels is not None and not (between(channels) and channels in (1, 3)):
        raise ValueError(f"`channels` must be 1 or 3. Received: channels={channels!r}")
    check_number(0, 1, max_unusable=max_unusable)
    _check_keep(keep, source)
    if source.is_video and source.num_frames is None:
        raise ValueError(
            f"The videos of {source.name!r} may differ in length, and those of a batch "
            "must not. Open the source with `num_frames`, such as "
            f"open_source({source.name!r}, num_frames=16)."
        )
    if embeddings is not None:
        source.require_captions("embeddings=...")
    shard = _check_shard(shard)
    needed = batch_size * shard[1]
    if len(source) < needed:
        raise ValueError(
            f"{source.name!r} has {len(source)} {source.noun} in all, fewer than the "
            f"{needed} of one batch. Received: batch_size={batch_size}, shard={shard}"
        )
    channels = channels or source.channels
    frames = source.num_frames if source.is_video else 1
    may_cache = (
        crop == "center"
        and source.stream is None
        and len(source) * frames * resolution**2 * channels <= CACHE_LIMIT
    )
    if num_workers is None:
        # A stream has another order for each number of workers.
        wanted = repeat and not may_cache and source.stream is None
        num_workers = default_workers() if wanted else 0
    # Imports grain, which `import keras_mdm.data` should not cost.
    from keras_mdm.data.passes import PictureDataset

    preparation = Preparation(
        source=source,
        seed=seed,
        keep=tuple(keep),
        micro_conditioning=tuple(micro_conditioning),
        embeddings=embeddings,
        flip=flip,
        may_cache=may_cache and num_workers == 0,
        channels=channels,
        square=dict(
            resolution=resolution,
            crop=crop,
            crop_scale=tuple(crop_scale),
            upscale=upscale,
        ),
    )
    return PictureDataset(
        preparation, batch_size, shuffle, repeat, num_workers, shard, max_unusable
    )


def steps_per_epoch(source, batch_size, shard=(0, 1)):
    """Returns the number of whole batches in one pass over a source.

    Skipped pictures, which nobody knows of before they are read, make it fewer.

    Args:
        source: A `Source`, or anything with a length.
        batch_size: Int. Pictures in a batch of one process.
        shard: Pair `(index, count)`, as `make_dataset` takes it.

    Returns:
        Int.
    """
    batch_size = check_positive("batch_size", batch_size)
    return len(source) // (batch_size * _check_shard(shard)[1])


def _check_shard(shard):
    whole = isinstance(shard, tuple | list) and all(type(n) is int for n in shard)
    if not whole or len(shard) != 2 or not 0 <= shard[0] < shard[1]:
        raise ValueError(
            "`shard` must be a pair (index, count) of whole numbers with "
            f"0 <= index < count. Received: shard={shard!r}"
        )
    return tuple(shard)


def _check_keep(keep, source):
    picture_key = "videos" if source.is_video else "images"
    listed = isinstance(keep, tuple | list | set)
    if not listed or not {picture_key} <= set(map(str, keep)) <= set(_KEYS):
        raise ValueError(
            f"`keep` must be some of {_KEYS}, with {picture_key!r} among them for "
            f"{source.name!r}. Received: keep={keep!r}"
        )
    if "captions" in keep:
        source.require_captions(f"keep={keep!r}")
