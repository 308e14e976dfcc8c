"""How wide a network is, read from its configuration before anything is computed.

Called by the recipes and `tools/benchmark.py`, which tell it to
`backend.prepare_processor`.
"""

from keras_mdm.model.presets import CONFIG_FILE, builtin_presets, preset_in
from keras_mdm.text_files import read_json

_NAMES = ("channels", "resolution_channels")  # Ours and the official one.


def widest(config):
    """The most channels that a network in a configuration has.

    Args:
        config: Nested structure of dicts and lists: a serialized `MDM` or network, or
            an official configuration.

    Returns:
        int; 0 if there is no network in it.
    """
    if isinstance(config, list | tuple):
        return max(map(widest, config), default=0)
    if not isinstance(config, dict):
        return 0
    own = [config[name] for name in _NAMES if isinstance(config.get(name), list)]
    widths = [width for row in own for width in row if isinstance(width, int)]
    return max(widths + [widest(value) for value in config.values()], default=0)


def widest_of_preset(preset):
    """`widest` of a built-in preset, a preset folder, or a run folder that has one.

    Returns:
        int; 0 if `preset` is `None` or something else, which is looked at later.
    """
    builtin = builtin_presets().get(str(preset))
    if builtin is not None:
        return widest(builtin)
    try:
        return widest(read_json(preset_in(str(preset)) / CONFIG_FILE))
    except (OSError, ValueError):
        return 0
