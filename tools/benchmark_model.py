"""The models and conditions that `benchmark.py` times."""

import json
import pathlib

# Text models are timed with captions of this length, as the recorded numbers were.
TEXT_TOKENS = 32


def read_json(path):
    """The object in a JSON file, with an error that names the file."""
    try:
        value = json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise ValueError(f"can't read '{path}': {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not a JSON file. Cause: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' must hold a JSON object.")
    return value


def _released():
    """Serialized networks of the published models, by their resolution."""
    from keras_mdm import MDM

    return {
        name.removeprefix("mdm_flickr_"): preset["config"]["config"]["network"]
        for name, preset in MDM.builtin_presets().items()
        if name.startswith("mdm_flickr_")
    }


def make_model(arguments):
    """The MDM that the command line names, with random weights, compiled."""
    from keras_mdm import MDM

    path = arguments.config
    if path is None or pathlib.Path(path).is_dir():
        options = {} if arguments.ema else {"ema_momentum": None}
        mdm = MDM.from_preset(
            arguments.preset or path,
            load_weights=False,
            dtype=arguments.dtype,
            **options,
        )
    else:
        mdm = _model_from_file(path, arguments)
    if arguments.remat is not None:
        levels = [int(text) if text.isdecimal() else text for text in arguments.remat]
        mdm.network.set_remat(levels or True)
    # The default optimizer is the one that is to be timed.
    mdm.compile(jit_compile={"auto": "auto", "on": True, "off": False}[arguments.jit])
    return mdm


def _model_from_file(path, arguments):
    import keras

    from keras_mdm import MDM
    from keras_mdm.saving.serialized import set_dtype

    config = read_json(path)
    ema_momentum = 0.9999 if arguments.ema else None
    if config.get("class_name") == "MDM":
        try:
            config["config"]["ema_momentum"] = ema_momentum
            set_dtype(config["config"]["network"], arguments.dtype)
            return keras.saving.deserialize_keras_object(config)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"'{path}' is not a serialized MDM. Cause: {error!r}"
            ) from error
    if "shipped" in config:
        released = _released()
        if config["shipped"] not in released:
            raise ValueError(
                f"`shipped` must be one of {sorted(released)}. "
                f"Received: shipped={config['shipped']!r} in '{path}'"
            )
        serialized = released[config["shipped"]]
        set_dtype(serialized, arguments.dtype)
        network = keras.saving.deserialize_keras_object(serialized)
    else:
        network = _network_from_official(path, config, arguments.dtype)
    return MDM(
        network, loss_target="epsilon", condition_dropout=0.0, ema_momentum=ema_momentum
    )


def _network_from_official(path, config, dtype):
    from keras_mdm.convert.ml_mdm import network_from_config

    missing = [key for key in ("unet_config", "px") if key not in config]
    if missing:
        raise ValueError(
            f"'{path}' is neither a serialized MDM nor an official configuration: it "
            f"lacks {missing}. It has: {sorted(config)}"
        )
    try:
        return network_from_config(
            config["unet_config"], config["px"], config.get("lm_dim"), dtype=dtype
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' is not an official configuration. Cause: {error!r}"
        ) from error


def make_condition(mdm, count, text_tokens=TEXT_TOKENS):
    """Features of `count` random conditions, and the number of tokens of each."""
    import numpy as np

    numbers = np.random.default_rng(0)
    conditioner = mdm.network.conditioner
    names = getattr(conditioner, "feature_names", ())
    if "labels" in names:
        labels = numbers.integers(0, conditioner.num_classes, count)
        return {"labels": labels.astype("int32")}, 1
    if "text_embeddings" in names:
        shape = (count, text_tokens, conditioner.size)
        tokens = numbers.standard_normal(shape, dtype="float32")
        mask = np.ones(shape[:2], dtype="int32")
        return {"text_embeddings": tokens, "text_mask": mask}, text_tokens
    if "token_ids" in names:
        length = conditioner.max_tokens
        ids = numbers.integers(1, conditioner.tokenizer.size, (count, length))
        return {"token_ids": ids.astype("int32")}, length
    if conditioner is not None:
        raise ValueError(
            f"can't make conditions for {type(conditioner).__name__}, which reads "
            f"{names}."
        )
    return {}, 1
