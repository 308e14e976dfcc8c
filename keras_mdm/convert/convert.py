"""Checkpoints of the official implementation to presets, and back."""

from keras_mdm.backend import serialize
from keras_mdm.convert import FILES, reads
from keras_mdm.convert.checkpoint import read_checkpoint, write_checkpoint
from keras_mdm.convert.config import complete, model_options, read_config
from keras_mdm.convert.config_writer import write_config
from keras_mdm.convert.ml_mdm import (
    assign_weights,
    network_from_config,
    official_weights,
)
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.files import check_free, whole_folder
from keras_mdm.mdm import MDM
from keras_mdm.saving import preset_folder
from keras_mdm.saving.finite import check_finite


def convert_checkpoint(checkpoint, config, output, overwrite=False, progress=None):
    """Turns an official checkpoint into a preset folder.

    Every tensor is checked before anything is written.

    Args:
        checkpoint: str or path. `.pth` file; see `read_checkpoint`.
        config: str or path of the official YAML file.
        output: str or path. Folder to write, for `MDM.from_preset`.
        overwrite: bool. Whether the files of an existing preset there are replaced.
        progress: Optional callable `(done, total)`, called after each tensor.

    Raises:
        ValueError: if the file or the configuration is wrong, or they do not fit.
        OSError: if writing fails; nothing is left then.

    Example:

    ```python
    convert_checkpoint("vis_model.pth", "cc12m_64x64.yaml", "mdm_flickr_64")
    mdm = keras_mdm.MDM.from_preset("mdm_flickr_64")
    ```
    """
    check_free(output, preset_folder.is_preset, overwrite)
    config = read_config(config)
    options = model_options(config)
    unet_config = complete(config["unet_config"])
    weights = read_checkpoint(checkpoint)
    text_size = _text_size(unet_config, weights)
    network = network_from_config(unet_config, config["px"], text_size)
    assign_weights(network, weights, progress)
    # Without a moving average, which would double the memory; the model that is loaded
    # has one, as every preset.
    options["schedule"] = NoiseSchedule(**options["schedule"])
    mdm = MDM(network, ema_momentum=None, **options)
    serialized = serialize(mdm)
    serialized["config"]["ema_momentum"] = 0.9999
    preset_folder.write_preset(
        output, serialized, network, averaged=True, overwrite=overwrite
    )


def convert_preset(preset, output, overwrite=False, progress=None):
    """Turns a preset into the official form: `vis_model.pth` and `config.yaml`.

    Args:
        preset: str or path. See `MDM.from_preset`.
        output: str or path. Folder to write.
        overwrite: bool. Whether the files of a folder of this form are replaced.
        progress: Optional callable `(done, total)`, called after each tensor.

    Raises:
        ValueError: if the official implementation has no such model.
        OSError: if writing fails; nothing is left then.
    """
    check_free(output, reads, overwrite)
    mdm = MDM.from_preset(preset, ema_momentum=None, dtype="float32")
    check_finite(mdm.network.weights, output)
    with whole_folder(output, reads, overwrite) as folder:
        config, weights = (folder / name for name in FILES)
        write_config(config, mdm)
        write_checkpoint(weights, official_weights(mdm.network, progress))


def _text_size(unet_config, weights):
    """Size of the text embeddings, which configurations leave to the text encoder.

    Returns `None` for a model without text.
    """
    prefix = ""
    while unet_config.get("inner_config") is not None:
        unet_config = unet_config["inner_config"]
        prefix += "inner_unet."
    for name in ("lm_proj.weight", "cond_emb.weight"):
        if prefix + name in weights:
            return weights[prefix + name].shape[1]
    return None
