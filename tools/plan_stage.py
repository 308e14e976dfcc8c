"""What one stage of training needs on each device: used by `plan.py`.

The network is that of the package: its training step is traced, with the shapes of its
variables and of a batch, and nothing is computed.
"""

import contextlib
import dataclasses
import functools
import math
import unittest.mock

import benchmark_model
import jax
import train_memory
from plan_memory import planned_memory

from keras_mdm.diffusion import losses
from keras_mdm.fitting import active_levels
from keras_mdm.networks.cost import count_flops
from keras_mdm.training.stage import default_optimizer

# Pictures a device below which its time is not used well: rather are activations
# computed again.
FEW = 8
# FLOPs of a training step in forward passes: the backward pass costs two, one where
# weights are frozen, and activations that are computed again one more.
TRAINED, FROZEN, AGAIN = 3, 2, 1


@contextlib.contextmanager
def weightless():
    """Within it, variables of one shape share an array of zeros, which costs nothing.

    A model of half a billion parameters would take 7 GB and half a minute otherwise.
    """
    from keras import ops
    from keras.src.backend.jax.core import JaxVariable

    zeros = functools.cache(lambda shape, dtype: ops.zeros(shape, dtype))

    def initialize(variable, initializer):
        variable._initialize(zeros(tuple(variable._shape), variable._dtype))

    with unittest.mock.patch.object(
        JaxVariable, "_initialize_with_initializer", initialize
    ):
        yield


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a batch is computed.

    Attributes:
        accumulate: int. Parts of the batch, one after the other.
        fsdp: bool. Whether the state is divided among the devices.
        remat: Tuple of levels whose activations are computed again.
    """

    accumulate: int = 1
    fsdp: bool = False
    remat: tuple = ()

    def __str__(self):
        parts = ["fsdp"] * self.fsdp
        parts += [f"accumulate={self.accumulate}"] if self.accumulate > 1 else []
        parts += [f"remat={','.join(map(str, self.remat))}"] if self.remat else []
        return " ".join(parts) or "plain"


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes on each device.

    Attributes:
        weights, averages, optimizer: int. The state, changed in place.
        activations: int. What the forward pass keeps for the backward pass.
        temporary: int. Gradients and what is at work, at the same moment.
    """

    weights: int
    averages: int
    optimizer: int
    activations: int
    temporary: int

    @property
    def total(self):
        return sum(dataclasses.astuple(self))


class StageOnDevices:
    """A stage of a model on a number of devices.

    Args:
        mdm: `MDM` that was made `weightless`.
        stage: `Stage`. Its batch size is that of all devices.
        devices: int.

    Raises:
        ValueError: if the devices do not divide the batch.
    """

    def __init__(self, mdm, stage, devices):
        self.mdm, self.stage, self.devices = mdm, stage, devices
        self._memory = {}
        self.pictures, rest = divmod(stage.batch_size, devices)
        if rest:
            raise ValueError(
                f"the batch of stage {stage.resolution} must be a multiple of the "
                f"{devices} devices, such as {devices * (self.pictures + 1)}. "
                f"Received: batch_size={stage.batch_size}"
            )
        self.network = mdm.network.at_level(stage.resolution)
        self.asked = tuple(n.level for n in self.network.networks if n.remat)
        self.trained = {
            level
            for level in self.network.levels
            if not stage.freeze_inner or level == self.network.level
        }

    # === Memory ===

    def settings(self):
        """Ways to compute the batch, those that cost least time first."""
        levels = self.network.levels
        kinds = (
            tuple(n for n in levels if n in {*self.asked, *levels[:count]})
            for count in range(len(levels) + 1)
        )
        parts = [2**n for n in range(20) if self.pictures % 2**n == 0]
        for remat in dict.fromkeys(kinds):
            for accumulate in parts:
                size = self.pictures // accumulate
                few = min(FEW, self.pictures) if remat != levels else 1
                if size >= few and self._can_mix(size * self.devices):
                    for fsdp in (False, True) if self.devices > 1 else (False,):
                        yield Setting(accumulate, fsdp, remat)

    def _can_mix(self, size):
        fractions = losses.mixed_fractions(self.stage.mixed, self.network.levels)
        try:
            return fractions is None or losses.mixed_batch_sizes(fractions, size)
        except ValueError:
            return False

    def prepare(self, setting):
        """Brings the model into the stage; returns how many pictures are a batch."""
        self.mdm.network.set_remat(setting.remat)
        active_levels.choose(self.mdm, self.stage.resolution, self.stage.freeze_inner)
        stage = dataclasses.replace(
            self.stage, accumulate=self.stage.accumulate * setting.accumulate
        )
        with weightless():
            self.mdm.compile(
                optimizer=default_optimizer(stage),
                loss_weights=stage.loss_weights,
                mixed_resolution=stage.mixed,
            )
        return self.pictures // setting.accumulate

    def memory(self, setting):
        """`Memory` of a step beside its state, by its trace."""
        # The state does not count, so neither does how it is divided.
        key = (setting.accumulate, setting.remat)
        if key not in self._memory:
            size = self.prepare(setting)
            step, *shapes = train_memory.abstract_step(self.mdm, size)
            traced = jax.jit(step, donate_argnums=0).trace(*shapes)
            self._memory[key] = planned_memory(traced.jaxpr)
        return self._memory[key]

    def need(self, setting):
        """`Need` of a setting."""
        memory = self.memory(setting)
        self.prepare(setting)
        mdm = self.mdm
        averages = [v for kept in mdm.all_averages() for v in kept.averages]
        groups = (mdm.network.variables, averages, mdm.optimizer.variables)
        return Need(
            *(self._state_bytes(group, setting.fsdp) for group in groups),
            memory.activations,
            memory.temporary - memory.activations,
        )

    def _state_bytes(self, variables, fsdp):
        return sum(
            math.prod(v.shape)
            * jax.numpy.dtype(v.dtype).itemsize
            // (self._parts(v.shape) if fsdp else 1)
            for v in variables
        )

    def _parts(self, shape):
        """Devices that a variable is divided among."""
        from keras_mdm.distribution import sharded_axes

        divided = any(sharded_axes(tuple(shape), self.devices, "batch"))
        return self.devices if divided else 1

    def tried(self, limit):
        """Tries settings until one fits.

        A setting whose batch is smaller needs at least as much less as its batch is:
        such as can't fit are left out.

        Args:
            limit: Bytes that a device has for it.

        Yields:
            Pairs of `Setting` and `Need`. The last one fits, if any does.
        """
        least = {}
        for setting in self.settings():
            share = least.get((setting.remat, setting.fsdp), 0) / setting.accumulate
            if share > limit:
                continue
            need = self.need(setting)
            yield setting, need
            if need.total <= limit:
                return
            temporary = need.activations + need.temporary
            least[setting.remat, setting.fsdp] = temporary * setting.accumulate
        if share > limit:
            # None fits: what comes closest is the last, which was left out.
            yield setting, self.need(setting)

    # === Time and data ===

    def flops(self):
        """FLOPs of a forward pass of one sample, by level."""
        features, _ = benchmark_model.make_condition(self.mdm, 1, self._tokens())
        return count_flops(self.network, features)

    def _tokens(self):
        return getattr(self.network.conditioner, "max_tokens", 1)

    def step_flops(self, setting):
        """FLOPs of a training step of the whole batch."""
        active = self.network.levels
        fractions = losses.mixed_fractions(self.stage.mixed, active)
        counts = [self.stage.batch_size] * len(active)
        if fractions is not None:
            counts = losses.mixed_batch_sizes(fractions, self.stage.batch_size)
        return sum(
            flops
            * count
            * (
                (TRAINED if level in self.trained else FROZEN)
                + AGAIN * (level in setting.remat)
            )
            for (level, flops), count in zip(self.flops().items(), counts, strict=True)
        )

    def sample_bytes(self):
        """Bytes of one sample of a batch, as arrays."""
        batch = train_memory.abstract_batch(self.mdm, 1)
        features, _ = benchmark_model.make_condition(self.mdm, 1, self._tokens())
        pictures = {key: value for key, value in batch.items() if key not in features}
        return sum(
            math.prod(v.shape) * v.dtype.itemsize
            for v in [*pictures.values(), *features.values()]
        )
