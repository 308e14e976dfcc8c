"""The callback that keeps averages of which one of any length can be made."""

from keras_mdm import backend
from keras_mdm.checks import check_whole
from keras_mdm.paths import as_path
from keras_mdm.saving import average_snapshots
from keras_mdm.training.attempts import Attempts
from keras_mdm.training.stage_callback import StageCallback, steps_done


class AverageSnapshots(StageCallback):
    """Writes the model's power-function averages every so many steps.

    From the files, `MDM.load_average` makes an average of any length. Twenty to a
    hundred of them are enough; the longer ones need the early ones too. Each takes two
    bytes for every weight and average.

    If the disk is full, or can't be written to for another reason, this is said once,
    and training goes on.

    Args:
        folder: Path of the folder for `stage{n}_step{k}.npz`. A stage removes snapshots
            there of steps that are not done yet, which are of training that was lost.
        every: int or `None`. Steps between snapshots, which are taken at the ends of
            epochs in which a multiple of it was reached. The end of each stage has one
            too. Defaults to `None`: that alone.

    Raises:
        ValueError: if `every` is not positive, the model has no `power_averages`, or
            the folder has snapshots of another training than this plain `fit`.

    Example:

    ```python
    mdm = keras_mdm.MDM(network, power_averages=(0.05, 0.1))
    snapshots = keras_mdm.callbacks.AverageSnapshots("runs/a/averages", every=1000)
    schedule.fit(mdm, make_dataset, callbacks=[snapshots])
    mdm.load_average("runs/a/averages", 0.07)
    ```

    Reference:
        - [Karras et al., 2024](https://arxiv.org/abs/2312.02696)
    """

    def __init__(self, folder, every=None):
        super().__init__()
        if every is not None:
            check_whole(every=every)
        self.folder = as_path(folder)
        self.every = every
        self.attempts = Attempts("A snapshot of averages", "Training goes on without.")

    def set_model(self, model):
        super().set_model(model)
        if not model.power_averages:
            raise ValueError(
                "`AverageSnapshots` needs a model with `power_averages`, such as "
                "`MDM(network, power_averages=(0.05, 0.1))`."
            )

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        now = (self.stage_index, self.step)
        found = average_snapshots.listed(self.folder)
        later = [path for place, path in found if place > now]
        if later and self.stage is None:
            raise ValueError(
                f"'{self.folder}' has snapshots of another training, such as "
                f"'{later[-1].name}', and this one is at step {self.step}. Choose "
                "another folder, or remove them."
            )
        if backend.process_number() == 0:
            for path in later:
                path.unlink(missing_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        if self.is_due():
            self.write()

    def on_stage_end(self, index, stage):
        self.step = steps_done(self.model)
        self.write()

    def write(self):
        """Writes a snapshot now."""
        path = average_snapshots.path_of(self.folder, self.stage_index, self.step)
        with self.attempts.going_on():
            average_snapshots.write_snapshot(self.model, path)
