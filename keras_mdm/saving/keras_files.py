"""A model in Keras' own files: `.keras`, `.weights.h5`, and its configuration.

With how it was compiled, what it trained and its random state, so that
`keras.models.load_model`, `clone_model` and a pickled copy go on where the model was,
optimizer and all. Bound to `MDM`.
"""

import keras

from keras_mdm import backend
from keras_mdm.backend import deserialize, serialize, sublayers
from keras_mdm.checksums import append_checksum
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.files import whole_file
from keras_mdm.fitting import active_levels
from keras_mdm.paths import as_path
from keras_mdm.saving.finite import check_finite
from keras_mdm.saving.serialized import renamed
from keras_mdm.saving.weights_file import add_checksums, check_store

_SEED = "seed_generator"


def save(self, filepath, overwrite=True, zipped=None, **kwargs):
    """Saves the whole model, unless a weight is NaN; see `keras.Model.save`."""
    options = {"overwrite": overwrite, "zipped": zipped, **kwargs}
    _save(self, keras.Model.save, filepath, ".keras", options)


def save_weights(self, filepath, overwrite=True, max_shard_size=None):
    """Saves all weights, unless one is NaN; see `keras.Model.save_weights`."""
    options = {"overwrite": overwrite, "max_shard_size": max_shard_size}
    _save(self, keras.Model.save_weights, filepath, ".weights.h5", options)


def _save(self, write, filepath, ending, options):
    """Writes a file that appears whole; what is no such file is left to Keras."""
    elsewhere = isinstance(filepath, str) and "://" in filepath
    path = filepath if elsewhere else as_path(filepath)
    _check_weights(self, path)
    if backend.process_number() > 0:
        return
    options = {key: value for key, value in options.items() if value is not None}
    if elsewhere or options != {"overwrite": True} or not path.name.endswith(ending):
        write(self, path, **options)
        if not elsewhere and path.name.endswith(".weights.json"):
            add_checksums(path)
        return
    with whole_file(path) as temporary:
        if ending.endswith(".h5"):
            temporary.unlink()  # HDF5 makes its files anew, and locks them itself.
        write(self, temporary)
        if ending.endswith(".h5"):
            append_checksum(temporary)


def get_weights(self):
    """Values of all weights as arrays, whole on every process."""
    return [backend.to_numpy(variable) for variable in self.weights]


def _check_weights(self, filepath):
    if not all(map(backend.is_here, self.weights)):
        raise ValueError(
            "Keras' own files need all weights in one process, and several hold parts "
            "of these: save with `save_to_preset`. Received: "
            f"filepath={str(filepath)!r}"
        )
    for average in self.all_averages():
        average.follow()
    check_finite(self.weights, filepath)


def get_config(self):
    """Arguments of the constructor as JSON values."""
    timesteps = self.process.timesteps
    return {
        "network": serialize(self.network),
        "schedule": self.schedule.get_config(),
        "prediction": self.prediction,
        "loss_target": self.loss_target,
        "loss_weighting": self.loss_weighting,
        "timesteps": timesteps if timesteps == "uniform" else serialize(timesteps),
        "frame_pooling": self.process.frame_pooling,
        "condition_dropout": self.condition_dropout,
        "output_limit": self.output_limit,
        "ema_momentum": self.ema.momentum if self.ema else None,
        "ema_warmup": self.ema.warmup if self.ema else True,
        "power_averages": [a.sigma_rel for a in self.power_averages] or None,
        "sampling": self.sampling.get_config(),
        "seed": self.seed,
        "name": self.name,
    }


def from_config(cls, config):
    """A model from what `get_config` returned."""
    config = dict(config)
    if "frame_pooling" in config and "timesteps" not in config:
        config = renamed(config)  # A file of the first version.
    for key in ("network", "timesteps"):
        if isinstance(config.get(key), dict):
            config[key] = deserialize(config[key])
    if isinstance(config["schedule"], dict):
        config["schedule"] = NoiseSchedule.from_config(config["schedule"])
    return cls(**config)


def get_compile_config(self):
    """Arguments of `compile`, the active resolution and what is frozen.

    Returns:
        dict of JSON values; empty if the model was not compiled.
    """
    if not self.compiled:
        return {}
    return {
        "resolution": self.resolution,
        "freeze_inner": self.inner_is_frozen,
        "frozen": sorted(p.path for p in _parts(self.network) if not p.trainable),
        "frozen_by_hand": [
            [level, [part.path for part in parts]]
            for level, parts in self.frozen_by_hand.items()
        ],
        "optimizer": keras.saving.serialize_keras_object(self.optimizer),
        # Pairs: JSON turns the keys of a dict into strings.
        **{name: _pairs(value) for name, value in self._loss_arguments.items()},
        **self._compile_arguments,
    }


def compile_from_config(self, config):
    """Compiles the model as `get_compile_config` says.

    Args:
        config: dict.
    """
    config = dict(config)
    active_levels.choose(self, config.pop("resolution"), config.pop("freeze_inner"))
    parts, frozen = _parts(self.network), set(config.pop("frozen"))
    for part in parts:
        if part.path in frozen:
            part.trainable = False
    for level, paths in config.pop("frozen_by_hand", ()):
        paths = set(paths)
        self.frozen_by_hand[level] = [part for part in parts if part.path in paths]
    for name in self._loss_arguments:
        if isinstance(config[name], list):
            config[name] = dict(config[name])
    optimizer = keras.saving.deserialize_keras_object(config.pop("optimizer"))
    self.compile(optimizer, **config)


def save_own_variables(self, store):
    """Writes the model's own variables, the state of its noise among them.

    Args:
        store: dict of arrays, as Keras gives it.
    """
    keras.Model.save_own_variables(self, store)
    # Keras leaves random generators out, and the same noise would come again.
    store[_SEED] = keras.ops.convert_to_numpy(self.seed_generator.state.value)


def load_own_variables(self, store):
    """Reads what `save_own_variables` wrote; files without a random state are fine.

    Args:
        store: dict of arrays, as Keras gives it.
    """
    check_store(store)
    own = {key: store[key] for key in store.keys()}
    seed = own.pop(_SEED, None)
    keras.Model.load_own_variables(self, own)
    if seed is not None:
        self.seed_generator.state.assign(seed)


def _parts(network):
    """Layers and variables, each of which may be frozen."""
    return [*sublayers(network, recursive=True), *network.variables]


def _pairs(value):
    return [list(pair) for pair in value.items()] if isinstance(value, dict) else value
