"""Logged losses are means over samples, whatever the sizes of the batches."""

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    lean_nest,
    randomize,
    to_numpy,
    trainer,
)

from keras_mdm.diffusion.noise import sample_noise

pytestmark = pytest.mark.usefixtures("eager_functions")

WEIGHTS = {8: 2.0, 4: 0.5}
DATA = batch_of(6, 8)
SAMPLE_WEIGHT = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0], "float32")


def _parts(sizes, data=DATA, weight=None):
    """Batches of given sizes, one after the other."""
    edges = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    batches = [{k: v[rows] for k, v in data.items()} for rows in parts]
    if weight is None:
        return batches
    return [
        (batch, None, weight[rows]) for batch, rows in zip(batches, parts, strict=True)
    ]


def _errors(mdm, data=DATA):
    """Error of each sample at each resolution in `evaluate`, one by one."""
    found = {resolution: [] for resolution in mdm.resolutions}
    for place in range(len(data["images"])):
        one = {k: keras.ops.convert_to_tensor(v[[place]]) for k, v in data.items()}
        timesteps, noises = mdm.process.draw_fixed(1, place, mdm.resolutions)
        inputs, levels = mdm.diffuse(one, noises, timesteps)
        for resolution, level, value in zip(
            mdm.resolutions, levels, mdm(inputs), strict=True
        ):
            error = to_numpy(value) - to_numpy(level["target"])
            weight = to_numpy(level["weight"])[0]
            found[resolution].append(np.mean(np.square(error)) * weight)
    return {resolution: np.array(errors) for resolution, errors in found.items()}


def _expected(errors, weight=1.0, weights=WEIGHTS):
    means = {f"loss_{r}": float(np.mean(e * weight)) for r, e in errors.items()}
    return {"loss": sum(weights[r] * means[f"loss_{r}"] for r in errors), **means}


@pytest.fixture(scope="module", params=[1, 2], ids=["one step", "two steps a call"])
def mdm(request):
    options = {"loss_weights": WEIGHTS, "steps_per_execution": request.param}
    mdm = trainer(compile_options=options)
    randomize(mdm.network)
    mdm.reset_ema()
    return mdm


@pytest.mark.parametrize("weight", [None, SAMPLE_WEIGHT], ids=["even", "weighted"])
def test_evaluate(mdm, weight):
    expected = _expected(_errors(mdm), 1.0 if weight is None else weight)
    for size in (2, 4, 6, 32):
        found = mdm.evaluate(
            DATA, batch_size=size, sample_weight=weight, return_dict=True, verbose=0
        )
        assert found == pytest.approx(expected, rel=1e-4), size
    for sizes in ((2, 4), (4, 2), (2, 2, 2)):
        found = mdm.evaluate(_parts(sizes, weight=weight), return_dict=True, verbose=0)
        assert found == pytest.approx(expected, rel=1e-4), sizes
    found = mdm.evaluate(DATA, batch_size=4, sample_weight=weight, verbose=0)
    assert found == pytest.approx(list(expected.values()), rel=1e-4)


@pytest.mark.parametrize("weight", [None, SAMPLE_WEIGHT], ids=["even", "weighted"])
def test_validation(mdm, weight):
    """After an epoch whose updates change nothing: the same values again."""
    mdm.optimizer.learning_rate = 0.0
    start = mdm.network.get_weights()
    expected = _expected(_errors(mdm), 1.0 if weight is None else weight)
    for size in (4, None):
        validation = (DATA, None, weight) if size else _parts((4, 2), weight=weight)
        history = mdm.fit(
            batch_of(4, 8),
            batch_size=4,
            validation_data=validation,
            validation_batch_size=size,
            verbose=0,
        ).history
        mdm.network.set_weights(start)
        found = {key: history[f"val_{key}"][0] for key in expected}
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weighting", ["uniform", "vdm"])
def test_one_level(weighting):
    """Where there is one resolution, its loss is the loss; and weights of noise levels
    are not those that a batch happens to have."""
    mdm = trainer(randomize(lean_nest(1, resolution=4)), loss_weighting=weighting)
    mdm.reset_ema()
    data = batch_of(6, 4)
    expected = _expected(_errors(mdm, data), weights={4: 1.0})
    for size in (1, 2, 4):
        found = mdm.evaluate(data, batch_size=size, return_dict=True, verbose=0)
        assert found == pytest.approx(expected, rel=1e-4)


def _fix_noise(mdm, counts_of):
    """Noise and timesteps that follow from the batch entry `place`."""

    def training_data(data):
        batch, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        place = batch["place"]
        noises = [
            sample_noise(place[:count], r, 0, (r, r, 1))
            for r, count in zip(mdm.resolutions, counts_of(place.shape[0]), strict=True)
        ]
        return *mdm.diffuse(batch, noises, place * 100 + 50), weight

    mdm._training_data = training_data
    return training_data


@pytest.mark.parametrize(
    ("mixed", "counts_of", "weight", "classes"),
    [
        (None, lambda size: [size, size], None, 3),
        ({8: 1, 4: 1}, lambda size: [size // 2, size], SAMPLE_WEIGHT, 3),
        ({8: 2, 4: 1}, lambda size: [2 * size // 3, size], None, 0),
    ],
    ids=["whole", "half, weighted", "two thirds, unconditional"],
)
def test_fit(mixed, counts_of, weight, classes):
    """Each level's mean is that over the samples which reach it."""
    options = {"loss_weights": WEIGHTS, "mixed_resolution": mixed}
    network = randomize(lean_nest(2, classes, resolution=4))
    optimizer = keras.optimizers.SGD(0.0)
    options["run_eagerly"] = keras.backend.backend() != "jax"
    mdm = trainer(network, optimizer, options, condition_dropout=0.0)
    training_data = _fix_noise(mdm, counts_of)
    data = {**batch_of(6, 8, classes=classes), "place": np.arange(6, dtype="int32")}
    for sizes in ((4, 2), (2, 4)):
        errors = {8: [], 4: []}
        for batch in _parts(sizes, data, np.ones(6) if weight is None else weight):
            tensors = {k: keras.ops.convert_to_tensor(v) for k, v in batch[0].items()}
            inputs, levels, _ = training_data((tensors,))
            for r, level, value in zip((8, 4), levels, mdm(inputs), strict=True):
                error = to_numpy(value) - to_numpy(level["target"])
                error = np.square(error).reshape(len(error), -1).mean(axis=1)
                errors[r] += list(error * batch[2][: len(error)])
        expected = _expected({r: np.array(e) for r, e in errors.items()})
        parts = _parts(sizes, data, weight)
        history = mdm.fit(parts, verbose=0).history
        found = {key: values[0] for key, values in history.items()}
        assert found == pytest.approx(expected, rel=1e-4), sizes
