"""Which dolls of a model's nest take part in training and drawing.

Progressive training sets this from stage to stage. `MDM` derives from `ActiveDolls`.
"""

import functools

from keras_mdm.model.turns import in_turn


class ActiveDolls:
    """The resolutions of an `MDM` that take part, and those that are trained."""

    @property
    def resolutions(self):
        """Tuple of the resolutions that take part, largest first.

        A resolution of pictures is their side in pixels; that of clips is a str such as
        `"16x64"`, 16 frames of 64 pixels.
        """
        return self.active_network.resolutions

    @property
    def resolution(self):
        """The largest resolution that takes part in `fit` and `generate`.

        Setting it to a smaller one leaves the outer dolls out: progressive training
        begins there and needs no second model. A compiled model is compiled again
        with a fresh optimizer and no `loss_weights` or `mixed_resolution`, which
        belong to the resolutions it had. Setting it to what it is changes nothing.
        """
        return self._resolution

    @resolution.setter
    def resolution(self, value):
        self.set_active(value, freeze_inner=self._frozen_inner)

    @in_turn
    def set_active(self, resolution, freeze_inner=False):
        """Chooses the dolls that take part, and those that are trained.

        Args:
            resolution: int or str. One of the network's resolutions.
            freeze_inner: bool. Whether only the outermost of these dolls is trained.
                Defaults to `False`. Layers that were frozen by hand stay frozen.
        """
        before = (self.active_network, self._frozen_inner)
        self._choose_dolls(resolution, freeze_inner)
        if before == (self.active_network, self._frozen_inner):
            return
        if self.compiled:
            optimizer = self.optimizer
            optimizer = type(optimizer).from_config(optimizer.get_config())
            self.compile(optimizer, **self._compile_arguments)

    def _choose_dolls(self, resolution, freeze_inner):
        """`set_active` for those who compile the model themselves afterwards."""
        active = self.network.doll(resolution)
        if freeze_inner and len(active.dolls) == 1:
            raise ValueError(
                f"`freeze_inner` needs a doll inside that of resolution {resolution}, "
                "which is the innermost."
            )
        for doll in self.network.dolls:
            trained = doll is active or (doll in active.dolls and not freeze_inner)
            if trained and doll.level in self._frozen_by_hand:
                _thaw(doll, self._frozen_by_hand.pop(doll.level))
            elif not trained and doll.level not in self._frozen_by_hand:
                self._frozen_by_hand[doll.level] = _freeze(doll)
        self._resolution = resolution
        self._frozen_inner = freeze_inner

    @functools.cached_property
    def _frozen_by_hand(self):
        """What was frozen by hand in dolls that are not trained now, by their level."""
        return {}

    @property
    def active_network(self):
        """The doll whose resolution is `resolution`, with those inside it."""
        return self.network.doll(self._resolution)

    def __dir__(self):
        # Keras would save the network's weights under this name, at another place of
        # the file at each resolution; see `DenoisingNetwork.__dir__`.
        return [name for name in super().__dir__() if name != "active_network"]


def _freeze(doll):
    """Freezes a doll; returns its layers and variables that were frozen before."""
    parts = [part for layer in doll.own_layers for part in layer._flatten_layers()]
    variables = [v for layer in doll.own_layers for v in layer.variables]
    frozen = [part for part in (*parts, *variables) if not part.trainable]
    for layer in doll.own_layers:
        layer.trainable = False
    return frozen


def _thaw(doll, frozen):
    """Lets a doll be trained, but for what `_freeze` found frozen."""
    for layer in doll.own_layers:
        layer.trainable = True
    for part in frozen:
        part.trainable = False
