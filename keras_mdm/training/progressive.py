"""Progressive training: one model, stage by stage, from low to high resolution."""

import contextlib
import dataclasses
import secrets

from keras_mdm.checks import check_flags, check_whole
from keras_mdm.diffusion import losses
from keras_mdm.fitting import active_levels, interrupts
from keras_mdm.optimizer import check_trainable
from keras_mdm.training.save_state import SaveState
from keras_mdm.training.settings import check_settings
from keras_mdm.training.stage import Stage, default_optimizer
from keras_mdm.training.state import newest


class ProgressiveSchedule:
    """Stages in their order. Weights learned in one carry on into the next.

    Args:
        stages: Sequence of `Stage`.
        make_optimizer: Callable from `Stage` to a Keras optimizer, called at the
            beginning of each. Defaults to `default_optimizer`.

    Example:

    ```python
    schedule = keras_mdm.ProgressiveSchedule(
        [keras_mdm.Stage(16, steps=500), keras_mdm.Stage(32, steps=500)]
    )
    schedule.fit(mdm, lambda stage: load(stage.resolution, stage.batch_size))
    ```
    """

    def __init__(self, stages, make_optimizer=default_optimizer):
        self.stages = tuple(stages)
        self.make_optimizer = make_optimizer
        if not self.stages:
            raise ValueError("`stages` must have at least one `Stage`. Received: []")

    @interrupts.held(whole_epochs=True)
    def fit(
        self,
        mdm,
        make_dataset,
        callbacks=(),
        validation_data=None,
        checkpoint_dir=None,
        resume=False,
        verbose="auto",
        keep_every=None,
        data=None,
        allow_changed=(),
    ):
        """Trains a model through all stages.

        Args:
            mdm: `MDM`. At the end its `resolution` is that of the last stage.
            make_dataset: Callable from `Stage` to a data set of batches of the stage's
                resolution and batch size, which repeats if the stage counts steps.
            callbacks: Sequence of Keras callbacks. Those with a method
                `on_stage_begin(index, stage)` or `on_stage_end(index, stage)` are told.
            validation_data: Optional callable from `Stage` to data for `evaluate`.
            checkpoint_dir: Optional path. The whole state of training is written there
                before the first step of a stage, after each epoch, and after the step
                (and the validation, if that follows) at which Ctrl-C or SIGTERM stops
                it; the newest three states are kept. Those of another training there
                are removed, unless `resume` is set. Each of several processes writes
                the part that it holds; they must share the folder.
            resume: bool. Whether to go on from the state in `checkpoint_dir`, if there
                is one. The data set is made anew, and goes on with the batch that comes
                next: one of `keras_mdm.data.make_dataset`, or of grain, is set there;
                of others the batches that were taken are read again and skipped, so
                they must have the same order each time.
            verbose: As in `keras.Model.fit`.
            keep_every: int or `None`. The states after every so many epochs of a stage
                are kept too.
            data: JSON value that says what the data are, such as `Source.contents()`:
                with others the run is not resumed.
            allow_changed: Names of what may differ from the run to resume: `"model"`,
                `"stages"`, `"optimizers"`, `"data"`. What does is printed.

        Returns:
            List of one dict for each epoch: `stage`, `resolution` and the logs.

        Raises:
            ValueError: if a stage does not fit the model, or the model or the stages
                are not those of the run to resume; no step has run then.
        """
        self.check(mdm)
        check_flags(resume=resume)
        if resume and checkpoint_dir is None:
            raise ValueError("`resume` needs `checkpoint_dir`. Received: None")
        if keep_every is not None:
            check_whole(keep_every=keep_every)
        settings = None
        if checkpoint_dir is not None:
            settings = {**self.settings(mdm), "data": data}
        state = newest(checkpoint_dir) if resume else None
        first, begin, run = 0, (0, 0), secrets.token_hex(8)
        if state is not None:
            saved, run = state.values["settings"], state.values.get("run")
            changed = check_settings(checkpoint_dir, saved, settings, allow_changed)
            if changed:
                print(f"Changed since the state was written: {changed}.", flush=True)
            first, *begin = state.files.key
            if changed:
                begin = self._place_now(saved, first, begin)
        logs = []
        for index in range(first, len(self.stages)):
            stage = self.stages[index]
            active_levels.choose(mdm, stage.resolution, stage.freeze_inner)
            mdm.compile(
                optimizer=self.make_optimizer(stage),
                loss_weights=stage.loss_weights,
                mixed_resolution=stage.mixed,
            )
            saver = SaveState(
                checkpoint_dir, run, settings, index, stage, callbacks, keep_every
            )
            with contextlib.closing(saver):
                goes_on = begin[0] < len(stage.rounds())
                saver.begin(mdm, state, goes_on)
                _tell(callbacks, "on_stage_begin", index, stage, mdm)
                if goes_on:
                    dataset = make_dataset(stage)
                    validation = validation_data(stage) if validation_data else None
                    for history in _fit_stage(
                        mdm,
                        stage,
                        begin,
                        saver,
                        x=dataset,
                        validation_data=validation,
                        # Keras warns if it is told to shuffle anything but arrays.
                        shuffle=isinstance(dataset, dict),
                        callbacks=[*callbacks, saver],
                        verbose=verbose,
                    ):
                        logs += _rows(index, stage, history)
            _tell(callbacks, "on_stage_end", index, stage, mdm)
            state, begin = None, (0, 0)
        return logs

    def _place_now(self, saved, index, begin):
        """Epoch, and step in it, of a state that was written with another `Stage`."""
        resolutions = [stage.resolution for stage in self.stages]
        try:
            before = Stage(**saved["stages"][index])
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                "`resume`: the state was written by another version of keras_mdm, "
                f"whose stages this one can't read ({error!r}). Resume with that."
            ) from error
        if resolutions[index : index + 1] != [before.resolution]:
            raise ValueError(
                f"`resume`: the training is in stage {index + 1}, of resolution "
                f"{before.resolution}: neither that nor how many stages come before "
                f"it may change. Received: stages of {resolutions}"
            )
        stage = self.stages[index]
        if before.steps is None or stage.steps is None:
            return begin
        # Its epochs may have another length now, or not be as many.
        rounds, done = stage.rounds(), sum(before.rounds()[: begin[0]]) + begin[1]
        return (len(rounds), 0) if done >= stage.steps else divmod(done, rounds[0])

    def settings(self, mdm):
        """What a resumed run must share with the one that it goes on with.

        Args:
            mdm: `MDM`.

        Returns:
            dict of JSON values: the model, the stages and their optimizers.
        """
        # Their schedules follow the stages; Keras imports TensorFlow to serialize one.
        constant = {"warmup_steps": 0, "decay": "constant", "decay_reference": None}
        optimizers = [
            self.make_optimizer(dataclasses.replace(stage, **constant))
            for stage in self.stages
        ]
        model = {**mdm.get_config(), "dtype": mdm.network.dtype_policy.name}
        del model["sampling"], model["name"]
        return {
            "model": without_names(model),
            "optimizers": without_names(
                [
                    {"class_name": type(o).__name__, "config": o.get_config()}
                    for o in optimizers
                ]
            ),
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
        }

    def check(self, mdm):
        """Raises an error if a stage does not fit a model. `fit` does it first.

        Args:
            mdm: `MDM`.

        Raises:
            ValueError: if the model lacks a resolution of a stage or keeps its weights
                in float16, or the fractions or weights of a stage are wrong.
        """
        check_trainable(mdm.network)
        for stage in self.stages:
            resolutions = active_levels.active_network(
                mdm.network, stage.resolution, stage.freeze_inner
            ).levels
            losses.level_weights(stage.loss_weights, resolutions, mdm.schedule)
            fractions = losses.mixed_fractions(stage.mixed, resolutions)
            if fractions is not None:
                losses.mixed_batch_sizes(fractions, stage.batch_size)


def _rows(index, stage, history):
    """A dict for each epoch of one call of `fit`."""
    place = {"stage": index, "resolution": stage.resolution}
    return [
        place | {key: values[row] for key, values in history.history.items()}
        for row in range(len(history.epoch))
    ]


def _fit_stage(mdm, stage, begin, saver, **options):
    """Calls `fit` for epochs of equal length, from a step of the first one on.

    Yields:
        The history of each call.
    """
    rounds, (epoch, done) = stage.rounds(), begin
    while epoch < len(rounds):
        end = epoch + 1
        while not done and end < len(rounds) and rounds[end] == rounds[epoch]:
            end += 1
        saver.begin_fit(mdm, done)
        steps = rounds[epoch] and rounds[epoch] - done
        try:
            interrupts.check()
            yield mdm.fit(
                initial_epoch=epoch, epochs=end, steps_per_epoch=steps, **options
            )
        except (KeyboardInterrupt, SystemExit):
            saver.save_now()
            raise
        if mdm.stop_training:
            return
        epoch, done = end, 0


def without_names(value):
    """Serialized objects without the names that Keras counts up, and without `remat`.

    Neither changes what is computed.
    """
    if isinstance(value, list | tuple):
        return [without_names(v) for v in value]
    if not isinstance(value, dict):
        return value
    value = {key: without_names(v) for key, v in value.items()}
    if isinstance(value.get("config"), dict) and "class_name" in value:
        config = value["config"]
        left_out = ("name", "remat")
        value["config"] = {k: v for k, v in config.items() if k not in left_out}
    return value


def _tell(callbacks, method, index, stage, mdm):
    for callback in callbacks:
        if hasattr(callback, method):
            callback.set_model(mdm)
            getattr(callback, method)(index, stage)
