"""MDM: the model that users train and draw with.

It joins a network, a diffusion process, the multi-resolution loss and a moving average.
`train_step` turns a batch into noisy levels and targets, then leaves the step to Keras,
with its gradient accumulation, loss scaling and sharding. Data on their way in are
checked in `fitting`, pictures drawn in `sampling`, files read and written in `saving`.
"""

import contextlib
import threading
import warnings

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.checks import check_number
from keras_mdm.diffusion import losses
from keras_mdm.diffusion.process import Process
from keras_mdm.ema import ExponentialMovingAverage
from keras_mdm.fitting import active_levels, entry, reported
from keras_mdm.fitting.batches import BatchSpec, pictures_of
from keras_mdm.fitting.monitor import StepMonitor
from keras_mdm.fitting.turns import Turns, in_turn, reading
from keras_mdm.levels import first
from keras_mdm.networks import Denoiser
from keras_mdm.optimizer import get_optimizer
from keras_mdm.power_averages import PowerAverage, check_lengths
from keras_mdm.sampling.generate import generate
from keras_mdm.sampling.settings import SamplingSettings
from keras_mdm.saving import average_snapshots, keras_files, presets, transfer


@backend.keeps_weights
@keras.saving.register_keras_serializable("keras_mdm")
class MDM(keras.Model):
    """Matryoshka diffusion model: denoises several resolutions of a picture jointly.

    Args:
        network: `Denoiser`: `UNet`, `NestedUNet`, `InflatedUNet` or one of your own.
        schedule: str, callable or `NoiseSchedule`. `"cosine"` (default), `"linear"`,
            `"sigmoid"` or `"flow"`: 1000 timesteps, shifted by each resolution's ratio
            to the smallest one.
        prediction: str. What the network predicts: `"v"` (default), `"epsilon"` or
            `"x0"`.
        loss_target: str or `None`. On what the squared error is taken: `"v"`,
            `"epsilon"` or `"x0"`. Defaults to `None`: the same as `prediction`.
        loss_weighting: str. Weight of each noise level: `"uniform"` (default),
            `"snr"`, `"min_snr"`, `"sigmoid"` or `"vdm"`.
        timesteps: `"uniform"` (default) or a callable such as
            `keras_mdm.diffusion.LogitNormal`: where training draws its timesteps.
        frame_pooling: str. Which frames of a clip a level with fewer frames has:
            `"first"` (default) of every group of neighbors, or their `"average"`.
        condition_dropout: float in [0, 1]. Fraction of the training samples whose
            condition is dropped, which guidance needs. Defaults to 0.1.
        output_limit: float or `None`. Predictions are bounded smoothly to plus or
            minus this by `tanh`. Defaults to `None`: not bounded.
        ema_momentum: float or `None`. Momentum of the moving average of the weights,
            which `evaluate`, `generate` and saved presets use. Defaults to 0.9999.
            `None` keeps none. A schedule-free optimizer keeps its own average there.
        ema_warmup: bool. Whether the momentum of update n is at most
            `(1 + n) / (10 + n)`. Defaults to `True`.
        power_averages: sequence of float or `None`. Lengths `sigma_rel` of further
            averages, such as `(0.05, 0.1)`, from whose snapshots `load_average` makes
            one of any length; see `keras_mdm.callbacks.AverageSnapshots`. Each takes
            the memory of the weights in float32. They are not saved in presets.
            Defaults to `None`.
        sampling: dict or `None`. Defaults of `generate` for this model, such as
            `{"num_steps": 100, "guidance_scale": 7.5}`.
        seed: int or `None`. Seed of timesteps, noise and dropped conditions in
            training.
        name: str. Defaults to `"mdm"`.

    Call arguments:
        inputs: dict with `images` (noisy pictures of the active resolutions, largest
            first), `timesteps` and the features of the condition.

    Returns:
        A list of predictions, one for each resolution. `call` is the denoiser;
        pictures are drawn with `generate`.

    Example:

    ```python
    mdm = keras_mdm.MDM.from_preset("mdm_tiny_32", num_classes=10)
    mdm.compile(optimizer=keras_mdm.AdamW(3e-4))
    mdm.fit(dataset, epochs=10)  # batches {"images": uint8, "labels": int}
    pictures = mdm.generate(labels=[3, 7], seed=0)  # (2, 32, 32, 3) uint8
    ```

    Reference:
        - [Gu et al., 2023](https://arxiv.org/abs/2310.15111)
    """

    def __init__(
        self,
        network,
        schedule="cosine",
        prediction="v",
        loss_target=None,
        loss_weighting="uniform",
        timesteps="uniform",
        frame_pooling="first",
        condition_dropout=0.1,
        output_limit=None,
        ema_momentum=0.9999,
        ema_warmup=True,
        power_averages=None,
        sampling=None,
        seed=None,
        name="mdm",
    ):
        # Clean pictures, noise, timesteps and targets stay float32.
        super().__init__(autocast=False, dtype="float32", name=name)
        if not isinstance(network, Denoiser):
            raise ValueError(
                "`network` must be a `Denoiser`, such as `UNet` or `NestedUNet`. "
                f"Received: network={network!r} (of type {type(network).__name__})"
            )
        if network.predicts_residuals and prediction != "x0":
            raise ValueError(
                "a network with `residual_prediction=True` must have `prediction='x0'`:"
                " no other prediction resembles that of a smaller resolution. "
                f"Received: prediction={prediction!r}"
            )
        check_number(0, 1, condition_dropout=condition_dropout)
        if output_limit is not None:
            check_number(above=0, output_limit=output_limit)
        self.turns = Turns()
        self.network = network
        self.process = Process(
            network.levels,
            schedule,
            prediction,
            loss_target,
            loss_weighting,
            timesteps,
            network.image_channels,
            frame_pooling,
        )
        self.schedule = self.process.schedule
        self.prediction = prediction
        self.loss_target = self.process.loss_target
        self.loss_weighting = loss_weighting
        self.condition_dropout = condition_dropout
        self.output_limit = output_limit
        self.sampling = SamplingSettings.of_model(sampling)
        self.sampling_functions = {}
        # Named, or else its variable has another path in the next model.
        self.seed_generator = keras.random.SeedGenerator(seed, name="seed_generator")
        self.seed = seed
        self.loss_trackers = {
            level: keras.metrics.Mean(name=f"loss_{level}", dtype="float32")
            for level in network.levels
        }
        self.monitor = StepMonitor(len(network.levels))
        self.ema = None
        numbers = network.level_numbers()
        if ema_momentum is not None:
            self.ema = ExponentialMovingAverage(
                network.weights, ema_momentum, ema_warmup, numbers
            )
        check_lengths(power_averages)
        self.power_averages = [
            PowerAverage(network.weights, length, numbers)
            for length in power_averages or ()
        ]
        self.evaluated_samples = self.add_weight(
            shape=(), dtype="int32", trainable=False, name="evaluated_samples"
        )
        # What one thread evaluates is no matter of another.
        self._thread = threading.local()
        self.largest_active = network.level
        self.inner_is_frozen = False
        self.__dict__["frozen_by_hand"] = {}  # Hidden from Keras, which would track it.
        self._loss_arguments = {"loss_weights": None, "mixed_resolution": None}
        self.mixed_fractions = None
        self.built = True

    # === Which levels take part ===

    @property
    def resolutions(self):
        """Tuple of the resolutions that take part, largest first: pixels, or, of clips,
        a str such as `"16x64"`, 16 frames of 64 pixels."""
        return self.active_network.levels

    @property
    def resolution(self):
        """The largest resolution that takes part in `fit` and `generate`.

        Setting it to a smaller one leaves the outer networks out: progressive training
        begins there and needs no second model. A compiled model is compiled again
        with a fresh optimizer and no `loss_weights` or `mixed_resolution`, which
        belong to the resolutions it had. Setting it to what it is changes nothing.
        """
        return self.largest_active

    @resolution.setter
    def resolution(self, value):
        self.set_active(value, freeze_inner=self.inner_is_frozen)

    @property
    def active_network(self):
        """The network whose level is `resolution`, with those inside it."""
        return self.network.at_level(self.largest_active)

    @in_turn
    def set_active(self, resolution, freeze_inner=False):
        """Chooses the levels that take part, and those that are trained.

        Args:
            resolution: int or str. One of the network's resolutions.
            freeze_inner: bool. Whether only the outermost of these networks is trained.
                Defaults to `False`. Layers that were frozen by hand stay frozen.
        """
        before = (self.largest_active, self.inner_is_frozen)
        if before != (resolution, freeze_inner):
            self.turns.check_between_steps("set_active")
        active_levels.choose(self, resolution, freeze_inner)
        if before != (self.largest_active, self.inner_is_frozen) and self.compiled:
            optimizer = self.optimizer
            optimizer = type(optimizer).from_config(optimizer.get_config())
            self.compile(optimizer, **self._compile_arguments)

    # === The training step ===

    def compile(
        self,
        optimizer="auto",
        loss_weights=None,
        mixed_resolution=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        **others,
    ):
        """Prepares the model for `fit`, `evaluate` and `train_on_batch`.

        Args:
            optimizer: `"auto"` (`keras_mdm.AdamW` with the paper's settings, as in
                `Stage`), or a Keras optimizer. Clipping and gradient accumulation are
                its options `global_clipnorm` and `gradient_accumulation_steps`.
            loss_weights: Optional dict of resolution to weight of its loss, a mean
                over pixels. Missing resolutions have weight 0. `"ratio"`: each weighs
                as much as it is larger than the smallest, frames counted as the
                schedule does. Defaults to `None`: every weight is 1.
            mixed_resolution: Optional dict of resolution to its fraction of the batch:
                whole numbers are a ratio, `{64: 2, 32: 1}`; fractions must sum to 1.
                Samples of a smaller resolution skip the networks around it.
            run_eagerly, steps_per_execution, jit_compile: As in
                `keras.Model.compile`.
            auto_scale_loss: bool. Whether the loss is scaled where a layer of the
                network has the dtype policy `"mixed_float16"`, as
                `keras.Model.compile` does by the model's own.

        Raises:
            ValueError: if weights are kept in float16, which can't be trained, or if a
                schedule-free optimizer's average has no place; or if there are others,
                such as `loss` and `metrics`, which this model has of its own.
        """
        if others:
            raise ValueError(
                "`compile` of an `MDM` takes no loss and no metrics: it has the losses "
                "of its levels, chosen by `loss_target` and `loss_weighting` of `MDM` "
                f"and by `loss_weights` here. Received: {others}"
            )
        self.turns.check_between_steps("compile")
        backend.check_devices(self)
        self._compile_arguments = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        self._loss_arguments = {
            "loss_weights": loss_weights,
            "mixed_resolution": mixed_resolution,
        }
        active = self.resolutions
        self.level_weights = losses.level_weights(loss_weights, active, self.schedule)
        self.mixed_fractions = losses.mixed_fractions(mixed_resolution, active)
        ratios = {level: self.process.ratios[level] for level in active}
        flaw = self.schedule.describe_ends(ratios)
        if flaw:
            warnings.warn(flaw, stacklevel=2)
        optimizer = get_optimizer(
            optimizer, self.network, auto_scale_loss, self.ema is not None
        )
        super().compile(optimizer=optimizer, **self._compile_arguments)
        # Variables made in the first step would make TensorFlow trace it twice.
        self.optimizer.build(self.trainable_variables)
        self._compiled_for = {v.path for v in self.trainable_variables}

    def train_step(self, *args):
        step = super().train_step
        return backend.run_step(self, step, args, self._training_data, self._end_step)

    def test_step(self, *args):
        self._thread.evaluates = True
        try:
            step = super().test_step
            return backend.run_step(self, step, args, self._evaluation_data)
        finally:
            self._thread.evaluates = False

    def _training_data(self, data):
        """Noisy levels and targets of a training batch, some conditions dropped."""
        batch, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        seed = self.seed_generator
        timesteps, noises = self.process.draw(
            pictures_of(batch), self.resolutions, self.mixed_fractions, seed
        )
        inputs, targets = self.diffuse(batch, noises, timesteps)
        if self.network.conditioner is not None and self.condition_dropout > 0:
            chance = keras.random.uniform(
                ops.shape(timesteps), dtype="float32", seed=seed
            )
            inputs["condition_drop"] = chance < self.condition_dropout
        return inputs, targets, sample_weight

    def _evaluation_data(self, data):
        """Noisy levels and targets whose noise is the same at every evaluation."""
        batch, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        size = ops.shape(pictures_of(batch))[0]
        timesteps, noises = self.process.draw_fixed(
            size, self.evaluated_samples, self.resolutions
        )
        self.evaluated_samples.assign(self.evaluated_samples + size)
        inputs, targets = self.diffuse(batch, noises, timesteps)
        return inputs, targets, sample_weight

    def diffuse(self, batch, noises, timesteps):
        """What the network sees of a batch of clean pictures, and what it should say.

        Args:
            batch: dict with `images` or `videos`, and the condition's features.
            noises: List of noise for each of `resolutions`.
            timesteps: int32 tensor of shape `(batch,)`.

        Returns:
            A pair: inputs of `call`, and what `Process.diffuse` returns.
        """
        levels = self.process.diffuse(
            pictures_of(batch), noises, timesteps, self.resolutions
        )
        inputs = {k: v for k, v in batch.items() if k not in ("images", "videos")}
        inputs["images"] = [level["x_t"] for level in levels]
        inputs["timesteps"] = timesteps
        return inputs, levels

    def call(self, inputs, training=False):
        network, weights = self.active_network, contextlib.nullcontext()
        if self.ema is not None and getattr(self._thread, "evaluates", False):
            weights = self.ema.in_place()
        with weights:
            outputs = backend.in_halves(
                lambda inputs: network(inputs, training=training),
                (inputs,),
                self.jit_compile,
            )
        return [self.limit(output) for output in outputs]

    def limit(self, output):
        """Bounds a raw prediction to plus or minus `output_limit`, if there is one."""
        if self.output_limit is None:
            return output
        return ops.tanh(output / self.output_limit) * self.output_limit

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Sum over resolutions of the weighted mean squared error.

        The loss of a resolution that only some samples of a mixed batch reach is the
        mean over these ([Gu et al., 2023](https://arxiv.org/abs/2310.15111), 3.3).
        """
        total = 0.0
        for resolution, level, value in zip(self.resolutions, y, y_pred, strict=True):
            errors = self.process.errors(level, value)
            count = ops.shape(errors)[0]
            if sample_weight is not None:
                errors = errors * first(sample_weight, errors.shape[0])
            if training:
                number = self.network.levels.index(resolution)
                factors = level["alpha"], level["sigma"]
                self.monitor.update_state(number, *factors, errors)
            loss = ops.sum(errors) / ops.cast(count, "float32")
            # An epoch's mean over samples, whatever the sizes of its batches.
            tracked = loss, ops.cast(count, "float32")
            if training:
                # The update is skipped, and one such step must not hide the others.
                tracked = [ops.where(ops.isfinite(loss), x, 0.0) for x in tracked]
            self.loss_trackers[resolution].update_state(*tracked)
            total = total + self.level_weights[resolution] * loss
        if training:
            self.monitor.last.assign(total)
        return total

    get_metrics_result = reported.get_metrics_result
    metrics = property(reported.metrics)
    metrics_names = property(reported.metrics_names)

    def _end_step(self):
        moved = backend.has_stepped(self.optimizer)
        step = backend.steps_taken(self.optimizer)
        self.monitor.end_step(step, backend.inner_optimizer(self.optimizer), moved)
        for average in self.all_averages():
            average.update(
                self.active_network.variables,
                moved,
                active_levels.trained_numbers(self.network, self.level_weights),
                average is self.ema and backend.schedule_free_averages(self.optimizer),
            )

    # === The moving averages ===

    def all_averages(self):
        """List of the moving average, if there is one, and `power_averages`."""
        return [*([] if self.ema is None else [self.ema]), *self.power_averages]

    def reset_ema(self):
        """Begins the moving averages anew, from the network's weights as they are.

        Weights that were loaded or set reach them by themselves, with a warning.
        """
        for average in self.all_averages():
            average.reset()

    load_average = in_turn(average_snapshots.load_average)

    @reading
    def averaged_weights(self):
        """The averaged weights of the network, for `set_weights` of one like it.

        Returns:
            List of arrays in the order of `network.get_weights()`; the network's own
            weights if the model keeps no average.
        """
        if self.ema is None:
            return self.network.get_weights()
        self.ema.follow()
        return [backend.to_numpy(average) for average in self.ema.averages]

    # === Data in ===

    @property
    def batch_spec(self):
        """What batches of `fit` and `evaluate` must look like; see `BatchSpec`."""
        return BatchSpec.of(self.active_network)

    @property
    def text_encoder(self):
        """Encoder of texts for a model on embeddings; see `TextEmbeddings.encoder`.

        It is no part of the model: it is not trained, not saved, and must be set again
        after loading. `None` if there is none.
        """
        return getattr(self.network.conditioner, "encoder", None)

    @text_encoder.setter
    def text_encoder(self, encoder):
        conditioner = self.network.conditioner
        if not hasattr(conditioner, "encoder"):
            raise ValueError(
                "`text_encoder` is for models whose conditioner is `TextEmbeddings`. "
                f"This one has {type(conditioner).__name__}."
            )
        conditioner.encoder = encoder

    fit = entry.fit
    evaluate = entry.evaluate
    train_on_batch = entry.train_on_batch
    test_on_batch = entry.test_on_batch
    predict = predict_on_batch = entry.predict
    export = entry.export

    # === Pictures and files out ===

    generate = reading(generate)
    save_to_preset = reading(presets.save_to_preset)
    from_preset = classmethod(presets.from_preset)
    builtin_presets = staticmethod(presets.builtin_presets)
    load_weights = in_turn(transfer.load_weights)
    get_weights = reading(keras_files.get_weights)
    set_weights = in_turn(keras.Model.set_weights)
    save = reading(keras_files.save)
    save_weights = reading(keras_files.save_weights)
    get_config = keras_files.get_config
    from_config = classmethod(keras_files.from_config)
    get_compile_config = keras_files.get_compile_config
    compile_from_config = keras_files.compile_from_config
    save_own_variables = keras_files.save_own_variables
    load_own_variables = keras_files.load_own_variables

    def __dir__(self):
        # Keras would save the network's weights under this name, at another place of
        # the file at each resolution; see `Denoiser.__dir__`.
        return [name for name in super().__dir__() if name != "active_network"]
