"""OuterDoll: what every network around another one has in common."""

import keras

from keras_mdm.networks.base import DenoisingNetwork, serialize


class OuterDoll(DenoisingNetwork):
    """Base of `NestedUNet` and `InflatedUNet`; their constructors set `inner`."""

    @property
    def dolls(self):
        return (self, *self.inner.dolls)

    def get_config(self):
        return {**super().get_config(), "inner": serialize(self.inner)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["inner"] = keras.saving.deserialize_keras_object(config["inner"])
        return cls(**config)
