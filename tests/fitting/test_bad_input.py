"""Mistakes in data and options are found before any training step, and named."""

import keras
import numpy as np
import pytest
from helpers import batch_of, lean_nest, tiny_mdm

import keras_mdm


@pytest.fixture(scope="module")
def mdm():
    """A compiled model whose steps must not be reached."""
    mdm = tiny_mdm(network=lean_nest(2, resolution=4))
    mdm.compile("sgd")

    def reached(*args, **kwargs):
        raise AssertionError("a step was reached")

    mdm.train_step = mdm.test_step = reached
    return mdm


def _batch(**changes):
    batch = {**batch_of(4, 8), **changes}
    return {key: value for key, value in batch.items() if value is not None}


def _floats(value):
    images = np.zeros((4, 8, 8, 1), "float32")
    images[1, 2, 3] = value
    return images


MISTAKES = [
    ({"images": batch_of(4, 16)["images"]}, r"shape \(batch, 8, 8, 1\).*\(4, 16, 16"),
    ({"images": batch_of(4, 8)["images"][0]}, r"shape \(batch, 8, 8, 1\)"),
    ({"images": batch_of(4, 8, channels=3)["images"]}, r"Received: shape=.*8, 3\)"),
    ({"images": batch_of(4, 8)["images"].astype("int64")}, "uint8 .*dtype=int64"),
    ({"images": _floats(255.0)}, r"in \[-1, 1\].*from 0 to 255"),
    ({"images": _floats(-1.5)}, r"in \[-1, 1\].*from -1.5 to 0"),
    ({"images": _floats(np.nan)}, r"in \[-1, 1\].*nan"),
    ({"images": None}, "the key 'images'"),
    ({"labels": None}, r"lacks \['labels'\]"),
    ({"labels": np.array([0, 1, 2, 3])}, "'labels' must be from 0 to 2.*0 to 3"),
    ({"labels": np.array([0, 1, 2, -1])}, "'labels' must be from 0 to 2"),
    ({"labels": np.zeros(4, "float32")}, "'labels' must be whole numbers"),
    ({"labels": np.eye(4, 3, dtype="int32")}, r"'labels' .*shape \(batch,\)"),
    ({"labels": np.array([0, 1])}, "'labels' has 2 entries for 4 images"),
]


def _roads(mdm, batch):
    """Every way in which a batch may come to the model."""

    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (batch,)

    return {
        "arrays": lambda: mdm.fit(batch, verbose=0),
        "generator": lambda: mdm.fit(iter([batch]), verbose=0),
        "dataset": lambda: mdm.fit(Pairs(), verbose=0),
        "train_on_batch": lambda: mdm.train_on_batch(batch),
        "evaluate": lambda: mdm.evaluate(batch, verbose=0),
        "test_on_batch": lambda: mdm.test_on_batch(batch),
        "validation": lambda: mdm.fit(_batch(), validation_data=batch, verbose=0),
    }


@pytest.mark.parametrize(("changes", "words"), MISTAKES)
def test_batches(mdm, changes, words):
    for road, call in _roads(mdm, _batch(**changes)).items():
        try:
            call()
        except ValueError as error:
            with pytest.raises(ValueError, match=words):
                raise error
        else:
            pytest.fail(f"{road} took the batch")


@pytest.mark.parametrize("road", ["fit", "evaluate", "train_on_batch"])
def test_targets(mdm, road):
    with pytest.raises(ValueError, match="`y` must be None.*of type ndarray"):
        getattr(mdm, road)(_batch(), np.zeros(4))


def test_not_a_dict(mdm):
    with pytest.raises(ValueError, match="must be a dict with the key 'images'"):
        mdm.fit(batch_of(4, 8)["images"], verbose=0)


@pytest.mark.parametrize(
    "data",
    [
        lambda: iter([]),
        lambda: [],
        lambda: batch_of(0, 8),
    ],
    ids=["generator", "list", "arrays"],
)
def test_empty(mdm, data):
    with pytest.raises(ValueError, match="empty|has no batch"):
        mdm.fit(data(), verbose=0)


def test_not_compiled():
    with pytest.raises(ValueError, match="compile"):
        tiny_mdm(1, resolution=4).fit(batch_of(4, 4), verbose=0)


def test_mixed_batch_too_small(mdm):
    other = tiny_mdm(network=mdm.network)
    other.compile("sgd", mixed_resolution={8: 1, 4: 9})
    with pytest.raises(ValueError, match="too small for its mixed fractions.*size=4"):
        other.fit(_batch(), batch_size=4, verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixed_resolution": {8: 0.5, 4: 0.4}}, "sum to 1.*sum is 0.9"),
        ({"mixed_resolution": {4: 1}}, "above 0 for the largest resolution 8"),
        ({"mixed_resolution": {8: 2, 4: -1}}, "`mixed_resolution` must be"),
        ({"mixed_resolution": {16: 1, 8: 1}}, r"`mixed_resolution`.*\(8, 4\)"),
        ({"loss_weights": {16: 1}}, r"`loss_weights`.*\(8, 4\) as keys"),
        ({"loss_weights": {}}, r"`loss_weights`.*\(8, 4\) as keys"),
        ({"loss_weights": {8: -1}}, "`loss_weights` must be at least 0"),
        ({"loss_weights": {8: 0}}, "`loss_weights` must be at least 0"),
    ],
)
def test_compile_options(options, words):
    with pytest.raises(ValueError, match=words):
        tiny_mdm(network=lean_nest(2, classes=0, resolution=4)).compile(**options)


@pytest.mark.parametrize("option", ["loss", "metrics"])
def test_compile_has_no_loss_or_metrics(option):
    with pytest.raises(ValueError, match=f"no loss and no metrics.*'{option}'"):
        tiny_mdm(1, resolution=4).compile("sgd", **{option: "mse"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": "unet"}, "`network` must be a `Denoiser`.*type str"),
        ({"schedule": "flat"}, "`schedule` must be one of .*'flat'"),
        ({"prediction": "noise"}, "`prediction` must be one of .*'noise'"),
        ({"loss_target": "noise"}, "`loss_target` must be one of .*'noise'"),
        ({"loss_weighting": "flat"}, "`loss_weighting` must be one of .*'flat'"),
        ({"condition_dropout": 1.5}, "`condition_dropout` must be from 0 to 1"),
        ({"output_limit": 0}, "`output_limit` must be above 0"),
        ({"ema_momentum": 1.0}, "`ema_momentum` must be at least 0 and below 1"),
        ({"sampling": {"sampler": "euler"}}, "`sampler` must be one of"),
        ({"sampling": {"threshold": "clip"}}, "`threshold` must be one of"),
    ],
)
def test_model_options(options, words):
    with pytest.raises(ValueError, match=words):
        keras_mdm.MDM(**{"network": lean_nest(1, resolution=4), **options})


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_what_is_frozen_after_compile_asks_for_it_again(method):
    mdm = tiny_mdm(network=lean_nest(2, resolution=4))
    mdm.compile("sgd")
    mdm.network.inner.trainable = False
    with pytest.raises(ValueError, match=r"lean_4/.*again before `" + method):
        getattr(mdm, method)(batch_of(4, 8))
    mdm.network.inner.trainable = True
    mdm.network.trainable = False
    with pytest.raises(ValueError, match="weights were frozen"):
        getattr(mdm, method)(batch_of(4, 8))
