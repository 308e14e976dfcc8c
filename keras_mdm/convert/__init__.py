"""Checkpoints and configurations of other implementations of MDM.

Stands on top of the package and is imported by none of it: `keras_mdm.saving.presets`
knows this module by the name it was registered with. What the functions need is
imported when they are called.
"""

# A folder with these has the form of the official implementation, apple/ml-mdm.
FILES = ("config.yaml", "vis_model.pth")


def reads(path):
    """Whether a path is a folder of the official form, or a file of weights."""
    return path.is_file() or all((path / name).is_file() for name in FILES)


def to_preset(folder, output):
    """Turns a folder of the official form into a preset folder."""
    from keras_mdm.convert.convert import convert_checkpoint

    config, weights = (folder / name for name in FILES)
    convert_checkpoint(weights, config, output)


def load_weights(network, path):
    """Puts the weights of a checkpoint file into a network."""
    from keras_mdm.convert.checkpoint import read_checkpoint
    from keras_mdm.convert.ml_mdm import assign_weights

    assign_weights(network, read_checkpoint(path))
