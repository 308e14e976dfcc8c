"""Which levels of a nest are trained, for progressive training. Called by `MDM`."""

from keras_mdm.backend import sublayers
from keras_mdm.checks import check_flags


def choose(mdm, resolution, freeze_inner):
    """Makes a level the largest that takes part, and freezes what is not trained.

    Args:
        mdm: `MDM`. Whoever calls this compiles it again.
        resolution: int or str.
        freeze_inner: bool. Whether only the outermost active network is trained.

    Raises:
        ValueError: if there is no such level, or nothing inside it to freeze.
    """
    check_flags(freeze_inner=freeze_inner)
    active = active_network(mdm.network, resolution, freeze_inner)
    frozen = mdm.frozen_by_hand
    for network in mdm.network.networks:
        inside = any(network is one for one in active.networks)
        trained = network is active or (inside and not freeze_inner)
        if trained and network.level in frozen:
            _thaw(network, frozen.pop(network.level))
        elif not trained and network.level not in frozen:
            frozen[network.level] = _freeze(network)
    mdm.largest_active = resolution
    mdm.inner_is_frozen = freeze_inner


def active_network(network, resolution, freeze_inner):
    """The network of a level, which must have one inside it if that is frozen.

    Raises:
        ValueError: see `choose`.
    """
    active = network.at_level(resolution)
    if freeze_inner and active.inner is None:
        raise ValueError(
            f"`freeze_inner` needs a network inside that of resolution {resolution}, "
            "which is the innermost."
        )
    return active


def trained_numbers(network, level_weights):
    """Numbers of the levels whose weights a training step changes.

    Networks around the largest one whose loss counts, and frozen ones, do not begin.

    Args:
        network: `Denoiser`.
        level_weights: dict of active level to the weight of its loss, largest first.
    """
    largest = next(level for level, weight in level_weights.items() if weight > 0)
    return [
        number
        for number, part in enumerate(network.networks)
        if number >= network.levels.index(largest)
        and any(variable.trainable for variable in part.own_variables)
    ]


def _freeze(network):
    """Freezes a network; returns its layers and variables that were frozen before."""
    parts = [p for la in network.own_layers for p in sublayers(la, recursive=True)]
    parts += network.own_variables
    frozen = [part for part in parts if not part.trainable]
    _set_trainable(network, False)
    return frozen


def _thaw(network, frozen):
    """Lets a network be trained, but for what `_freeze` found frozen."""
    _set_trainable(network, True)
    for part in frozen:
        part.trainable = False


def _set_trainable(network, value):
    for part in (*network.own_layers, *network.own_variables):
        part.trainable = value
