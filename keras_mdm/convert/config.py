"""YAML configurations of the official implementation, read.

A configuration here is a dict of `px` (the largest resolution), `unet_config` and
`diffusion_config`, with the official field names.
"""

import warnings

from keras_mdm.paths import as_path
from keras_mdm.text_files import MAX_YAML, check_repeats, read_text, reason

SCHEDULES = {
    "COSINE": "log_snr_cosine",
    "DDPM": "linear_unscaled",
    "DEEPFLOYD": "cosine",
}
PREDICTIONS = {"V_PREDICTION": "v", "DDPM": "epsilon", "DDIM": "epsilon"}
_DYNAMIC_IF = {
    "threshold": "dynamic",
    "dynamic_percentile": 0.95,
    "dynamic_maximum": 1.5,
}
_THRESHOLDS = {
    "NONE": {"threshold": "none"},
    "CLIP": {"threshold": "static"},
    "DYNAMIC": {**_DYNAMIC_IF, "dynamic_percentile": 0.995, "dynamic_maximum": 100.0},
    "DYNAMIC_IF": _DYNAMIC_IF,
}

# How the official demo samples, by the largest resolution. Its "dynamic (DeepFloyd)"
# threshold replaces the clipping that the configurations state.
_DEMO = {
    px: {"num_steps": num_steps, "eta": eta, "guidance_scale": 7.5, **_DYNAMIC_IF}
    for px, num_steps, eta in ((64, 50, 0.0), (256, 100, 0.0), (1024, 250, 1.0))
}

# What the official dataclasses take where a field is left out.
_UNET_DEFAULTS = {
    "num_resnets_per_resolution": "2",
    "attention_levels": "2,3",
    "num_attention_layers": "1",
}
_SAMPLER_DEFAULTS = {
    "num_diffusion_steps": 32,
    "schedule_type": "DDPM",
    "prediction_type": "DDPM",
    "loss_target_type": None,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "threshold_function": "CLIP",
    "rescale_schedule": 1.0,
    "rescale_signal": None,
    "schedule_shifted": False,
    "schedule_shifted_power": 1,
}
_DIFFUSION_DEFAULTS = {"model_output_scale": 0, "use_vdm_loss_weights": True}


def import_yaml():
    """The library, which not everybody has."""
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            "Configurations of the official implementation need "
            '`pip install "keras-mdm[convert]"`.'
        ) from error
    return yaml


def _load(text):
    """A YAML text, with blocks of the same name merged.

    YAML forbids them, and yet two published files have `diffusion_config` twice. The
    official code takes the last one alone, and so loses values of the first one that
    the checkpoint was trained with.
    """
    yaml = import_yaml()

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            mapping = {}
            for key_node, value_node in node.value:
                key = self.construct_object(key_node, deep=True)
                value = self.construct_object(value_node, deep=True)
                mapping[key] = _merged(mapping.get(key), value)
            return mapping

    Loader.add_constructor(
        yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, Loader.construct_mapping
    )
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _merged(first, second):
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    both = {key: _merged(first[key], second[key]) for key in first if key in second}
    return {**first, **second, **both}


def read_config(path):
    """Reads an official configuration file.

    Fields of the diffusion that stand at the top of the file, where the official code
    never reads them, fill in what `diffusion_config` leaves out: an early file of the
    1024-pixel model has its shift of the noise schedule there. A warning says so.

    Args:
        path: str or path. YAML file with `unet_config`, `diffusion_config` and
            `sample_image_size` (or `image_size` in `reader_config`).

    Raises:
        ValueError: if the file is not such a configuration.
    """
    try:
        content = _load(read_text(as_path(path), MAX_YAML))
        check_repeats(content)
    except ValueError as error:
        raise ValueError(f"'{path}' is not YAML. Cause: {reason(error)}") from error
    except OSError as error:
        raise ValueError(f"can't read the configuration: {reason(error)}") from error
    unet_config = content.get("unet_config") if isinstance(content, dict) else None
    if not isinstance(unet_config, dict):
        raise ValueError(
            f"'{path}' is not a configuration of the official implementation: it has "
            "no `unet_config`."
        )
    size = content.get("sample_image_size") or -1
    if size == -1:
        size = (content.get("reader_config") or {}).get("image_size", -1)
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"'{path}' does not say the resolution: `sample_image_size` must be a "
            f"number of pixels. Received: {size!r}"
        )
    diffusion = dict(content.get("diffusion_config") or {})
    sampler = dict(diffusion.get("sampler_config") or {})
    moved = []
    for defaults, block in (
        (_SAMPLER_DEFAULTS, sampler),
        (_DIFFUSION_DEFAULTS, diffusion),
    ):
        found = [key for key in defaults if key in content and key not in block]
        block.update((key, content[key]) for key in found)
        moved += found
    if moved:
        warnings.warn(
            f"'{path}' has {moved} outside of `diffusion_config`, where the official "
            "code ignores them; they are taken as what the model was trained with.",
            stacklevel=2,
        )
    return {
        "px": size,
        "unet_config": unet_config,
        "diffusion_config": {**diffusion, "sampler_config": sampler},
    }


def complete(unet_config):
    """A copy of a network's configuration, and those inside it, with the defaults.

    A network that can't be built is a `ValueError`.
    """
    if "resolution_channels" not in unet_config:
        raise ValueError("`unet_config` must have `resolution_channels`.")
    for name in ("temporal_mode", "temporal_spatial_ds", "skip_inner_unet_input"):
        if unet_config.get(name):
            kind = "video networks" if name.startswith("temporal") else "it"
            raise ValueError(
                f"`{name}: true` in `unet_config`: {kind} can't be converted."
            )
    config = {**_UNET_DEFAULTS, **unet_config}
    if config.get("inner_config") is not None:
        config["inner_config"] = complete(config["inner_config"])
    return config


def model_options(config):
    """Arguments of `MDM` that an official configuration stands for.

    Args:
        config: dict. See `read_config`.

    Returns:
        dict with `schedule` (a dict), `prediction`, `loss_target`, `loss_weighting`,
        `output_limit` and `sampling`. The sampling defaults are those of the official
        demo for the resolution.

    Raises:
        ValueError: if an option has no counterpart.
    """
    diffusion = {**_DIFFUSION_DEFAULTS, **config["diffusion_config"]}
    sampler = {**_SAMPLER_DEFAULTS, **diffusion["sampler_config"]}
    nested = config["unet_config"].get("inner_config") is not None
    name = _choice(sampler, "schedule_type", SCHEDULES)
    prediction = _choice(sampler, "prediction_type", PREDICTIONS)
    target = sampler["loss_target_type"]
    _only(sampler, "rescale_schedule", (None, 1))
    if not nested:
        _only(sampler, "rescale_signal", (None, 0, 1))
    if name == "linear_unscaled":
        _only(sampler, "beta_start", (0.0001,))
        _only(sampler, "beta_end", (0.02,))
    shifted = not nested or sampler["schedule_shifted"]
    limit = None if nested else diffusion["model_output_scale"]
    threshold = _choice(sampler, "threshold_function", _THRESHOLDS)
    sampling = _DEMO.get(config["px"], threshold)
    steps = min(sampling.get("num_steps", 50), sampler["num_diffusion_steps"])
    return {
        "schedule": {
            "name": name,
            "num_timesteps": sampler["num_diffusion_steps"],
            "shift_power": float(sampler["schedule_shifted_power"]) if shifted else 0.0,
            "scale_signal": not shifted,
        },
        "prediction": prediction,
        "loss_target": _choice(sampler, "loss_target_type", PREDICTIONS)
        if target is not None
        else prediction,
        "loss_weighting": "vdm" if diffusion["use_vdm_loss_weights"] else "uniform",
        "output_limit": limit or None,
        "sampling": {
            "sampler": "ddim",
            **sampling,
            "num_steps": steps,
            "spacing": "index",
        },
    }


def _choice(fields, name, choices):
    key = str(fields[name]).upper()
    if key not in choices:
        raise ValueError(
            f"`{name}` must be one of {sorted(choices)}. "
            f"Received: {name}={fields[name]!r}"
        )
    return choices[key]


def _only(fields, name, values):
    if fields[name] not in values:
        raise ValueError(
            f"`{name}` must be one of {values} to be converted. "
            f"Received: {name}={fields[name]!r}"
        )
