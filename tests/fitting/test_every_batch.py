"""A bad batch anywhere, in any kind of data, is named and never reaches a step."""

import itertools
import os

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    randomize,
    run_python,
    tiny_mdm,
    tiny_nest,
    trainer,
    values_of,
)
from text_helpers import FakeEncoder, text_mdm, word_encoder

import keras_mdm
from keras_mdm.fitting.streams import PreparedData

GOOD = [batch_of(4, 8, seed=seed) for seed in range(3)]
BAD_LABEL = {**GOOD[2], "labels": np.array([0, 1, 99, 2], "int32")}
BAD = [GOOD[0], GOOD[1], BAD_LABEL]


class Pairs(keras.utils.PyDataset):
    """Batches of a list."""

    def __init__(self, batches, **options):
        super().__init__(**options)
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Rows:
    """Single entries of batches, for grain and torch."""

    def __init__(self, batches):
        self.rows = [
            {key: value[i] for key, value in batch.items()}
            for batch in batches
            for i in range(len(batch["images"]))
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def _joined(batches):
    return {
        key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
    }


def _tf_data(batches):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(_joined(batches)).batch(4)


def _tf_generator(batches):
    tf = pytest.importorskip("tensorflow")
    signature = {
        "images": tf.TensorSpec((None, 8, 8, 1), "uint8"),
        "labels": tf.TensorSpec((None,), "int32"),
    }
    return tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=signature
    ).prefetch(2)


def _grain_map(batches):
    import grain

    return grain.MapDataset.source(Rows(batches)).batch(4)


def _grain_loader(batches):
    import grain

    rows = Rows(batches)
    sampler = grain.samplers.IndexSampler(
        len(rows),
        shard_options=grain.sharding.NoSharding(),
        shuffle=False,
        num_epochs=1,
    )
    return grain.DataLoader(
        data_source=rows, sampler=sampler, operations=[grain.transforms.Batch(4)]
    )


def _torch(batches):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(Rows(batches), batch_size=4)


KINDS = {
    "list": list,
    "generator": lambda batches: (batch for batch in batches),
    "iterator": iter,
    "tuples": lambda batches: [(batch, None, np.ones(4)) for batch in batches],
    "PyDataset": Pairs,
    "PyDataset, threads": lambda batches: Pairs(batches, workers=2),
    "tf.data": _tf_data,
    "tf.data, generator": _tf_generator,
    "grain map": _grain_map,
    "grain iter": lambda batches: _grain_map(batches).to_iter_dataset(),
    "grain loader": _grain_loader,
    "torch": _torch,
}


@pytest.fixture(scope="module")
def model():
    """A trained model and its values, which `_fresh` gives back to it."""
    mdm = trainer()
    randomize(mdm.network)
    mdm.fit(Pairs(GOOD), verbose=0)
    mdm.evaluate(Pairs(GOOD), verbose=0)
    variables = mdm.variables + mdm.optimizer.variables
    return mdm, variables, values_of(variables)


@pytest.fixture
def mdm(model):
    mdm, variables, values = model
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return mdm


def _weights(mdm):
    values = values_of(mdm.network.variables)
    assert all(np.isfinite(value).all() for value in values)
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_training(mdm, kind):
    """The batches before the bad one have trained the model, and it goes on."""
    start = _weights(mdm)
    with pytest.raises(ValueError) as error:
        mdm.fit(KINDS[kind](BAD), shuffle=False, verbose=0)
    assert type(error.value) is ValueError
    assert str(error.value) == (
        "batch 2 of the training data (the first is 0): 'labels' must be from 0 to 2. "
        "Received: values from 0 to 99, such as 99 in entry 2"
    )
    assert int(mdm.optimizer.iterations) == 5  # 3 of the fixture, and 2.
    after = _weights(mdm)
    assert not equal_values(start, after)
    mdm.fit(KINDS[kind](GOOD), shuffle=False, verbose=0)
    assert not equal_values(after, _weights(mdm))


def test_weights_are_those_of_the_batches_before(model, mdm):
    with pytest.raises(ValueError, match="batch 2 of"):
        mdm.fit(BAD, verbose=0)
    found = values_of(mdm.network.variables + mdm.ema.averages)
    for variable, value in zip(*model[1:], strict=True):
        variable.assign(value)
    mdm.fit(GOOD[:2], verbose=0)
    assert equal_values(found, values_of(mdm.network.variables + mdm.ema.averages))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation(mdm, kind):
    start, averages = _weights(mdm), values_of(mdm.ema.averages)
    with pytest.raises(ValueError, match=r"^batch 2 of the evaluation data .*'labels'"):
        mdm.evaluate(KINDS[kind](BAD), verbose=0)
    assert equal_values(start, _weights(mdm))
    assert equal_values(averages, values_of(mdm.ema.averages))
    loss = mdm.evaluate(KINDS[kind](GOOD), verbose=0, return_dict=True)["loss"]
    expected = mdm.evaluate(_joined(GOOD), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_validation(mdm, kind):
    """It is told after the first epoch, which has trained the model."""
    with pytest.raises(ValueError, match=r"^batch 2 of the validation data .*'labels'"):
        mdm.fit(GOOD, validation_data=KINDS[kind](BAD), verbose=0)
    assert int(mdm.optimizer.iterations) == 6
    start = _weights(mdm)
    history = mdm.fit(GOOD, validation_data=KINDS[kind](GOOD), verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    assert not equal_values(start, _weights(mdm))


@pytest.mark.parametrize("kind", ["list", "generator", "PyDataset", "tf.data"])
def test_the_first_batch_is_told_before_anything(mdm, kind):
    class Told(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("training has begun")

    start = _weights(mdm)
    first = [BAD_LABEL, GOOD[0]]
    for options in (
        {"x": KINDS[kind](first)},
        {"x": GOOD, "validation_data": KINDS[kind](first)},
    ):
        with pytest.raises(ValueError, match="^batch 0 of the .* data"):
            mdm.fit(**options, callbacks=[Told()], verbose=0)
    assert equal_values(start, _weights(mdm))


class _LaterBad:
    """A list whose second batch is bad from the second reading on."""

    def __init__(self, readings=2):
        self.readings = -readings

    def __iter__(self):
        self.readings += 1
        return iter([GOOD[0], BAD_LABEL if self.readings > 0 else GOOD[1]])


def test_later_epochs(mdm):
    with pytest.raises(ValueError, match="^batch 1 of the training data"):
        mdm.fit(_LaterBad(), epochs=3, verbose=0)
    assert int(mdm.optimizer.iterations) == 3 + 2 + 1
    _weights(mdm)


def test_later_validations(mdm):
    with pytest.raises(ValueError, match="^batch 1 of the validation data"):
        mdm.fit(GOOD, validation_data=_LaterBad(), epochs=3, verbose=0)
    assert int(mdm.optimizer.iterations) == 3 + 6
    _weights(mdm)


def test_first_batch_of_a_later_epoch(mdm):
    batches = itertools.chain([GOOD[0], GOOD[1]], [BAD_LABEL] * 3)
    with pytest.raises(ValueError, match="^batch 2 of the training data"):
        mdm.fit(batches, epochs=2, steps_per_epoch=2, verbose=0)
    assert int(mdm.optimizer.iterations) == 3 + 2
    _weights(mdm)


@pytest.mark.parametrize("executed", [1, 3])
def test_steps_per_execution(executed):
    """The bad batch may be in the middle of a call that has done steps."""
    mdm = trainer(compile_options={"steps_per_execution": executed})
    with pytest.raises(ValueError, match="^batch 2 of the training data"):
        mdm.fit(BAD, verbose=0)
    assert int(mdm.optimizer.iterations) == 2
    _weights(mdm)
    mdm.fit(GOOD, verbose=0)
    mdm.evaluate(GOOD, verbose=0)


def test_shuffled_batches_keep_their_numbers(mdm):
    for _ in range(4):
        with pytest.raises(ValueError, match="^batch 2 of the training data"):
            mdm.fit(Pairs(BAD), shuffle=True, verbose=0)


PROCESSES = """
import multiprocessing, sys

sys.path.insert(0, {folder!r})
import helpers
import test_every_batch as tests

# A fork of a process that computes may stop for ever.
multiprocessing.set_start_method("spawn")
mdm = helpers.trainer(compile_options=helpers.uncompiled())
data = tests.Pairs(tests.BAD, workers=1, use_multiprocessing=True)
try:
    mdm.fit(data, verbose=0, shuffle=False)
except ValueError as error:
    print(error)
print(int(mdm.optimizer.iterations))
"""


def test_processes():
    """Workers of a PyDataset that are processes of their own."""
    found = run_python(PROCESSES.format(folder=os.path.dirname(__file__)))
    assert found.startswith("batch 2 of the training data")
    assert found.splitlines()[-1] == "2"


@pytest.mark.parametrize("road", ["train_on_batch", "test_on_batch"])
def test_single_batches(mdm, road):
    start = _weights(mdm)
    with pytest.raises(ValueError, match="^'labels' must be from 0 to 2"):
        getattr(mdm, road)(BAD_LABEL)
    with pytest.raises(ValueError, match="^'sample_weight' must be finite"):
        getattr(mdm, road)(GOOD[0], sample_weight=np.array([1, 1, np.nan, 1]))
    assert equal_values(start, _weights(mdm))
    assert np.isfinite(getattr(mdm, road)(GOOD[0])).all()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX' look ahead")
def test_batch_that_is_read_ahead(mdm, monkeypatch):
    """As on a GPU, where Keras reads the next batch before the step of this one."""
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="^batch 2 of the training data"):
        mdm.fit(BAD, verbose=0)
    assert int(mdm.optimizer.iterations) == 5
    with pytest.raises(ValueError, match="^batch 2 of the evaluation data"):
        mdm.evaluate(BAD, verbose=0)
    _weights(mdm)
    mdm.fit(GOOD, verbose=0)


def _images(value, dtype="float32"):
    images = np.zeros((4, 8, 8, 1), dtype)
    images[2, 1, 1] = value
    return images


MISTAKES = [
    ({"images": _images(np.nan)}, "'images'.*first in entry 2"),
    ({"images": _images(np.inf)}, "'images'.*first in entry 2"),
    ({"images": _images(7.0, "float64")}, "from 0 to 7, first in entry 2"),
    ({"images": _images(0, "bool")}, "dtype=bool"),
    ({"images": np.full((4, 8, 8, 1), "a", object)}, "dtype=object"),
    ({"images": np.zeros((4, 8, 8, 1), "complex64")}, "dtype=complex64"),
    ({"images": np.zeros((4, 4, 4, 1), "uint8")}, r"shape=\(4, 4, 4, 1\)"),
    ({"images": [np.zeros((8, 8, 1)), np.zeros((4, 4, 1))]}, "'images' must be an arr"),
    ({"images": np.zeros((0, 8, 8, 1), "uint8")}, "has no entry"),
    ({"images": None}, "the key 'images'"),
    ({"labels": None}, r"lacks \['labels'\]"),
    ({"labels": [0, 1, 2, 3]}, "such as 3 in entry 3"),
    ({"labels": np.array([0, 1, 2, np.nan])}, "'labels' must be whole numbers"),
    ({"labels": 1}, "'labels' is a single value for 4 images"),
    ({"labels": [0, 1, 2]}, "'labels' has 3 entries for 4 images"),
    ({"extra": np.zeros(3)}, "'extra' has 3 entries for 4 images"),
    ({"scale": np.array([1, 2, np.nan, 4.0])}, "'scale' must be finite.*in entry 2"),
    ({"scale": np.array([1, 2, 1e300, 4.0])}, "'scale' must be finite.*in entry 2"),
    ({"scale": np.zeros((4, 2))}, r"'scale' must be numbers of shape \(batch,\)"),
    ({"scale": np.array(["a"] * 4)}, "'scale' must be numbers"),
]


@pytest.fixture(scope="module")
def scaled():
    """A model with a micro-condition whose steps must not be reached."""
    network = tiny_nest(1, resolution=8, micro_conditioning={"scale": 1.0})
    mdm = tiny_mdm(network=network)
    mdm.compile("sgd", run_eagerly=True)
    return mdm


@pytest.mark.parametrize(("changes", "words"), MISTAKES)
def test_mistakes(scaled, changes, words):
    good = {**batch_of(4, 8), "scale": np.ones(4)}
    bad = {**good, **changes}
    before = _weights(scaled)

    def batches():
        yield bad

    for call in (
        lambda: scaled.fit(batches(), verbose=0),
        lambda: scaled.evaluate([bad], verbose=0),
        lambda: scaled.fit(bad, verbose=0),
        lambda: scaled.train_on_batch(bad),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert equal_values(before, _weights(scaled))


def test_what_steps_can_not_take_is_made_so():
    """Lists, wide numbers, names of files: no backend's step meets them."""
    spec = tiny_mdm(1, resolution=8).batch_spec
    batch = batch_of(4, 8)
    prepared = spec.prepare(
        {
            "images": [image / 127.5 - 1.0 for image in batch["images"]],
            "labels": batch["labels"].astype("uint64").tolist(),
            "captions": ["a"] * 4,
            "file": ["a.jpg"] * 4,
            "information": {"camera": "none"},
            "nothing": None,
            3: batch["labels"],
        }
    )
    assert {key: str(value.dtype) for key, value in prepared.items()} == {
        "images": "float32",
        "labels": "int32",
    }
    np.testing.assert_array_equal(prepared["labels"], batch["labels"])


def test_numbers_of_another_machine():
    """Of the other order of bytes, as NumPy reads them from HDF5 and FITS."""
    batch = batch_of(4, 8)
    batch["images"] = np.linspace(-1, 1, 256, dtype=">f4").reshape(4, 8, 8, 1)
    prepared = tiny_mdm(1, resolution=8).batch_spec.prepare(batch)
    assert prepared["images"].dtype.isnative
    np.testing.assert_array_equal(prepared["images"], batch["images"])


def test_tensors_with_a_gradient():
    torch = pytest.importorskip("torch")
    batch = {**batch_of(4, 8), "images": torch.rand(4, 8, 8, 1, requires_grad=True)}
    prepared = tiny_mdm(1, resolution=8).batch_spec.prepare(batch)
    np.testing.assert_array_equal(prepared["images"], batch["images"].detach())


@pytest.mark.parametrize("weighted", [False, True])
def test_data_that_use_their_arrays_again(weighted):
    """A step that runs on must not see the next batch."""
    weight, buffer = np.zeros(4, "float32"), {k: v.copy() for k, v in GOOD[0].items()}

    def batches():
        for number, batch in enumerate(GOOD):
            for key, value in batch.items():
                buffer[key][...] = value
            weight[...] = number
            yield (buffer, None, weight) if weighted else buffer

    data = PreparedData(batches(), tiny_mdm(1, resolution=8).batch_spec, "data")
    for number, (batch, _, weights) in enumerate(list(data)):
        assert equal_values(batch.values(), GOOD[number].values())
        assert weights is None or (weights == number).all()


TEXTS = ["a red circle", "a blue square", "", "red"]
MASK = np.ones((4, 6), "bool")
TOKENS = np.full((4, 6), 3)


def _embeddings(value=0.0):
    embeddings = np.zeros((4, 6, 8), "float32")
    embeddings[1, 2, 3] = value
    return embeddings


@pytest.mark.parametrize(
    ("kind", "features", "words"),
    [
        ("words", {"token_ids": TOKENS.astype("float32")}, "'token_ids' must be whole"),
        ("words", {"token_ids": TOKENS + 9}, "'token_ids' must be from 0"),
        ("words", {"token_ids": TOKENS}, None),
        ("words", {"token_ids": TOKENS * 0}, "'token_ids' must have a token.*entry 0"),
        ("words", {"captions": "text"}, "`captions` must be a sequence of strings"),
        ("words", {"captions": [TEXTS] * 4}, "`captions` must be strings"),
        ("words", {"captions": [*TEXTS[:3], None]}, "`captions` must be strings"),
        ("t5", {"text_embeddings": _embeddings(np.nan)}, "must be finite.* entry 1"),
        ("t5", {"text_embeddings": _embeddings()[:, :0]}, "at least one token"),
        ("t5", {"text_embeddings": _embeddings()[..., :4]}, r"\(batch, tokens, 8\)"),
        (
            "t5",
            {"text_embeddings": _embeddings(), "text_mask": MASK & [0, 0, 0, 0, 0, 0]},
            "'text_mask' must have a token in each entry",
        ),
        (
            "t5",
            {"text_embeddings": _embeddings(), "text_mask": MASK[:, :4]},
            "'text_mask' must have the shape",
        ),
        (
            "t5",
            {"text_embeddings": _embeddings(), "text_mask": MASK * np.nan},
            "'text_mask' must be finite",
        ),
        ("t5", {"text_embeddings": _embeddings(1.0), "text_mask": MASK}, None),
    ],
)
def test_text(kind, features, words):
    if kind == "words":
        spec = text_mdm(word_encoder()).batch_spec
    else:
        mdm = text_mdm(keras_mdm.TextEmbeddings(8, max_tokens=6))
        mdm.text_encoder = FakeEncoder()
        spec = mdm.batch_spec
    batch = {**batch_of(4, 8, classes=0), **features}
    if words is None:
        spec.prepare(batch)
        return
    with pytest.raises(ValueError, match=words):
        spec.prepare(batch)


@pytest.mark.parametrize("mixed", [None, {8: 1, 4: 1}], ids=["whole", "mixed"])
def test_batches_of_several_shapes(mixed):
    """Sizes, dtypes and entries may differ from batch to batch."""
    mdm = trainer(compile_options={"mixed_resolution": mixed} if mixed else None)
    floats = batch_of(3, 8, seed=3)
    floats["images"] = (floats["images"] / 255.0).astype("float32")
    batches = [batch_of(4, 8), batch_of(2, 8), floats, batch_of(4, 8)]
    history = mdm.fit(batches, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert int(mdm.optimizer.iterations) == 8
    for batch in batches:
        assert np.isfinite(mdm.train_on_batch(batch)).all()


def test_mixed_batch_that_is_too_small(mdm):
    mixed = trainer(compile_options={"mixed_resolution": {8: 1, 4: 3}})
    batches = [batch_of(4, 8), batch_of(3, 8)]
    with pytest.raises(ValueError, match="^batch 1 of the training data.*too small"):
        mixed.fit(batches, verbose=0)
    _weights(mixed)
    with pytest.raises(ValueError, match="too small"):
        mixed.train_on_batch(batches[1])
    assert np.isfinite(mixed.evaluate(batches, verbose=0)).all()


DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import keras
from helpers import batch_of, tiny_mdm

early = tiny_mdm(1, resolution=4)
keras.distribution.set_distribution(keras.distribution.DataParallel())
mdm = tiny_mdm(1, resolution=4)
mdm.compile("sgd")
data = batch_of(7, 4)
odd = [batch_of(4, 4), batch_of(3, 4)]
for road in (
    lambda: mdm.evaluate(data, batch_size=4, verbose=0),
    lambda: mdm.fit(odd, verbose=0),
    lambda: mdm.fit(odd[0], validation_data=odd, verbose=0),
    lambda: mdm.train_on_batch(odd[1]),
):
    try:
        road()
    except ValueError as error:
        print(error)
print(mdm.fit(data, batch_size=4, verbose=0).history["loss"][0] > 0)
try:
    early.compile("sgd")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX' devices")
def test_batches_that_devices_can_not_share():
    lines = run_python(DEVICES).splitlines()
    for line, place in zip(
        lines,
        ("batch 1 of the eval", "batch 1 of the train", "batch 1 of the valid", "a "),
        strict=False,
    ):
        assert line.startswith(place)
        assert "a multiple of the 2 parts" in line
        assert line.endswith("Received: 3 entries")
    assert lines[4] == "True"
    assert "model was made before the devices were chosen" in lines[5]
