"""What a call of `generate` asks for, checked and brought into arrays.

Texts are encoded here, and every error about a text, a label, a condition or a seed is
raised, before anything is compiled. Called by `generate` alone.
"""

import dataclasses
import secrets

import numpy as np

from keras_mdm.conditioning import TextConditioner
from keras_mdm.levels import read_level
from keras_mdm.model.batches import check_labels, missing_features


@dataclasses.dataclass(frozen=True)
class Given:
    """The condition, or the negative one, as `generate` was given it.

    Attributes:
        names: Names of the three arguments, for errors.
        texts: str, sequence of str, or `None`.
        labels: int, sequence of int, or `None`.
        features: dict of arrays, or `None`.
    """

    names: tuple
    texts: object = None
    labels: object = None
    features: object = None

    def __bool__(self):
        given = (self.texts, self.labels, self.features)
        return any(value is not None for value in given)


def check_count(name, value, most=None):
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        end = "" if most is None else f" to {most}"
        raise ValueError(
            f"`{name}` must be a whole number from 1{end}. Received: {name}={value!r}"
        )


def gather_condition(given, conditioner, num_samples):
    """One dict of the condition's arrays, each entry repeated `num_samples` times.

    Args:
        given: `Given`.
        conditioner: The network's conditioner, or `None`.
        num_samples: int.

    Returns:
        dict of arrays.
    """
    gathered = {key: np.asarray(value) for key, value in (given.features or {}).items()}
    text_name, label_name, feature_name = given.names
    for key, value in gathered.items():
        if value.dtype.kind not in "iub" and not _is_finite(value):
            raise ValueError(
                f"'{key}' of `{feature_name}` must be finite numbers. Received: "
                f"{value if value.size < 9 else 'NaN, infinite or no numbers'}"
            )
    if given.texts is not None:
        if not isinstance(conditioner, TextConditioner):
            raise ValueError(
                f"`{text_name}` was given to a model that is not conditional on text. "
                f"Received: {text_name}={given.texts!r}. Classes are given as "
                f"`{label_name}`."
            )
        texts = given.texts
        texts = [texts] if isinstance(texts, str | bytes) else texts
        gathered.update(conditioner.encode_prompts(texts, text_name))
    if given.labels is not None:
        gathered["labels"] = np.atleast_1d(np.asarray(given.labels))
    needed = tuple(getattr(conditioner, "feature_names", ()))
    if "labels" in gathered and "labels" not in needed:
        raise ValueError(
            f"`{label_name}` was given to a model that is not class-conditional. "
            f"Received: {label_name}={given.labels}"
        )
    missing = missing_features(needed, gathered)
    if missing:
        where = label_name if missing == ["labels"] else feature_name
        if isinstance(conditioner, TextConditioner):
            where = f"{text_name}` (strings), or as `{where}"
        raise ValueError(
            f"the model's condition needs {missing}; give them as `{where}`. "
            f"Received: {sorted(gathered) or None}"
        )
    if "labels" in gathered:
        check_labels(gathered["labels"], conditioner.num_classes)
        gathered["labels"] = gathered["labels"].astype("int32")
    if isinstance(conditioner, TextConditioner):
        conditioner.check_features(gathered)
    lengths = {len(value) for value in gathered.values() if value.ndim}
    if len(lengths) > 1 or 0 in lengths:
        sizes = {key: len(value) for key, value in gathered.items() if value.ndim}
        raise ValueError(
            "every feature of the condition must have the same number of entries, "
            f"at least one. Received: {sizes}"
        )
    # A single number, such as a micro-condition, holds for every entry.
    count = lengths.pop() if lengths else 1
    return {
        key: np.repeat(value if value.ndim else [value] * count, num_samples, axis=0)
        for key, value in gathered.items()
    }


def negative_of(given, conditioner):
    """What guidance leads away from, if it is not said: `given`, or the empty text.

    Raises:
        ValueError: if that is the empty text, and nothing can encode it.
    """
    if given or not getattr(conditioner, "as_encoded", False):
        return given
    if conditioner.encoder is None:
        raise ValueError(
            "guidance leads this model away from the embeddings of the empty text: "
            f"give them as `{given.names[2]}`, or set `mdm.text_encoder`."
        )
    return dataclasses.replace(given, texts="")


def _is_finite(value):
    """Whether an array has nothing but finite numbers, in float32."""
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(value.astype("float32")).all())
    except (TypeError, ValueError):
        return False


def gather_negative(given, condition, conditioner, num_samples):
    """The condition and the negative one, each with a row for each picture.

    Returns:
        A pair of dicts of arrays. Of a conditioner that takes embeddings `as_encoded`,
        both have the length of the longer one, as if encoded together.
    """
    negative = gather_condition(given, conditioner, 1)
    if getattr(conditioner, "as_encoded", False):
        condition, negative = _of_one_length(condition, negative, conditioner)
    foreign = sorted(set(negative) - set(condition))
    if foreign:
        raise ValueError(
            f"the negative condition has {foreign}, which the condition lacks: give "
            f"both in the same way. The condition has {sorted(condition)}."
        )
    total = len(next(iter(condition.values())))
    for key, value in negative.items():
        if len(value) == 1:
            negative[key] = np.repeat(value, total, axis=0)
        elif len(value) * num_samples == total:
            negative[key] = np.repeat(value, num_samples, axis=0)
        else:
            name = given.names[0 if given.texts is not None else 1]
            raise ValueError(
                f"the negative condition (`{name}`) must have one entry, or one for "
                f"each entry of the condition ({total // num_samples}). "
                f"Received: {len(value)}"
            )
        if key in condition and negative[key].shape[1:] != condition[key].shape[1:]:
            raise ValueError(
                f"'{key}' of the negative condition must have the shape of the "
                f"condition's, {condition[key].shape[1:]}. "
                f"Received: {negative[key].shape[1:]}"
            )
    return condition, {**condition, **negative}


def _of_one_length(condition, negative, conditioner):
    """Both with zeros behind the tokens of the shorter one."""
    both = [dict(condition), dict(negative)]
    for key in conditioner.feature_names:
        found = [features[key] for features in both if key in features]
        longest = max((array.shape[1] for array in found), default=0)
        for features in both:
            if key in features:
                rest = longest - features[key].shape[1]
                padding = [(0, 0)] * features[key].ndim
                padding[1] = (0, rest)
                features[key] = np.pad(features[key], padding)
    return both


def gather_known_frames(given, level, channels, total):
    """Given frames of clips as arrays, one row for each clip.

    Args:
        given: dict of frame number to picture, or `None`.
        level: int or str. Largest level that is drawn.
        channels: int.
        total: int. Clips drawn.

    Returns:
        dict of float32 arrays: `clips` in [-1, 1], zero where nothing is given, and
        `mask` of shape `(total, frames)`; `None` if there are none.
    """
    if not given:
        return None
    frames, resolution = read_level(level)
    if frames == 1:
        raise ValueError(
            "`known_frames` is for models of clips; this one draws pictures of "
            f"{resolution} pixels. Received: frames {sorted(given)}"
        )
    shape = (resolution, resolution, channels)
    clips = np.zeros((total, frames, *shape), "float32")
    mask = np.zeros((total, frames), "float32")
    for number, picture in given.items():
        if number not in range(frames):
            raise ValueError(
                f"`known_frames` must have keys from 0 to {frames - 1}. "
                f"Received: {number!r}"
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


def sample_seeds(seed, total):
    """int32 array of one seed for each picture."""
    if seed is None:
        seed = secrets.randbelow(2**31 - total)
    seeds = np.asarray(seed)
    if seeds.dtype.kind not in "iu":
        raise ValueError(f"`seed` must be whole numbers. Received: seed={seed}")
    if seeds.ndim == 0:
        seeds = seeds + np.arange(total)
    if seeds.shape != (total,):
        raise ValueError(
            f"`seed` must be one number, or one for each of the {total} pictures. "
            f"Received: {seeds.shape[0]} numbers"
        )
    if seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(f"`seed` must be from 0 to 2**31 - 1. Received: seed={seed}")
    return seeds.astype("int32")
