"""Networks as `backend.serialize` writes them: compared and changed.

Presets are read in this form; `presets.py` changes them before a network is built.
"""

import keras

from keras_mdm.backend import serialize
from keras_mdm.checks import check_whole
from keras_mdm.text_files import reason


def renamed(config):
    """Arguments of an `MDM` of the first version, with today's names.

    "cosine" was what is "log_snr_cosine" now, and there were no other timesteps.
    """
    names = {"cosine": "log_snr_cosine", "squared_cosine": "cosine"}
    schedule, sampling = dict(config["schedule"]), dict(config.get("sampling") or {})
    schedule["name"] = names.get(schedule["name"], schedule["name"])
    if sampling.get("spacing") == "official":
        sampling["spacing"] = "index"
    renamed = {"schedule": schedule, "sampling": sampling, "timesteps": "uniform"}
    return {**config, **renamed}


def architecture(serialized):
    """What must agree for weights to fit: the configuration without names and dtype."""
    if isinstance(serialized, dict):
        left_out = ("name", "dtype", "remat")
        return {
            key: architecture(value)
            for key, value in serialized.items()
            if key not in left_out
        }
    if isinstance(serialized, list | tuple):
        return [architecture(value) for value in serialized]
    return serialized


def innermost(network):
    """The serialized network that is inside all others."""
    while network["config"].get("inner") is not None:
        network = network["config"]["inner"]
    return network


def change_network(network, conditioner=None, num_classes=None, image_channels=None):
    """Replaces what `from_preset` may of a serialized network without weights."""
    config = innermost(network)["config"]
    if conditioner is not None:
        config["conditioner"] = serialize(conditioner)
    if num_classes is not None:
        _set_num_classes(config, num_classes)
    if image_channels is not None:
        config["image_channels"] = image_channels


def _set_num_classes(config, num_classes):
    """Replaces the classes of the innermost network; 0 leaves none."""
    check_whole(0, num_classes=num_classes)
    conditioner = config.get("conditioner")
    if num_classes == 0:
        config["conditioner"] = None
    elif conditioner is None or conditioner["class_name"] != "ClassLabels":
        raise ValueError(
            "`num_classes` belongs to class-conditional presets. "
            f"Received: num_classes={num_classes}"
        )
    else:
        conditioner["config"]["num_classes"] = num_classes


def set_dtype(network, dtype):
    """Replaces the dtype policy of a serialized network and all inside it."""
    try:
        keras.dtype_policies.get(dtype)
    except Exception as error:  # Each kind of value has its own.
        raise ValueError(
            "`dtype` must be a dtype policy, such as 'mixed_bfloat16'. "
            f"Received: dtype={dtype!r}"
        ) from error
    network["config"]["dtype"] = dtype
    for key in ("inner", "conditioner"):
        child = network["config"].get(key)
        if child is not None:
            set_dtype(child, dtype)


def deserialized(config, cls, name):
    """A model of the class `cls`, or a `ValueError` that calls it `name`."""
    try:
        return keras.saving.deserialize_keras_object(config, {"MDM": cls})
    except Exception as error:
        # Keras makes a TypeError of whatever a constructor raises, whose words come
        # last, and of odd values it raises anything.
        cause = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__
        raise ValueError(f"{name} can't be made: {reason(cause)}") from error
