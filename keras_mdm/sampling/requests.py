"""What a call of `generate` asks for, checked and brought into arrays.

Texts are encoded here, and every error about a text, a label, a condition or a seed is
raised, before anything is compiled. Called by `generate` alone.
"""

import dataclasses
import secrets

import numpy as np

from keras_mdm import backend
from keras_mdm.conditioning import TextConditioner
from keras_mdm.fitting.batches import check_labels, missing_features


@dataclasses.dataclass(frozen=True)
class RequestedCondition:
    """The condition, or the negative one, as `generate` was asked for it.

    Attributes:
        texts: str, sequence of str, or `None`.
        labels: int, sequence of int, or `None`.
        features: dict of arrays, or `None`.
        negative: bool. Whether guidance leads away from it.
    """

    texts: object = None
    labels: object = None
    features: object = None
    negative: bool = False

    @property
    def names(self):
        """Names of the three arguments of `generate`, for errors."""
        if self.negative:
            return ("negative_prompt", "negative_labels", "negative_features")
        return ("prompts", "labels", "features")

    def __bool__(self):
        parts = (self.texts, self.labels, self.features)
        return any(part is not None for part in parts)


def read_conditions(requested, unwanted, conditioner, num_samples, guided):
    """The condition and the negative one as arrays with a row for each picture.

    Args:
        requested: `RequestedCondition`.
        unwanted: `RequestedCondition`, the negative one.
        conditioner: The network's conditioner, or `None`.
        num_samples: int. Pictures for each entry.
        guided: bool. Whether the run is guided.

    Returns:
        A triple: dict of arrays, dict of arrays or `None`, and the number of pictures.

    Raises:
        ValueError: if something is missing, unknown or of a wrong shape or value.
    """
    condition = gather_condition(requested, conditioner, num_samples)
    total = len(next(iter(condition.values()))) if condition else num_samples
    if unwanted and not guided:
        raise ValueError(
            "a negative condition needs a conditional model and a `guidance_scale` "
            f"other than 1. Received: {unwanted}"
        )
    if guided:
        unwanted = _unless_said(unwanted, conditioner)
    if not unwanted:
        return condition, None, total
    return *gather_negative(unwanted, condition, conditioner, num_samples), total


def gather_condition(requested, conditioner, num_samples):
    """A dict of the condition's arrays, each entry repeated `num_samples` times."""
    text_name, label_name, feature_name = requested.names
    features = requested.features
    if features is not None and not isinstance(features, dict):
        raise ValueError(
            f"`{feature_name}` must be a dict of arrays. Received: {features!r}"
        )
    gathered = {key: np.asarray(value) for key, value in (features or {}).items()}
    for key, value in gathered.items():
        if value.dtype.kind not in "iub" and not _is_finite(value):
            raise ValueError(
                f"'{key}' of `{feature_name}` must be finite numbers. Received: "
                f"{value if value.size < 9 else 'NaN, infinite or no numbers'}"
            )
    if requested.texts is not None:
        if not isinstance(conditioner, TextConditioner):
            raise ValueError(
                f"`{text_name}` was given to a model that is not conditional on text. "
                f"Received: {text_name}={requested.texts!r}. Classes are given as "
                f"`{label_name}`."
            )
        texts = requested.texts
        texts = [texts] if isinstance(texts, str | bytes) else texts
        gathered.update(conditioner.encode_prompts(texts, text_name))
    if requested.labels is not None:
        gathered["labels"] = np.atleast_1d(np.asarray(requested.labels))
    needed = tuple(getattr(conditioner, "feature_names", ()))
    if "labels" in gathered and "labels" not in needed:
        raise ValueError(
            f"`{label_name}` was given to a model that is not class-conditional. "
            f"Received: {label_name}={requested.labels}"
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


def _unless_said(requested, conditioner):
    """What guidance leads away from, if it is not said: the empty text, if so learned.

    Raises:
        ValueError: if that is the empty text, and nothing can encode it.
    """
    if requested or not getattr(conditioner, "as_encoded", False):
        return requested
    if conditioner.encoder is None:
        raise ValueError(
            "guidance leads this model away from the embeddings of the empty text: "
            f"give them as `{requested.names[2]}`, or set `mdm.text_encoder`."
        )
    return dataclasses.replace(requested, texts="")


def _is_finite(value):
    """Whether an array has nothing but finite numbers, in float32."""
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(value.astype("float32")).all())
    except (TypeError, ValueError):
        return False


def gather_negative(requested, condition, conditioner, num_samples):
    """The condition and the negative one, each with a row for each picture.

    Returns:
        A pair of dicts of arrays. Of a conditioner that takes embeddings `as_encoded`,
        both have the length of the longer one, as if encoded together.
    """
    negative = gather_condition(requested, conditioner, 1)
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
            name = requested.names[0 if requested.texts is not None else 1]
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


def sample_seeds(seed, total):
    """int32 array of one seed for each picture."""
    if seed is None:
        # Of several processes the first chooses.
        seed = backend.from_all(secrets.randbelow(2**31 - total))[0]
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
