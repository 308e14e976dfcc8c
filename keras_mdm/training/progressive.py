"""Progressive training: one model, stage by stage, from low to high resolution."""

import dataclasses

import keras

from keras_mdm.diffusion import losses
from keras_mdm.fitting import interrupts
from keras_mdm.training.stage import default_optimizer
from keras_mdm.training.state import (
    SaveState,
    check_settings,
    has_state,
    read_progress,
    restore_state,
    restore_weights,
)


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

    def fit(
        self,
        mdm,
        make_dataset,
        callbacks=(),
        validation_data=None,
        checkpoint_dir=None,
        resume=False,
        verbose="auto",
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
                after each epoch, and after the step at which Ctrl-C or SIGTERM stops
                it.
            resume: bool. Whether to go on from the state in `checkpoint_dir`, if there
                is one. The data set is made anew.
            verbose: As in `keras.Model.fit`.

        Returns:
            List of one dict for each epoch: `stage`, `resolution` and the logs.

        Raises:
            ValueError: if a stage does not fit the model, or the model or the stages
                are not those of the run to resume; no step has run then.
        """
        with interrupts.held():
            return self._fit(
                mdm,
                make_dataset,
                callbacks,
                validation_data,
                checkpoint_dir,
                resume,
                verbose,
            )

    def _fit(
        self,
        mdm,
        make_dataset,
        callbacks,
        validation_data,
        checkpoint_dir,
        resume,
        verbose,
    ):
        self.check(mdm)
        if resume and checkpoint_dir is None:
            raise ValueError("`resume` needs `checkpoint_dir`. Received: None")
        state = {"stage": 0, "epoch": 0, "step": 0}
        if resume and has_state(checkpoint_dir):
            check_settings(checkpoint_dir, self.settings(mdm))
            state = read_progress(checkpoint_dir, len(self.stages))
        logs = []
        if state["stage"] >= len(self.stages):
            mdm.set_active(self.stages[-1].resolution)
            restore_weights(mdm, checkpoint_dir)
        for index in range(state["stage"], len(self.stages)):
            begin = (0, 0)
            if index == state["stage"]:
                begin = (state["epoch"], state["step"])
            restore = checkpoint_dir if resume and any(begin) else None
            if resume and index == state["stage"] and index and not any(begin):
                restore_weights(mdm, checkpoint_dir)
            logs += self._fit_stage(
                mdm,
                index,
                begin,
                restore,
                make_dataset,
                list(callbacks),
                validation_data,
                checkpoint_dir,
                verbose,
            )
        return logs

    def settings(self, mdm):
        """What a resumed run must share with the one that it goes on with.

        Args:
            mdm: `MDM`.

        Returns:
            dict of JSON values: the model, the stages and their optimizers.
        """
        optimizers = [_described(self.make_optimizer(stage)) for stage in self.stages]
        model = {**mdm.get_config(), "dtype": mdm.network.dtype_policy.name}
        del model["sampling"], model["name"]
        return {
            "model": without_names(model),
            "optimizers": without_names(optimizers),
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
        }

    def check(self, mdm):
        """Raises an error if a stage does not fit a model. `fit` does it first.

        Args:
            mdm: `MDM`.

        Raises:
            ValueError: if the model lacks a resolution of a stage, or the shares or
                weights of a stage are wrong.
        """
        for stage in self.stages:
            active = mdm.network.at_level(stage.resolution)
            if stage.freeze_inner and len(active.networks) == 1:
                raise ValueError(
                    "`freeze_inner` needs a doll inside that of resolution "
                    f"{stage.resolution}, which is the innermost."
                )
            losses.level_weights(stage.loss_weights, active.levels, mdm.schedule)
            shares = losses.mixed_fractions(stage.mixed, active.levels)
            if shares is not None:
                losses.mixed_batch_sizes(shares, stage.batch_size)

    def _fit_stage(
        self,
        mdm,
        index,
        first,
        restore,
        make_dataset,
        callbacks,
        validation_data,
        checkpoint_dir,
        verbose,
    ):
        stage = self.stages[index]
        mdm.set_active(stage.resolution, stage.freeze_inner)
        mdm.compile(
            optimizer=self.make_optimizer(stage),
            loss_weights=stage.loss_weights,
            mixed_resolution=stage.mixed,
        )
        if restore is not None:
            restore_state(mdm, restore)
        dataset = make_dataset(stage)
        validation = validation_data(stage) if validation_data else None
        _tell(callbacks, "on_stage_begin", index, stage, mdm)
        rounds = stage.rounds()
        settings = self.settings(mdm) if checkpoint_dir is not None else None
        logs = []
        for begin, end, skipped, steps in _runs(rounds, *first):
            savers = []
            if checkpoint_dir is not None:
                savers = [SaveState(checkpoint_dir, settings, index, rounds, skipped)]
            for saver in savers:
                saver.set_model(mdm)
            try:
                interrupts.check()
                history = mdm.fit(
                    dataset,
                    initial_epoch=begin,
                    epochs=end,
                    steps_per_epoch=steps,
                    validation_data=validation,
                    # Keras warns if it is told to shuffle anything but arrays.
                    shuffle=isinstance(dataset, dict),
                    callbacks=[*callbacks, *savers],
                    verbose=verbose,
                )
            except (KeyboardInterrupt, SystemExit):
                for saver in savers:
                    saver.save_now()
                    print(
                        f"\nStopped after step {saver.count()} of stage {index + 1}. "
                        "`resume=True` goes on from the state in "
                        f"'{checkpoint_dir}'.",
                        flush=True,
                    )
                raise
            for row in range(len(history.epoch)):
                values = {key: value[row] for key, value in history.history.items()}
                logs.append({"stage": index, "resolution": stage.resolution, **values})
            if mdm.stop_training:
                break
        _tell(callbacks, "on_stage_end", index, stage, mdm)
        return logs


def _described(optimizer):
    """Class and configuration of an optimizer that is not used for anything else.

    Keras would import TensorFlow to serialize its schedule.
    """
    rate = optimizer._learning_rate
    scheduled = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    if scheduled:
        optimizer._learning_rate = None
    config = optimizer.get_config()
    if scheduled:
        kind = type(rate).__name__
        config["learning_rate"] = {"class_name": kind, "config": rate.get_config()}
    return {"class_name": type(optimizer).__name__, "config": config}


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


def _runs(rounds, first, step):
    """Groups epochs of equal length, from a step of the first one on.

    Yields:
        First epoch, end epoch, steps of the first one that are done, steps of each.
    """
    if step:
        yield first, first + 1, step, rounds[first] - step
        first += 1
    begin = first
    while begin < len(rounds):
        end = begin
        while end < len(rounds) and rounds[end] == rounds[begin]:
            end += 1
        yield begin, end, 0, rounds[begin]
        begin = end


def _tell(callbacks, method, index, stage, mdm):
    for callback in callbacks:
        if hasattr(callback, method):
            callback.set_model(mdm)
            getattr(callback, method)(index, stage)
