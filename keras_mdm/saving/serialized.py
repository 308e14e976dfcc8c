"""Networks as `backend.serialize` writes them: compared and changed.

Presets are read in this form; `presets.py` changes them before a network is built.
"""


def renamed(config):
    """Arguments of an `MDM` of the first version, with today's names.

    "cosine" was what is "log_snr_cosine" now, and there were no other timesteps.

    Args:
        config: dict, as `MDM.get_config` returned it then.

    Returns:
        dict.
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


def set_num_classes(network, num_classes):
    """Replaces the classes of a serialized network; 0 leaves none."""
    config = innermost(network)["config"]
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
    network["config"]["dtype"] = dtype
    for key in ("inner", "conditioner"):
        child = network["config"].get(key)
        if child is not None:
            set_dtype(child, dtype)
