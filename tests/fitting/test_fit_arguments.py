"""Arguments of `fit` and `evaluate` work as in Keras, or are refused by their names."""

import itertools
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    counting,
    equal_values,
    run_python,
    tiny_unet,
    trainer,
    values_of,
)

import keras_mdm

pytestmark = pytest.mark.usefixtures("eager_functions")

DATA = batch_of(8, 8)
BATCHES = [{k: v[i : i + 4] for k, v in DATA.items()} for i in (0, 4)]


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return BATCHES[index % 2]


@pytest.fixture(scope="module")
def model():
    mdm = trainer()
    mdm.fit(DATA, batch_size=4, verbose=0)
    mdm.evaluate(DATA, batch_size=4, verbose=0)
    variables = mdm.variables + mdm.optimizer.variables
    return mdm, variables, values_of(variables)


@pytest.fixture
def mdm(model):
    mdm, variables, values = model
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return mdm


def _weights(mdm):
    return values_of(mdm.network.variables)


def _grain(steps):
    import grain

    rows = [{k: v[i] for k, v in DATA.items()} for i in range(8)]
    return steps(grain.MapDataset.source(rows))


def _loader(epochs):
    import grain

    rows = [{k: v[i] for k, v in DATA.items()} for i in range(8)]
    sharding = grain.sharding.NoSharding()
    sampler = grain.samplers.IndexSampler(8, sharding, num_epochs=epochs)
    operations = [grain.transforms.Batch(4)]
    return grain.DataLoader(data_source=rows, sampler=sampler, operations=operations)


def _tf_data(repeat=None):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(DATA).batch(4)
    return data.repeat() if repeat else data


def _repeated():
    import grain

    once = _grain(lambda d: d.to_iter_dataset().batch(4))
    return grain.experimental.RepeatIterDataset(once).map(lambda batch: batch)


ENDLESS = {
    "PyDataset": Endless,
    "tf.data": lambda: _tf_data(repeat=True),
    "grain map": lambda: _grain(lambda d: d.repeat().batch(4)),
    "grain iter": lambda: _grain(lambda d: d.repeat().to_iter_dataset().batch(4)),
    "grain repeated iter": _repeated,
    "grain loader": lambda: _loader(None),
    "itertools": lambda: itertools.cycle(BATCHES),
}
ENDS = {
    "grain": lambda: _grain(lambda d: d.repeat(2).to_iter_dataset().batch(4)),
    "grain slice": lambda: _grain(lambda d: d.repeat()[:8].to_iter_dataset().batch(4)),
    "grain loader": lambda: _loader(1),
    "tf.data": _tf_data,
}


@pytest.mark.once
@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_data_need_steps(mdm, kind):
    make = ENDLESS[kind]
    start = _weights(mdm)
    with pytest.raises(ValueError, match="no end, so `steps_per_epoch` must"):
        mdm.fit(make(), verbose=0)
    with pytest.raises(ValueError, match="no end, so `validation_steps` must"):
        mdm.fit(DATA, validation_data=make(), verbose=0)
    with pytest.raises(ValueError, match="no end, so `steps` must"):
        mdm.evaluate(make(), verbose=0)
    assert equal_values(start, _weights(mdm))
    history = mdm.fit(
        make(),
        steps_per_epoch=2,
        validation_data=make(),
        validation_steps=2,
        shuffle=False,
        verbose=0,
    ).history
    assert int(mdm.optimizer.iterations) == 2 + 2
    found = mdm.evaluate(make(), steps=2, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(history["val_loss"][0], rel=1e-5)


class WithoutLength(list):
    """As PyTorch's documentation once advised to write a data set."""

    def __len__(self):
        raise NotImplementedError


ENDS["without length"] = lambda: WithoutLength(BATCHES)


@pytest.mark.parametrize("kind", ENDS)
def test_data_that_end(mdm, kind):
    assert np.isfinite(mdm.evaluate(ENDS[kind](), verbose=0)).all()


def test_make_dataset_that_repeats():
    mdm = trainer(tiny_unet(8, image_channels=3))
    source = keras_mdm.data.open_source("shapes")
    data = keras_mdm.data.make_dataset(source, 8, 4, repeat=True)
    with pytest.raises(ValueError, match="no end, so `steps_per_epoch` must"):
        mdm.fit(data, verbose=0)
    with pytest.raises(ValueError, match="no end, so `steps` must"):
        mdm.evaluate(data.map(lambda batch: batch), verbose=0)


REFUSED = [
    ({"x": None}, "`x` must be a dict with the key 'images'.*Received: NoneType"),
    ({"x": DATA["images"]}, r"`x` must be a dict.*ndarray of shape \(8, 8, 8, 1\)"),
    (
        {"x": keras.ops.convert_to_tensor(DATA["images"])},
        r"`x` must be a dict.*of shape \(8, 8, 8, 1\)",
    ),
    ({"x": "folder:pictures"}, "`x` must be a dict.*Received: str"),
    ({"x": 3}, "`x` must be a dict.*Received: int"),
    ({"x": Endless}, "`x` must be a dict.*Received: type"),
    ({"x": [DATA["images"], DATA["labels"]]}, "batch 0 of .*'images'.*ndarray"),
    ({"x": [(DATA["images"], DATA["labels"])]}, "`y` must be None"),
    ({"x": [(BATCHES[0], DATA["labels"])]}, "`y` must be None.*ndarray"),
    ({"x": [(BATCHES[0], None, None, 1)]}, "must yield batch dicts, or tuples.*of 4"),
    ({"x": (DATA, None), "sample_weight": np.ones(8)}, "nothing is given apart"),
    ({"x": {}}, "the key 'images'"),
    ({"x": []}, "has no batch"),
    ({"y": DATA["labels"]}, "`y` must be None.*ndarray"),
    ({"batch_size": 0}, "`batch_size` must be a whole number from 1.*batch_size=0"),
    ({"batch_size": 2.5}, "`batch_size` must be a whole number.*2.5"),
    ({"x": BATCHES, "batch_size": 4}, "`batch_size` is for a dict of arrays.*list"),
    (
        {"x": BATCHES, "sample_weight": np.ones(8)},
        "`sample_weight` is for a dict of arrays",
    ),
    ({"sample_weight": np.ones(7)}, "'sample_weight' has 7 entries for 8 images"),
    ({"sample_weight": np.ones((8, 2))}, "'sample_weight' must be numbers of shape"),
    ({"sample_weight": [1.0] * 7 + [np.nan]}, "'sample_weight' must be finite.*y 7"),
]
OF_FIT = [
    ({"class_weight": {0: 1.0}}, "`class_weight` weighs targets.*{0: 1.0}"),
    ({"shuffle": "batch"}, "`shuffle` must be True or False.*'batch'"),
    ({"epochs": "3"}, "`epochs` must be a whole number from 0"),
    ({"epochs": None}, "`epochs` must be a whole number from 0"),
    ({"initial_epoch": -1}, "`initial_epoch` must be a whole number from 0"),
    ({"steps_per_epoch": 0}, "`steps_per_epoch` must be a whole number from 1"),
    ({"validation_steps": -1}, "`validation_steps` must be a whole number from 1"),
    ({"validation_freq": 0}, "`validation_freq` must be a whole number from 1"),
    ({"validation_batch_size": 0}, "`validation_batch_size` must be a whole number"),
    ({"validation_split": 1.5}, "`validation_split` must be"),
    ({"validation_split": 0.99}, "`validation_split` leaves nothing to train on"),
    ({"x": BATCHES, "validation_split": 0.5}, "`validation_split` is for a dict"),
    ({"x": iter(BATCHES), "epochs": 2}, "read once, and 2 passes.*`steps_per_epoch`"),
    (
        {"validation_data": iter(BATCHES), "epochs": 2},
        "read once, and 2 passes.*`validation_steps`",
    ),
    ({"validation_data": DATA["images"]}, "`validation_data` must be a dict"),
    ({"validation_data": (DATA, DATA["labels"])}, "`y` must be None"),
    ({"validation_data": (DATA, None, np.ones(3))}, "validation data.*has 3 entries"),
    (
        {"validation_data": BATCHES, "validation_batch_size": 4},
        "`validation_batch_size` is for a dict of arrays",
    ),
]
OF_EVALUATE = [({"steps": 0}, "`steps` must be a whole number from 1")]


@pytest.mark.parametrize(
    ("road", "options", "words"),
    [
        *(("fit", *case) for case in REFUSED + OF_FIT),
        *(("evaluate", *case) for case in REFUSED + OF_EVALUATE),
    ],
)
def test_refused(mdm, road, options, words):
    start = _weights(mdm)
    with counting(mdm, "make_train_function") as made:
        with pytest.raises(ValueError, match=words):
            getattr(mdm, road)(**{"x": DATA, "verbose": 0, **options})
    assert not made and equal_values(start, _weights(mdm))


@pytest.mark.parametrize("road", ["fit", "evaluate"])
def test_unknown_arguments(mdm, road):
    with pytest.raises((TypeError, ValueError), match="workers"):
        getattr(mdm, road)(DATA, workers=2, verbose=0)


@pytest.mark.parametrize("road", ["predict", "predict_on_batch"])
def test_predict_points_to_generate(mdm, road):
    start = _weights(mdm)
    with pytest.raises(NotImplementedError, match=r"`mdm.generate\(...\)`"):
        getattr(mdm, road)(DATA)
    assert equal_values(start, _weights(mdm))


def test_export_points_to_presets(mdm, tmp_path):
    with pytest.raises(NotImplementedError, match=r"`mdm.save_to_preset\(...\)`"):
        mdm.export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_names_of_metrics_are_those_of_results(mdm):
    results = mdm.evaluate(DATA, verbose=0)
    named = mdm.evaluate(DATA, verbose=0, return_dict=True)
    assert named == dict(zip(mdm.metrics_names, results, strict=True))


def test_on_batch(mdm):
    with pytest.raises(ValueError, match="`class_weight` weighs targets"):
        mdm.train_on_batch(BATCHES[0], class_weight={0: 2.0})
    for road in (mdm.train_on_batch, mdm.test_on_batch):
        with pytest.raises(ValueError, match="`y` must be None"):
            road(BATCHES[0], DATA["labels"])
        with pytest.raises(ValueError, match="'sample_weight' has 3 entries"):
            road(BATCHES[0], sample_weight=np.ones(3))
        # Weights of zero leave no loss, and those of two double it.
        assert road(BATCHES[0], sample_weight=np.zeros(4))[0] == 0.0
    one = mdm.test_on_batch(BATCHES[0], sample_weight=np.ones(4))
    two = mdm.test_on_batch(BATCHES[0], sample_weight=[2, 2, 2, 2])
    np.testing.assert_allclose(two, 2 * np.array(one), rtol=1e-5)


def _trained(model, x, **options):
    """Weights after `fit`, from the same start."""
    mdm, variables, values = model
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    history = mdm.fit(x, shuffle=False, verbose=0, **options).history
    return _weights(mdm), history


def _agree(first, second):
    for one, other in zip(first[0], second[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert first[1].keys() == second[1].keys()
    for key in first[1]:
        np.testing.assert_allclose(first[1][key], second[1][key], rtol=1e-5)


def test_sample_weight(model):
    """Of arrays, in tuples of a data set, in a tuple of arrays: the same training."""
    weight = np.array([0.0, 1.0, 3.0, 0.5, 1.0, 2.0, 0.0, 1.0])
    expected = _trained(model, DATA, sample_weight=weight, batch_size=4)
    halves = [
        (batch, None, weight[4 * i : 4 * i + 4]) for i, batch in enumerate(BATCHES)
    ]
    _agree(expected, _trained(model, halves))
    _agree(expected, _trained(model, (DATA, None, weight), batch_size=4))
    plain = _trained(model, DATA, batch_size=4)
    assert not np.allclose(plain[1]["loss"], expected[1]["loss"], rtol=1e-3)
    # A sample of no weight might as well be another one.
    other = {key: value.copy() for key, value in DATA.items()}
    other["images"][[0, 6]] = 255 - other["images"][[0, 6]]
    _agree(expected, _trained(model, other, sample_weight=weight, batch_size=4))


@pytest.mark.parametrize("weight", [None, np.linspace(0, 2, 12)])
def test_validation_split(model, weight):
    """The last entries are validated on, as in Keras."""
    data = batch_of(12, 8)
    found = _trained(
        model, data, sample_weight=weight, validation_split=0.3, batch_size=4
    )
    first, last = (
        {key: value[rows] for key, value in data.items()}
        for rows in (slice(8), slice(8, None))
    )
    weights = (None, None) if weight is None else (weight[:8], weight[8:])
    expected = _trained(
        model,
        first,
        sample_weight=weights[0],
        validation_data=(last, None, weights[1]),
        batch_size=4,
    )
    _agree(expected, found)


def test_lists_and_tensors_in_a_dict(model):
    torch = pytest.importorskip("torch")
    expected = _trained(model, DATA, batch_size=4)
    lists = {"images": list(DATA["images"]), "labels": DATA["labels"].tolist()}
    tensors = {key: keras.ops.convert_to_tensor(value) for key, value in DATA.items()}
    foreign = {key: torch.from_numpy(value) for key, value in DATA.items()}
    for data in (lists, tensors, foreign):
        _agree(expected, _trained(model, data, batch_size=4))


def test_batch_sizes_of_validation(model):
    """`batch_size` is also that of validation arrays, unless they have one apart."""
    mdm, _, _ = model
    sizes = []

    class Sizes(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            sizes.append(batch)

    for options, expected in (
        ({"batch_size": 4}, 2),
        ({"batch_size": 4, "validation_batch_size": 8}, 1),
    ):
        sizes.clear()
        mdm.fit(DATA, validation_data=DATA, callbacks=[Sizes()], verbose=0, **options)
        assert len(sizes) == expected


def test_epochs_and_steps(mdm):
    history = mdm.fit(DATA, batch_size=4, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    assert int(mdm.optimizer.iterations) == 2 + 4
    mdm.fit(DATA, steps_per_epoch=2, verbose=0)  # As in Keras, batches of 4.
    assert int(mdm.optimizer.iterations) == 6 + 2
    mdm.fit(iter(BATCHES * 2), steps_per_epoch=2, epochs=2, verbose=0)
    assert int(mdm.optimizer.iterations) == 8 + 4
    history = mdm.fit(
        DATA, batch_size=4, epochs=4, validation_data=DATA, validation_freq=2, verbose=0
    ).history
    assert len(history["val_loss"]) == 2
    assert mdm.fit(DATA, epochs=0, verbose=0).history == {}


def test_arrays_are_shuffled_as_wholes(mdm):
    """Each epoch in another order, every entry with what belongs to it."""
    seen = []
    original = mdm.train_function

    def watch(*args):
        args = list(args)
        batches = list(itertools.islice(args[-1], 1))
        if not batches:
            raise StopIteration
        seen.append(batches[0][0])
        args[-1] = iter(batches)
        return original(*args)

    mdm.train_function = watch
    try:
        mdm.fit(DATA, batch_size=4, epochs=3, verbose=0)
    finally:
        mdm.train_function = original
    labels = {
        image.tobytes(): label for image, label in zip(*DATA.values(), strict=True)
    }
    orders = []
    for one, two in zip(seen[::2], seen[1::2], strict=True):
        images = [image.tobytes() for image in (*one["images"], *two["images"])]
        found = [*one["labels"], *two["labels"]]
        assert sorted(images) == sorted(labels)
        assert [labels[image] for image in images] == found
        orders.append(images)
    assert orders[0] != orders[1] != orders[2]


def test_entries_that_are_left_out_are_told(mdm):
    with pytest.warns(
        UserWarning, match="the last 1 of 5 entries of the training data"
    ):
        mdm.fit(batch_of(5, 8), batch_size=4, shuffle=False, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mdm.fit(DATA, batch_size=4, shuffle=False, verbose=0)
        mdm.fit(batch_of(5, 8), batch_size=4, verbose=0)


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from helpers import batch_of, tiny_mdm

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
data = batch_of(4, 4)

def losses(strategy, early=True):
    with strategy.scope():
        mdm = tiny_mdm(1, resolution=4)
        if early:
            mdm.compile(keras.optimizers.SGD(0.0), run_eagerly=False)
    if not early:
        mdm.compile(keras.optimizers.SGD(0.0))
    roads = (
        lambda: mdm.fit(data, batch_size=4, verbose=0).history["loss"][0],
        lambda: mdm.evaluate(data, batch_size=4, verbose=0)[0],
        lambda: mdm.train_on_batch(data)[0],
        lambda: mdm.test_on_batch(data)[0],
    )
    return [float(road()) for road in roads]

for strategy in (
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"]),
):
    for early in (True, False):
        try:
            losses(strategy, early)
        except ValueError as error:
            print(error)
plain = losses(tf.distribute.get_strategy())
for strategy in (
    tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.OneDeviceStrategy("CPU:1")
):
    print(np.allclose(losses(strategy)[1::2], plain[1::2], rtol=1e-5))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="about `tf.distribute`"
)
def test_replicas():
    """Several are refused before anything is computed; a single one changes nothing."""
    lines = run_python(REPLICAS).splitlines()
    assert len(lines) == 6
    for line in lines[:4]:
        assert "Strategy` asks for several devices" in line
        assert "KERAS_BACKEND=jax" in line
    assert lines[4:] == ["True", "True"]
