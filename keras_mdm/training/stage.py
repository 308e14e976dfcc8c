"""What one stage of progressive training is: data for `progressive.py`."""

import dataclasses
import math

import keras

from keras_mdm.checks import check_choice, check_flags, check_number, check_whole
from keras_mdm.levels import read_level
from keras_mdm.muon import Muon
from keras_mdm.optimizer import AdamW
from keras_mdm.schedule_free import ScheduleFreeAdamW

DECAYS = ("constant", "cosine", "inverse_square_root")
OPTIMIZERS = {
    "adamw": AdamW,
    "muon": Muon,
    "schedule_free_adamw": ScheduleFreeAdamW,
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a `ProgressiveSchedule`.

    Args:
        resolution: int, or str for clips. Largest resolution that takes part: pixels,
            or frames and pixels such as `"16x64"`.
        steps: int or `None`. Training steps; the data set must repeat.
        epochs: int or `None`. Passes over the data set instead of `steps`.
        batch_size: int. Pictures a step. Defaults to 32.
        learning_rate: float. Defaults to 1e-4.
        warmup_steps: int. Steps over which the learning rate rises linearly from
            zero. Defaults to 0.
        decay: str. `"constant"` (default), or `"cosine"`: the learning rate falls to
            zero at the end of the stage, which must count `steps`. Or
            `"inverse_square_root"`: from step `decay_reference` on, it is
            `learning_rate / sqrt(step / decay_reference)`
            ([Karras et al., 2024](https://arxiv.org/abs/2312.02696)).
        decay_reference: int or `None`. Step from which `"inverse_square_root"` lets the
            learning rate fall; only for that.
        optimizer: str. `"adamw"` (default), `"muon"` or `"schedule_free_adamw"`; see
            `keras_mdm.AdamW`, `keras_mdm.Muon` and `keras_mdm.ScheduleFreeAdamW`, which
            takes the place of a decay.
        mixed: dict or `None`. Resolution to its fraction of the batch; see
            `MDM.compile(mixed_resolution=...)`.
        loss_weights: dict, `"ratio"` or `None`. See `MDM.compile`.
        freeze_inner: bool. Whether only the outermost network of the stage is trained.
        accumulate: int. Batches whose gradients are averaged for one update.
            `steps` counts batches. Defaults to 1.
        steps_per_epoch: int or `None`. After how many steps callbacks see the end of
            an epoch and training can be resumed. Defaults to `steps`, at most 1000.

    Example:

    ```python
    Stage(resolution=64, steps=400_000, batch_size=512, learning_rate=1e-4)
    Stage(resolution=256, steps=400_000, batch_size=512, mixed={256: 2, 64: 1})
    ```
    """

    resolution: int | str
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    decay: str = "constant"
    decay_reference: int | None = None
    optimizer: str = "adamw"
    mixed: dict | None = None
    loss_weights: dict | str | None = None
    freeze_inner: bool = False
    accumulate: int = 1
    steps_per_epoch: int | None = None

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                "a `Stage` must have either `steps` or `epochs`. "
                f"Received: steps={self.steps}, epochs={self.epochs}"
            )
        read_level(self.resolution)
        counts = ("steps", "epochs", "batch_size", "accumulate", "steps_per_epoch")
        for name in (*counts, "decay_reference"):
            if getattr(self, name) is not None:
                check_whole(**{name: getattr(self, name)})
        check_flags(freeze_inner=self.freeze_inner)
        check_number(above=0, learning_rate=self.learning_rate)
        check_number(0, warmup_steps=self.warmup_steps)
        check_choice(DECAYS, decay=self.decay)
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        if self.decay != "constant" and self.optimizer == "schedule_free_adamw":
            raise ValueError(
                "`optimizer='schedule_free_adamw'` averages weights instead of letting "
                "the learning rate fall: it needs `decay='constant'`. Received: "
                f"decay={self.decay!r}"
            )
        if (self.decay == "inverse_square_root") == (self.decay_reference is None):
            raise ValueError(
                "`decay_reference`, the step from which the learning rate falls, is "
                "needed by `decay='inverse_square_root'` and by no other. Received: "
                f"decay={self.decay!r}, decay_reference={self.decay_reference}"
            )
        if self.decay == "cosine" and self.steps is None:
            raise ValueError(
                "`decay` needs a stage that counts `steps`, to know where it ends. "
                f"Received: decay={self.decay!r}, epochs={self.epochs}"
            )

    def rounds(self):
        """Steps of each epoch, as a list; `[None] * epochs` for a stage in epochs."""
        if self.epochs is not None:
            return [None] * self.epochs
        size = min(self.steps_per_epoch or 1000, self.steps)
        full, rest = divmod(self.steps, size)
        return [size] * full + ([rest] if rest else [])


@keras.saving.register_keras_serializable("keras_mdm")
class StageLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly, then stays or falls.

    Step n of the warm-up has the fraction `max(1, n) / warmup_steps`, as in the
    official training, which knows no decay.

    Args:
        learning_rate: float. Rate after the warm-up.
        warmup_steps: int.
        decay_steps: int or `None`. Step at which the rate reaches zero, as a cosine.
        decay_reference: int or `None`. Step from which the rate falls with the square
            root of the steps. Without either it stays.
    """

    def __init__(
        self, learning_rate, warmup_steps, decay_steps=None, decay_reference=None
    ):
        super().__init__()
        numbers = (warmup_steps, decay_steps or 0, decay_reference or 0)
        if not all(map(math.isfinite, (learning_rate, *numbers))):
            raise ValueError(
                "`learning_rate`, `warmup_steps`, `decay_steps` and `decay_reference` "
                f"must be finite. Received: learning_rate={learning_rate}, "
                f"warmup_steps={warmup_steps}, decay_steps={decay_steps}, "
                f"decay_reference={decay_reference}"
            )
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay_reference = decay_reference

    def __call__(self, step):
        ops = keras.ops
        step = ops.cast(step, "float32")
        warm = ops.maximum(step, 1.0) / max(self.warmup_steps, 1)
        rate = self.learning_rate * ops.minimum(warm, 1.0)
        if self.decay_reference is not None:
            rate = rate / ops.sqrt(ops.maximum(step / self.decay_reference, 1.0))
        if self.decay_steps is None:
            return rate
        length = max(self.decay_steps - self.warmup_steps, 1)
        done = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
        return rate * 0.5 * (1.0 + ops.cos(math.pi * done))

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "decay_reference": self.decay_reference,
        }


def default_optimizer(stage):
    """The Keras optimizer that a `Stage` names, with its learning rate and
    accumulation.
    """
    rate = stage.learning_rate
    if stage.warmup_steps or stage.decay != "constant":
        rate = StageLearningRate(
            rate,
            stage.warmup_steps,
            stage.steps if stage.decay == "cosine" else None,
            stage.decay_reference,
        )
    return OPTIMIZERS[stage.optimizer](
        rate,
        gradient_accumulation_steps=stage.accumulate if stage.accumulate > 1 else None,
    )
