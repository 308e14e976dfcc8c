"""Drawing what fits known frames: RePaint, inside the compiled sampling run.

At each noise level the known frames are noised anew, a step is taken, and all goes
back to the level by fresh noise, several times: so the other frames have the time to
agree with those that are known ([Lugmayr et al., 2022](
https://arxiv.org/abs/2201.09865), algorithm 1). These steps are DDPM's, which
agree in fewer repetitions than steps without noise; the last one, which stays, is the
sampler's. Called by `sampling`.
"""

import numpy as np
from keras import ops

from keras_mdm.checks import between
from keras_mdm.diffusion.noise import noise_stream, sample_noise
from keras_mdm.diffusion.pyramid import pyramid
from keras_mdm.levels import read_level

# Sets the noise here apart from that of the initial pictures and of sampler steps.
_STREAM = 1 << 28
# What fresh noise is for; each has its own.
_KNOWN, _BACK, _STEP = range(3)


def read_known_frames(frames_by_number, level, channels, total):
    """Known frames of clips as arrays, one row for each of `total` clips.

    Returns:
        dict of float32 arrays: `clips` in [-1, 1], zero where nothing is known, and
        `mask` of shape `(total, frames)`; `None` if there are none.
    """
    if frames_by_number is None:
        return None
    if not isinstance(frames_by_number, dict):
        raise ValueError(
            "`known_frames` must be a dict of number of frame to picture. Received: "
            f"{type(frames_by_number).__name__} {frames_by_number!r:.80}"
        )
    if not frames_by_number:
        return None
    frames, resolution = read_level(level)
    if frames == 1:
        raise ValueError(
            "`known_frames` is for models of clips; this one draws pictures of "
            f"{resolution} pixels. Received: frames {list(frames_by_number)}"
        )
    shape = (resolution, resolution, channels)
    clips = np.zeros((total, frames, *shape), "float32")
    mask = np.zeros((total, frames), "float32")
    for number, picture in frames_by_number.items():
        if not between(number, 0, frames - 1, whole=True):
            raise ValueError(
                "`known_frames` must have numbers of frames as keys from 0 to "
                f"{frames - 1}. Received: {number!r}"
            )
        picture = np.asarray(picture)
        if picture.shape not in (shape, (total, *shape)):
            raise ValueError(
                f"pictures of `known_frames` must have the shape {shape}, or "
                f"{(total, *shape)} for one each. Received: shape={picture.shape} for "
                f"frame {number}"
            )
        if picture.dtype == "uint8":
            picture = picture.astype("float32") / 127.5 - 1.0
        elif picture.dtype.kind != "f" or not np.abs(picture).max() <= 1.0001:
            raise ValueError(
                "pictures of `known_frames` must be uint8 in [0, 255] or float in "
                f"[-1, 1]. Received: dtype={picture.dtype}, values from "
                f"{picture.min()} to {picture.max()} for frame {number}"
            )
        clips[:, number] = picture
        mask[:, number] = 1.0
    return {"clips": clips, "mask": mask}


def known_levels(known, levels, pooling, scales):
    """Known frames at every level, and where they hold.

    Args:
        known: What `read_known_frames` returned, as tensors.
        levels: Sequence of levels, largest first.
        pooling: str. See `keras_mdm.diffusion.pyramid.pyramid`.
        scales: Sequence of float: by what pictures of a level are divided.

    Returns:
        List of dicts of `clips` and a bool `mask`; `None` if nothing is known.
    """
    if known is None:
        return None
    clips = pyramid(known["clips"], levels, pooling)
    mask = ops.reshape(known["mask"], (*known["mask"].shape, 1, 1, 1))
    masks = [mask]
    for level in levels[1:]:
        frames = read_level(level)[0]
        groups = ops.reshape(mask, (mask.shape[0], frames, -1, 1, 1, 1))
        # An average is known if every one of its frames is.
        mask_of = groups[:, :, 0] if pooling == "first" else ops.min(groups, axis=2)
        masks.append(mask_of if frames > 1 else mask_of[:, 0])
    return [
        {"clips": clip / scale, "mask": mask > 0.5}
        for clip, mask, scale in zip(clips, masks, scales, strict=True)
    ]


def insert(known, pictures):
    """Pictures of every level with the known frames in their places."""
    return [
        ops.where(level["mask"], level["clips"], picture)
        for level, picture in zip(known, pictures, strict=True)
    ]


def resampled_step(step, x, history, i, num_steps, known, seeds, levels, table, count):
    """One sampler step, taken `count` times from the same noise level.

    Args:
        step: Callable of noisy pictures, history, a function that makes a list of
            fresh noise, and coefficients of `plan`; returns the less noisy pictures and
            the clean ones.
        x: List of noisy pictures, largest level first.
        history: List of clean pictures.
        i: Scalar int32. Number of the step.
        num_steps: Scalar int32. The last step is taken once.
        known: What `known_levels` returned.
        seeds: int32 tensor of shape `(batch,)`.
        levels: Sequence of levels.
        table: dict with `alpha` and `sigma` of shape `(levels, timesteps + 1)`, and
            coefficients `steps` and, of DDPM, `repeats`.
        count: Scalar int32.

    Returns:
        A pair as `step`.
    """
    count = ops.where(i < num_steps - 1, count, 1)

    def fresh(k, purpose):
        number = (i * 1024 + k) * 3 + purpose
        return [
            sample_noise(
                seeds, _STREAM + noise_stream(level), number, picture.shape[1:]
            )
            for level, picture in zip(levels, x, strict=True)
        ]

    def at(name, level, number):
        return ops.take(table[name][level], number)

    def once(k, carry):
        x, history = carry
        noised = [
            at("alpha", n, i) * level["clips"] + at("sigma", n, i) * noise
            for n, (level, noise) in enumerate(
                zip(known, fresh(k, _KNOWN), strict=True)
            )
        ]
        x = [
            ops.where(level["mask"], noisy, picture)
            for level, noisy, picture in zip(known, noised, x, strict=True)
        ]
        again = k < count - 1
        steps = ops.where(again, table["repeats"], table["steps"])
        less, clean = step(x, history, lambda: fresh(k, _STEP), steps)
        back = []
        for n, (picture, noise) in enumerate(zip(less, fresh(k, _BACK), strict=True)):
            kept = at("alpha", n, i) / at("alpha", n, i + 1)
            added = at("sigma", n, i) ** 2 - (kept * at("sigma", n, i + 1)) ** 2
            back.append(kept * picture + ops.sqrt(ops.maximum(added, 0.0)) * noise)
        x = [ops.where(again, b, p) for b, p in zip(back, less, strict=True)]
        return x, clean

    return ops.fori_loop(0, count, once, (x, history))
