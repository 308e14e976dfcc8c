"""MDM: the model that users train and draw with.

It joins a network, a noise schedule, the multi-resolution loss and a moving average.
`train_step` turns a batch into noisy levels and targets, then leaves the step to
Keras, so gradient accumulation, loss scaling, sharding and `train_on_batch` are
Keras' own. What takes part is in `active_dolls`, the methods that take data in
`entry_points`, drawing in `generate`, saving in `presets`,
loading weights of other models in `transfer`.
"""

import contextlib
import math
import threading
import warnings

import keras
from keras import ops

from keras_mdm import backend
from keras_mdm.diffusion import losses, predictions
from keras_mdm.diffusion.pyramid import FRAME_POOLINGS
from keras_mdm.diffusion.schedules import NoiseSchedule
from keras_mdm.model import compile_config, presets, transfer
from keras_mdm.model.active_dolls import ActiveDolls
from keras_mdm.model.batches import pictures_of
from keras_mdm.model.ema import ExponentialMovingAverage
from keras_mdm.model.entry_points import EntryPoints
from keras_mdm.model.generate import generate
from keras_mdm.model.loss_scaling import with_scaled_loss
from keras_mdm.model.objective import Objective
from keras_mdm.model.optimizer import AdamW
from keras_mdm.model.sampling_defaults import SamplingDefaults
from keras_mdm.model.turns import Turns, in_turn, reading
from keras_mdm.networks import DenoisingNetwork
from keras_mdm.networks.base import first, serialize


@keras.saving.register_keras_serializable("keras_mdm")
class MDM(EntryPoints, ActiveDolls, backend.KeptState, keras.Model):
    """Matryoshka diffusion model: denoises several resolutions of a picture jointly.

    Args:
        network: `UNet`, `NestedUNet` or `InflatedUNet`.
        schedule: str or `NoiseSchedule`. `"squared_cosine"` (default), `"cosine"`,
            `"linear"` or `"sigmoid"`: 1000 timesteps, shifted by each resolution's
            ratio to the smallest one.
        prediction: str. What the network predicts: `"v"` (default), `"epsilon"` or
            `"x0"`.
        loss_target: str or `None`. On what the squared error is taken: `"v"`,
            `"epsilon"` or `"x0"`. Defaults to `None`: the same as `prediction`.
        loss_weighting: str. Weight of each noise level: `"uniform"` (default),
            `"snr"`, `"min_snr"`, `"sigmoid"` or `"vdm"`.
        frame_pooling: str. Which frames of a clip a level with fewer frames has:
            `"first"` (default) of every group of neighbours, or their `"average"`.
        condition_dropout: float in [0, 1]. Share of the training samples whose
            condition is dropped, which guidance needs. Defaults to 0.1.
        output_limit: float or `None`. Predictions are bounded smoothly to plus or
            minus this by `tanh`. Defaults to `None`: not bounded.
        ema_momentum: float or `None`. Momentum of the moving average of the weights,
            which `evaluate`, `generate` and saved presets use. Defaults to 0.9999.
            `None` keeps none.
        ema_warmup: bool. Whether the momentum of update n is at most
            `(1 + n) / (10 + n)`. Defaults to `True`.
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
        schedule="squared_cosine",
        prediction="v",
        loss_target=None,
        loss_weighting="uniform",
        frame_pooling="first",
        condition_dropout=0.1,
        output_limit=None,
        ema_momentum=0.9999,
        ema_warmup=True,
        sampling=None,
        seed=None,
        name="mdm",
    ):
        # Clean pictures, noise, timesteps and targets stay float32.
        super().__init__(autocast=False, dtype="float32", name=name)
        if not isinstance(network, DenoisingNetwork):
            raise ValueError(
                "`network` must be a `UNet`, `NestedUNet` or `InflatedUNet`. "
                f"Received: network={network!r} (of type {type(network).__name__})"
            )
        predictions.check_prediction("prediction", prediction)
        loss_target = loss_target or prediction
        predictions.check_prediction("loss_target", loss_target)
        if prediction != "x0" and network.predicts_residuals:
            raise ValueError(
                "a network with `residual_prediction=True` must have `prediction='x0'`:"
                " no other prediction resembles that of a smaller resolution. "
                f"Received: prediction={prediction!r}"
            )
        if frame_pooling not in FRAME_POOLINGS:
            raise ValueError(
                f"`frame_pooling` must be one of {FRAME_POOLINGS}. "
                f"Received: frame_pooling={frame_pooling!r}"
            )
        if not 0.0 <= condition_dropout <= 1.0:
            raise ValueError(
                "`condition_dropout` must be from 0 to 1. "
                f"Received: condition_dropout={condition_dropout}"
            )
        if output_limit is not None and not 0.0 < output_limit < math.inf:
            raise ValueError(
                "`output_limit` must be above 0 and finite. "
                f"Received: output_limit={output_limit}"
            )
        if not isinstance(schedule, NoiseSchedule):
            schedule = NoiseSchedule(schedule)
        self._turns = Turns()
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.loss_target = loss_target
        self.loss_weighting = loss_weighting
        self.condition_dropout = condition_dropout
        self.output_limit = output_limit
        self.sampling = SamplingDefaults(**(sampling or {}))
        # Named, or else its variable has another path in the next model.
        self.seed_generator = keras.random.SeedGenerator(seed, name="seed_generator")
        self._seed = seed
        self.objective = Objective(
            schedule,
            prediction,
            loss_target,
            loss_weighting,
            network.resolutions,
            network.image_channels,
            frame_pooling,
        )
        self._loss_trackers = {
            resolution: keras.metrics.Mean(name=f"loss_{resolution}", dtype="float32")
            for resolution in network.resolutions
        }
        self.ema = None
        if ema_momentum is not None:
            owners = {
                id(variable): index
                for index, doll in enumerate(network.dolls)
                for layer in doll.own_layers
                for variable in layer.variables
            }
            levels = [owners[id(variable)] for variable in network.weights]
            self.ema = ExponentialMovingAverage(
                network.weights, ema_momentum, ema_warmup, levels
            )
        self._evaluated_samples = self.add_weight(
            shape=(), dtype="int32", trainable=False, name="evaluated_samples"
        )
        # What one thread evaluates is no matter of another that calls the model.
        self._thread = threading.local()
        self._resolution = network.level
        self._frozen_inner = False
        self._loss_arguments = {"loss_weights": None, "mixed_resolution": None}
        self._level_weights = None
        self._mixed_shares = None
        self._sampling_functions = {}
        self.built = True

    # === Training ===

    def compile(
        self,
        optimizer="auto",
        loss_weights=None,
        mixed_resolution=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
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
            mixed_resolution: Optional dict of resolution to its share of the batch:
                whole numbers are a ratio, `{64: 2, 32: 1}`; fractions must sum to 1.
                Samples of a smaller resolution do not pay for the dolls around it.
            run_eagerly, steps_per_execution, jit_compile: As in
                `keras.Model.compile`.
            auto_scale_loss: bool. Whether the loss is scaled where a layer of the
                network has the dtype policy `"mixed_float16"`, as
                `keras.Model.compile` does by the model's own.

        Raises:
            ValueError: if weights are kept in float16, which can't be trained.
        """
        backend.refuse_replicas(self)
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
        self._level_weights = losses.level_weights(
            loss_weights, self.resolutions, self.schedule
        )
        self._mixed_shares = losses.mixed_shares(mixed_resolution, self.resolutions)
        smallest = self.network.innermost.level
        flaw = self.schedule.describe_ends(
            {level: self.schedule.ratio(level, smallest) for level in self.resolutions}
        )
        if flaw:
            warnings.warn(flaw, stacklevel=2)
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = AdamW()
        optimizer = with_scaled_loss(optimizer, self.network, auto_scale_loss)
        super().compile(optimizer=optimizer, **self._compile_arguments)
        # Variables that are made in the first step would make TensorFlow trace the
        # step twice.
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=False):
        network = self.active_network
        weights = contextlib.nullcontext()
        if self.ema is not None and getattr(self._thread, "evaluates", False):
            weights = self.ema.lent()
        with weights:
            outputs = network(inputs, training=training)
        return [self.limit(output) for output in outputs]

    def limit(self, output):
        """Bounds a raw prediction to plus or minus `output_limit`, if there is one."""
        if self.output_limit is None:
            return output
        return ops.tanh(output / self.output_limit) * self.output_limit

    def diffuse(self, batch, noises, timesteps):
        """Noisy pictures and targets at the active resolutions.

        See `keras_mdm.model.objective.Objective.diffuse`.
        """
        return self.objective.diffuse(batch, noises, timesteps, self.resolutions)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Sum over resolutions of the weighted mean squared error.

        The loss of a resolution that only some samples of a mixed batch reach is the
        mean over these ([Gu et al., 2023](https://arxiv.org/abs/2310.15111), 3.3).
        """
        total = 0.0
        for resolution, level, value in zip(self.resolutions, y, y_pred, strict=True):
            errors = self.objective.errors(level, value)
            count = ops.shape(errors)[0]
            if sample_weight is not None:
                errors = errors * first(sample_weight, errors.shape[0])
            loss = ops.sum(errors) / ops.cast(count, "float32")
            # An epoch's mean over samples, whatever the sizes of its batches.
            self._loss_trackers[resolution].update_state(loss, sample_weight=count)
            total = total + self._level_weights[resolution] * loss
        return total

    def get_metrics_result(self):
        """Means since the last reset; `loss` is the weighted sum of the levels'.

        Keras calls it. Its own mean would weigh the levels of batches of several sizes
        other than each level's mean does.
        """
        results = super().get_metrics_result()
        if "loss" in results and self._level_weights is not None:
            results["loss"] = sum(
                self._level_weights[resolution] * results[f"loss_{resolution}"]
                for resolution in self.resolutions
            )
        return results

    @property
    def metrics(self):
        # Resolutions that do not take part would be logged as 0.
        idle = [
            tracker
            for resolution, tracker in self._loss_trackers.items()
            if resolution not in self.resolutions
        ]
        return [m for m in super().metrics if not any(m is other for other in idle)]

    def _training_data(self, data):
        """Noisy levels and targets of a training batch, some conditions dropped."""
        batch, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        seed = self.seed_generator
        timesteps, noises = self.objective.draw(
            batch, self.resolutions, self._mixed_shares, seed
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
        timesteps, noises = self.objective.draw_fixed(
            size, self._evaluated_samples, self.resolutions
        )
        self._evaluated_samples.assign(self._evaluated_samples + size)
        inputs, targets = self.diffuse(batch, noises, timesteps)
        return inputs, targets, sample_weight

    def train_step(self, *args):
        if backend.name() == "jax":
            state, data = args
            data, state = backend.run_stateless(
                self, state, lambda: self._training_data(data)
            )
            logs, state = super().train_step(state, data)
            if self.ema is not None:
                _, state = backend.run_stateless(
                    self, state, self._update_ema, with_optimizer=True
                )
            return logs, state
        logs = super().train_step(self._training_data(*args))
        if self.ema is not None:
            self._update_ema()
        return logs

    def test_step(self, *args):
        self._thread.evaluates = True
        try:
            if backend.name() == "jax":
                state, data = args
                data, state = backend.run_stateless(
                    self, state, lambda: self._evaluation_data(data)
                )
                return super().test_step(state, data)
            return super().test_step(self._evaluation_data(*args))
        finally:
            self._thread.evaluates = False

    def _update_ema(self):
        moved = True
        # Of a `LossScaleOptimizer`, the one inside counts.
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        every = optimizer.gradient_accumulation_steps
        if every:
            moved = ops.equal(optimizer._iterations % every, 0)
        # Dolls around the largest one whose loss counts, and frozen ones, do not begin.
        largest = next(r for r, weight in self._level_weights.items() if weight > 0)
        start = self.network.resolutions.index(largest)
        trained = [
            level
            for level, doll in enumerate(self.network.dolls)
            if level >= start
            and any(layer.trainable_variables for layer in doll.own_layers)
        ]
        self.ema.update(self.active_network.variables, moved, trained)

    # === The moving average ===

    def reset_ema(self):
        """Begins the moving average anew, from the network's weights as they are.

        Weights that were loaded or set since the last training reach the average
        without it, with a warning if that average had been trained.
        """
        if self.ema is not None:
            self.ema.reset()

    @reading
    def averaged_weights(self):
        """The averaged weights of the network, for `set_weights` of one like it.

        Returns:
            List of arrays in the order of `network.get_weights()`; the network's own
            weights if the model keeps no average.

        Example:

        ```python
        other.network.set_weights(mdm.averaged_weights())
        other.network.save_weights("averaged.weights.h5")
        ```
        """
        if self.ema is None:
            return self.network.get_weights()
        self.ema.follow()
        return [ops.convert_to_numpy(average.value) for average in self.ema.averages]

    # === Drawing, saving ===

    generate = reading(generate)
    save_to_preset = reading(presets.save_to_preset)
    from_preset = classmethod(presets.from_preset)
    builtin_presets = staticmethod(presets.builtin_presets)
    load_weights = in_turn(transfer.load_weights)

    get_compile_config = compile_config.get_compile_config
    compile_from_config = compile_config.compile_from_config
    save_own_variables = compile_config.save_own_variables
    load_own_variables = compile_config.load_own_variables

    def get_config(self):
        return {
            "network": serialize(self.network),
            "schedule": self.schedule.get_config(),
            "prediction": self.prediction,
            "loss_target": self.loss_target,
            "loss_weighting": self.loss_weighting,
            "frame_pooling": self.objective.frame_pooling,
            "condition_dropout": self.condition_dropout,
            "output_limit": self.output_limit,
            "ema_momentum": self.ema.momentum if self.ema else None,
            "ema_warmup": self.ema.warmup if self.ema else True,
            "sampling": self.sampling.get_config(),
            "seed": self._seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        config["schedule"] = NoiseSchedule(**config["schedule"])
        return cls(**config)
