"""The models and stages of a line of `compare.py`, sized by the package's own count."""

import dataclasses
import functools

import compare_networks as networks
import numpy as np

import keras_mdm
from keras_mdm.networks.cost import count_flops

GROUPS = 2
INNER_WIDTHS, OUTER_WIDTHS = (16, 32), (8, 16)  # Of the reference.
# Of the others, chosen so that parameters and FLOPs are the reference's.
PLAIN_WIDTHS, DENSE_WIDTHS = (10, 18, 36), (8, 18, 36)
CASCADE_WIDTHS = (14, 24), (10, 14, 20)  # The inner model, and the one that enlarges.
LEARNING_RATE, WARMUP_STEPS = 2e-3, 20
EMA_MOMENTUM = 0.99
TOLERANCE = 0.06  # Most that a size may differ from the reference's, as a share.


@dataclasses.dataclass(frozen=True)
class Part:
    """A model, its stages, and what training it costs.

    Attributes:
        mdm: `MDM`.
        stages: Tuple of `Stage`.
        step_flops: Tuple of int: training FLOPs of a step of each stage.
        reads_small: bool. Whether its batches have the smaller picture.
    """

    mdm: object
    stages: tuple
    step_flops: tuple
    reads_small: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """What all lines of a set share.

    Attributes:
        resolution: int. Of the largest level; the inner one has half.
        channels: int. Of the pictures.
        num_classes: int.
        steps: int. Steps of the reference.
        batch_size: int.
    """

    resolution: int
    channels: int
    num_classes: int
    steps: int = 600
    batch_size: int = 16


def build(line, task, seed):
    """Makes the parts of a line, in the order in which they are trained.

    Args:
        line: `compare_matrix.Line`.
        task: `Task`.
        seed: int. Of timesteps, noise and dropped conditions; weights follow
            `keras.utils.set_random_seed`.

    Returns:
        Tuple of `Part`; the last one draws the pictures of the largest level.
    """
    nets = _networks(task, line.arm, line.sum_levels)
    flops = [count_flops(net, _features(task)) for net in nets]
    reference = _size(task, "nested", True)["FLOPs"]
    # Training costs three times a forward pass: the backward pass has two products
    # for each one of it.
    budget = 3 * task.batch_size * task.steps * reference
    if line.arm == "cascade":
        steps = round(
            budget / (3 * task.batch_size * sum(sum(f.values()) for f in flops))
        )
        return tuple(
            _part(line, task, net, [(None, steps)], cost, seed)
            for net, cost in zip(nets, flops, strict=True)
        )
    net, cost = nets[0], flops[0]
    whole = _step_flops(task, cost, None)
    if line.regime == "all_at_once":
        rounds = [(None, round(budget / whole))]
    else:
        inner = task.resolution // 2
        mixed = {task.resolution: 1, inner: 1} if line.regime == "mixed" else None
        alone = 3 * task.batch_size * cost[inner]
        late = _step_flops(task, cost, mixed)
        rounds = [(inner, round(budget / 2 / alone)), (mixed, round(budget / 2 / late))]
    return (_part(line, task, net, rounds, cost, seed),)


def check_size(line, task):
    """Raises a `ValueError` unless a line has the reference's parameters and FLOPs."""
    reference = _size(task, "nested", True)
    found = _size(task, line.arm, line.sum_levels)
    for name, value in found.items():
        if abs(value / reference[name] - 1.0) > TOLERANCE:
            raise ValueError(
                f"line {line.name!r}: arm {line.arm!r} has {value:,} {name}, the "
                f"reference {reference[name]:,}. They must be within {TOLERANCE:.0%}: "
                "change its widths in compare_arms.py."
            )


@functools.cache
def _size(task, arm, sum_levels):
    nets = _networks(task, arm, sum_levels)
    return {
        "parameters": sum(net.count_params() for net in nets),
        "FLOPs": sum(sum(count_flops(net, _features(task)).values()) for net in nets),
    }


def _part(line, task, net, rounds, cost, seed):
    """A part whose rounds are pairs: inner resolution or mixed fractions, and steps."""
    stages, step_flops = [], []
    for kind, steps in rounds:
        alone = isinstance(kind, int)
        resolution = kind if alone else net.resolution
        weights = {resolution: 1.0} if line.loss == "largest" else None
        stages.append(
            keras_mdm.Stage(
                resolution,
                steps=steps,
                batch_size=task.batch_size,
                learning_rate=LEARNING_RATE,
                warmup_steps=WARMUP_STEPS,
                mixed=None if alone else kind,
                loss_weights=weights,
                # Measures fall on ends of epochs.
                steps_per_epoch=max(1, steps // 20),
            )
        )
        inside = {r: f for r, f in cost.items() if r <= resolution}
        step_flops.append(_step_flops(task, inside, None if alone else kind))
    small = isinstance(net, networks.SuperResolution)
    mdm = _model(line, task, net, seed)
    return Part(mdm, tuple(stages), tuple(step_flops), small)


def _model(line, task, net, seed):
    flow = line.schedule == "flow"
    if len(net.levels) == 1 and net.resolution == task.resolution:
        # As noisy as the largest level of the nest.
        schedule = keras_mdm.NoiseSchedule(
            networks.Shifted(line.schedule, 2.0, line.shift_power),
            path="flow" if flow else None,
        )
    else:
        schedule = keras_mdm.NoiseSchedule(line.schedule, shift_power=line.shift_power)
    options = {"loss_target": "x0", "loss_weighting": "min_snr"}
    if flow:
        normal = keras_mdm.diffusion.LogitNormal()
        options = {"loss_target": "v", "timesteps": normal}
    return keras_mdm.MDM(
        net,
        schedule=schedule,
        prediction="x0",
        condition_dropout=0.0,
        ema_momentum=EMA_MOMENTUM,
        seed=seed,
        **options,
    )


def _networks(task, arm, sum_levels):
    if arm == "cascade":
        inner, outer = CASCADE_WIDTHS
        enlarging = _unet(
            task,
            outer,
            cls=networks.SuperResolution,
            conditioner=networks.SmallPicture,
            sum_levels=sum_levels,
        )
        return [_unet(task, inner, task.resolution // 2), enlarging]
    if arm == "plain":
        return [_unet(task, PLAIN_WIDTHS)]
    if arm == "dense":
        return [_unet(task, DENSE_WIDTHS, cls=networks.DenseUNet)]
    nest = _nest(task, sum_levels)
    return [networks.OneLevel(nest) if arm == "residual" else nest]


def _nest(task, sum_levels):
    inner = _unet(task, INNER_WIDTHS, task.resolution // 2)
    return keras_mdm.NestedUNet(
        inner, OUTER_WIDTHS, 1, residual_prediction=sum_levels, groups=GROUPS
    )


def _unet(
    task,
    widths,
    resolution=None,
    cls=keras_mdm.UNet,
    conditioner=keras_mdm.ClassLabels,
    **options,
):
    return cls(
        resolution or task.resolution,
        widths,
        num_residual_blocks=1,
        conditioner=conditioner(task.num_classes, size=64),
        embedding_size=64,
        mid_blocks=False,  # Their attention has widths of multiples of 32 only.
        groups=GROUPS,
        image_channels=task.channels,
        **options,
    )


def _features(task):
    small = (1, task.resolution // 2, task.resolution // 2, task.channels)
    return {"labels": np.zeros(1, "int32"), "small": np.zeros(small, "float32")}


def _step_flops(task, flops, mixed):
    """Training FLOPs of a step; a level is reached by shares of larger ones and its."""
    share, reached = 0.0, 0.0
    total = sum(mixed.values()) if mixed else 1
    for resolution, cost in flops.items():
        share = share + mixed[resolution] / total if mixed else 1.0
        reached += share * cost
    return 3 * task.batch_size * reached
