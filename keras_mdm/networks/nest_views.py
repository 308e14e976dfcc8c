"""What a network knows of the nest it is part of: its dolls and their levels.

`DenoisingNetwork` derives from it; subclasses with a network inside define `dolls`.
"""

from keras_mdm.levels import level_name


class NestViews:
    """Views of a nest, from a network to the innermost one inside it.

    They hold nothing of their own: a network has `resolution`, `frames`, and, if it is
    the innermost, `own_conditioner`.
    """

    @property
    def dolls(self):
        """Tuple of networks from this one to the innermost."""
        return (self,)

    @property
    def resolutions(self):
        """Tuple of the levels, largest first: pixels, or `"frames x pixels"`.

        See `keras_mdm.levels`.
        """
        return tuple(doll.level for doll in self.dolls)

    @property
    def level(self):
        """Name of this doll's level: `64`, or `"16x64"` for clips of 16 frames."""
        return level_name(self.resolution, self.frames)

    @property
    def innermost(self):
        """The smallest doll, which holds the conditioner."""
        return self.dolls[-1]

    @property
    def widest(self):
        """The most channels that a doll of the nest has."""
        return max(max(doll.channels) for doll in self.dolls)

    @property
    def predicts_residuals(self):
        """Whether a doll adds its prediction to that of the network inside it."""
        return any(getattr(doll, "residual_prediction", False) for doll in self.dolls)

    @property
    def conditioner(self):
        """The layer that turns labels or text into tokens, or `None`."""
        return self.innermost.own_conditioner

    def doll(self, resolution):
        """Returns the network whose largest resolution is `resolution`.

        Args:
            resolution: int, in pixels, or str such as `"16x64"` for clips.

        Returns:
            The network.

        Raises:
            ValueError: if no network of the nest has that resolution.
        """
        for network in self.dolls:
            if network.level == resolution:
                return network
        raise ValueError(
            f"`resolution` must be one of the network's resolutions "
            f"{self.resolutions}. Received: resolution={resolution}"
        )

    @property
    def own_layers(self):
        """Layers of this doll without those of the networks inside it."""
        return [
            layer
            for layer in self._flatten_layers(recursive=False, include_self=False)
            if not isinstance(layer, NestViews)
        ]

    def set_remat(self, levels=True):
        """Chooses the dolls whose activations are computed again in the backward pass.

        That saves most of their memory and costs about a third more time; on a CPU,
        XLA undoes it. Takes effect on models that are compiled afterwards.

        Args:
            levels: bool for all or none, or sequence of levels, such as `["16x256"]`.

        Raises:
            ValueError: if the nest has no such level.
        """
        if isinstance(levels, bool):
            levels = self.resolutions if levels else ()
        chosen = [self.doll(level) for level in levels]
        for doll in self.dolls:
            doll.remat = any(doll is one for one in chosen)
            for layer in doll.own_layers:
                if hasattr(layer, "remat"):
                    layer.remat = doll.remat

    def __dir__(self):
        # Keras saves whatever it finds here, under the first name it meets. These are
        # views of what has a name already: `dolls`, which holds the network itself,
        # would make loading endless, and the names of the weights would depend on it.
        views = {"dolls", "innermost", "conditioner", "own_layers", "level"}
        return [name for name in super().__dir__() if name not in views]
