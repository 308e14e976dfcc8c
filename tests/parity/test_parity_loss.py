"""Noisy pictures, targets, losses and gradients as recorded.

The network is compiled once for each batch shape; `MDM.diffuse` and `MDM.compute_loss`
run as they are, on either side of it, and gradients follow by the chain rule.
"""

import keras
import numpy as np
import pytest
from keras import ops
from probe import Probe, gradients, to_numpy, to_tensors
from recorded import PREDICTIONS, Case, cases, to_clips, to_theirs

import keras_mdm
from keras_mdm.diffusion import losses


def _ratio(network, text):
    """`"4:1"` as a dict by resolution, largest first."""
    numbers = [float(part) for part in text.split(":")]
    return dict(zip(network.levels, numbers, strict=True))


def _compile_options(network, config):
    """Weights of the resolutions and shares of a mixed batch."""
    options = {}
    if config.get("multi_res_weights"):
        options["loss_weights"] = _ratio(network, config["multi_res_weights"])
    if not config.get("use_double_loss", True):
        options["loss_weights"] = {network.levels[0]: 1.0}
    if config.get("mixed_ratio"):
        options["mixed_resolution"] = _ratio(network, config["mixed_ratio"])
    return options


def _model(case, network, run):
    config, sampler = case.sampler_config(run)
    # A nested network of the official code ignores this option.
    limit = config.get("model_output_scale") if len(case.resolutions) == 1 else None
    mdm = keras_mdm.MDM(
        network,
        case.schedule(run),
        prediction=PREDICTIONS[sampler["prediction_type"]],
        loss_target=PREDICTIONS[sampler["loss_target_type"]],
        loss_weighting="vdm" if config["use_vdm_loss_weights"] else "uniform",
        output_limit=limit or None,
        ema_momentum=None,
    )
    mdm.compile(optimizer=keras.optimizers.SGD(), **_compile_options(network, config))
    return mdm


def _check_levels(case, run, mdm, levels, raw, times):
    """Everything that is recorded for each resolution."""
    for i, resolution in enumerate(mdm.resolutions):
        level, key = levels[i], f"{run['name']}/{{}}{i}"
        limited = mdm.limit(raw[i])
        converted = mdm.process.convert(
            limited,
            mdm.process.loss_target,
            level["x_t"],
            level["alpha"],
            level["sigma"],
        )
        arrays = {
            "x_t": level["x_t"],
            "pred": limited,
            "pred_loss": converted,
            "tgt": level["target"],
        }
        arrays["gamma"] = ops.square(ops.reshape(level["alpha"], (-1,)))
        for kind, value in to_numpy(arrays).items():
            # Samples that a resolution leaves out were recorded with the others.
            expected = case.outputs[key.format(kind)][: len(value)]
            case.check(to_theirs(value), key.format(kind), expected=expected)
        ratio = mdm.schedule.ratio(resolution, mdm.resolutions[-1])
        gamma = mdm.schedule.alphas_cumprod(ratio)
        case.check(gamma[times + 1], key.format("gamma"))
        case.check(gamma[times], key.format("gamma_last"))


def _counts(mdm, size):
    """Samples of each resolution."""
    if mdm.mixed_fractions is None:
        return [size] * len(mdm.resolutions)
    return losses.mixed_batch_sizes(mdm.mixed_fractions, size)


def _limited(mdm, raw):
    return [mdm.limit(output) for output in raw]


def _check_loss(case, run, mdm, levels, raw):
    """The loss, and that of each sample: all the weight of a batch on one of them."""
    size = len(raw[-1])
    limited = _limited(mdm, to_tensors(raw))
    loss = mdm.compute_loss(y=levels, y_pred=limited)
    case.check(to_numpy(loss), f"{run['name']}/loss")
    single = [
        to_numpy(
            mdm.compute_loss(
                y=levels,
                y_pred=limited,
                sample_weight=to_tensors(size * np.eye(size, dtype="float32")[i]),
            )
        )
        for i in range(size)
    ]
    key = f"{run['name']}/losses"
    expected = case.outputs[key]
    if mdm.loss_weighting == "vdm":
        # The recorded ones are not weighted yet.
        weights = case.outputs[f"{run['name']}/vdm_weights"]
        expected = expected * weights / weights.mean()
    case.check(single, key, expected=expected)


def _pulled_to_predictions(mdm, levels, raw):
    """Gradients of the loss with respect to what the network said."""
    variables = [keras.Variable(output) for output in raw]

    def loss():
        limited = _limited(mdm, [variable.value for variable in variables])
        return [mdm.compute_loss(y=levels, y_pred=limited)], None

    one = [np.ones((), "float32")]
    _, _, found = gradients(loss, variables)((), to_tensors(one))
    return to_numpy(found)


@pytest.mark.parametrize("name", cases("loss"))
def test_parity_loss(name):
    case = Case(name)
    network = case.network()
    probe = Probe(network)
    for run in case.runs:
        mdm = _model(case, network, run)
        times = np.array(run.get("times", case.inputs["times"]))
        if mdm.loss_weighting == "vdm":
            # The official code divides a batch by the mean of its own weights.
            for table in mdm.process.tables.values():
                table["weight"] = table["weight"] / table["weight"][times].mean()
        frames = [part.frames for part in network.networks]
        noises = [
            to_clips(case.inputs[f"eps{i}"], frames[i])[:count]
            for i, count in enumerate(_counts(mdm, len(times)))
        ]
        pictures = to_clips(case.inputs["images"], frames[0])
        key = "images" if frames[0] == 1 else "videos"
        batch = {key: pictures, **case.features()}
        inputs, levels = mdm.diffuse(
            to_tensors(batch), to_tensors(noises), to_tensors(times.astype("int32"))
        )
        raw, _ = probe.forward(inputs)
        _check_levels(case, run, mdm, levels, to_tensors(raw), times)

        _check_loss(case, run, mdm, levels, raw)
        cotangents = _pulled_to_predictions(mdm, levels, raw)
        _, _, found = probe.pull(inputs, cotangents)
        case.check_gradients(found, run["name"])
