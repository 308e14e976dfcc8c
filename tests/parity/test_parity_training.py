"""Five training steps as recorded: loss, gradient norm, weights and moving average.

`train_on_batch` takes the steps; only the random draws of timesteps and noise are
replaced by the recorded ones.
"""

import keras
import numpy as np
import pytest
from keras import ops
from probe import to_numpy
from recorded import PREDICTIONS, Case, cases, to_ours

import keras_mdm
from keras_mdm.convert.ml_mdm import TO_TORCH, named_variables

# Steps of Adam divide a gradient by its own size, so a gradient that is zero but for
# rounding moves its weight by as much as any other. Below this share of the largest
# gradient the recorded weights are not defined.
DEFINED_GRADIENT = 1e-6


class RecordedMDM(keras_mdm.MDM):
    """Takes timesteps and noise from the batch instead of drawing them."""

    def _training_data(self, data):
        batch, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = dict(batch)
        timesteps = batch.pop("recorded_timesteps")
        noises = [
            batch.pop(f"recorded_noise_{resolution}") for resolution in self.resolutions
        ]
        inputs, targets = self.diffuse(batch, noises, timesteps)
        return inputs, targets, sample_weight


def _like_torch(optimizer):
    """A class of optimizer that keeps the norm of the gradients before clipping.

    Keras adds epsilon before the correction of the second moment's bias, PyTorch after
    it; here it is added as PyTorch does.
    """

    class Recording(optimizer):
        @property
        def epsilon(self):
            count = ops.cast(self.iterations + 1, "float32")
            return self._epsilon * ops.sqrt(1.0 - ops.power(self.beta_2, count))

        @epsilon.setter
        def epsilon(self, value):
            self._epsilon = value

        def build(self, variables):
            super().build(variables)
            self.norm = self.add_variable((), name="norm")

        def _clip_gradients(self, gradients):
            squares = [ops.sum(ops.square(g)) for g in gradients]
            self.norm.assign(ops.sqrt(sum(squares)))
            return super()._clip_gradients(gradients)

    return Recording


def _batch(case, step):
    prefix = f"step{step}_"
    batch = {
        "images": to_ours(case.inputs[f"{prefix}images"]),
        "recorded_timesteps": case.inputs[f"{prefix}times"].astype("int32"),
        **case.features(prefix=prefix),
    }
    for i, resolution in enumerate(case.resolutions):
        batch[f"recorded_noise_{resolution}"] = to_ours(case.inputs[f"{prefix}eps{i}"])
    return batch


def _model(case, run):
    config, sampler = case.sampler_config(run)
    options = run["optim"]
    mdm = RecordedMDM(
        case.network(),
        case.schedule(run),
        prediction=PREDICTIONS[sampler["prediction_type"]],
        loss_target=PREDICTIONS[sampler["loss_target_type"]],
        condition_dropout=0.0,
        ema_momentum=options["ema_decay"],
        ema_warmup=False,
    )
    optimizers = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    kwargs = {"weight_decay": 0.0} if options["name"] == "adamw" else {}
    optimizer = _like_torch(optimizers[options["name"]])(
        options["lr"], epsilon=1e-8, global_clipnorm=options["clip"], **kwargs
    )
    weights = [float(part) for part in config["multi_res_weights"].split(":")]
    mdm.compile(
        optimizer,
        loss_weights=dict(zip(case.resolutions, weights, strict=True)),
        # Few steps are faster eagerly, except on JAX.
        run_eagerly=keras.backend.backend() != "jax",
    )
    return mdm


def _values(mdm):
    """Weights and moving averages by official name, in the official layout."""
    averages = {
        id(source): average
        for source, average in zip(mdm.ema.sources, mdm.ema.averages, strict=True)
    }
    params, ema = {}, {}
    for name, variable, layout in named_variables(mdm.network):
        params[name] = TO_TORCH[layout](to_numpy(variable.value))
        ema[name] = TO_TORCH[layout](to_numpy(averages[id(variable)].value))
    return {"param": params, "ema": ema}


def _first_gradients(mdm):
    """Which elements have a gradient at all, from Adam's first moments."""
    layouts = {id(v): (name, to) for name, v, to in named_variables(mdm.network)}
    defined = {}
    moments = zip(
        mdm.optimizer._trainable_variables, mdm.optimizer._momentums, strict=True
    )
    for variable, moment in moments:
        name, layout = layouts[id(variable)]
        defined[name] = np.abs(TO_TORCH[layout](to_numpy(moment.value)))
    largest = max(m.max() for m in defined.values())
    return {k: m > DEFINED_GRADIENT * largest for k, m in defined.items()}


@pytest.mark.parametrize("name", cases("train"))
def test_parity_training(name):
    case = Case(name)
    for run in case.runs:
        mdm, key = _model(case, run), run["name"]
        losses, norms = [], []
        for step in range(case.config["steps"]):
            mdm.optimizer.learning_rate = case.outputs[f"{key}/lr"][step]
            logs = mdm.train_on_batch(_batch(case, step), return_dict=True)
            losses.append(logs["loss"])
            norms.append(to_numpy(mdm.optimizer.norm.value))
            mdm.reset_metrics()
            if step == 0:
                defined = _first_gradients(mdm)
            if step < run["optim"]["ema_warmup_steps"]:
                mdm.reset_ema()
            for kind, values in _values(mdm).items():
                prefix = f"{key}/step{step}_{kind}"
                names = [str(n) for n in case.outputs[f"{prefix}_names"]]
                flat = [values[name].astype("float64") for name in names]
                norm = [np.sqrt((v**2).sum()) for v in flat]
                case.check(norm, f"{prefix}_l2", f"{kind}_l2")
                case.check([v.sum() for v in flat], f"{prefix}_sum", f"{kind}_sum")
                if f"{prefix}_1d_names" in case.outputs:
                    case.check_vectors(values, f"{prefix}_1d", defined)
        case.check(losses, f"{key}/loss")
        key = f"{key}/grad_norm_before_clip"
        first, later = case.outputs[key][:1], case.outputs[key][1:]
        case.check(norms[:1], key, expected=first)
        case.check(norms[1:], key, "grad_norm_after_adam", expected=later)
