"""Our AdamW against the formula, step by step."""

import keras
import numpy as np
import pytest
from helpers import tiny_mdm

import keras_mdm
from keras_mdm import AdamW
from keras_mdm.training import default_optimizer

RATE, BETAS, EPSILON = 0.1, (0.9, 0.99), 1e-8


def _expected(values, steps, decay=0.0, clip=None):
    """Weights after each step, in float64 (Loshchilov and Hutter, 2019, alg. 2)."""
    values = [value.astype("float64") for value in values]
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]
    for number, gradients in enumerate(steps, start=1):
        norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
        scale = 1.0 if clip is None else min(1.0, clip / norm)
        for i, gradient in enumerate(gradients):
            gradient = gradient * scale
            values[i] -= values[i] * decay * RATE
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * gradient
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * gradient**2
            m = first[i] / (1 - BETAS[0] ** number)
            v = second[i] / (1 - BETAS[1] ** number)
            values[i] -= RATE * m / (np.sqrt(v) + EPSILON)
    return values


@pytest.mark.parametrize("accumulate", [None, 2])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"global_clipnorm": 1.0}]
)
def test_updates_follow_the_formula(options, accumulate):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (5,))]
    steps = [
        [rng.normal(size=value.shape).astype("float32") for value in values]
        for _ in range(4)
    ]
    variables = [keras.Variable(value, name=f"v{i}") for i, value in enumerate(values)]
    optimizer = AdamW(
        RATE,
        beta_1=BETAS[0],
        beta_2=BETAS[1],
        epsilon=EPSILON,
        gradient_accumulation_steps=accumulate,
        **{"global_clipnorm": None, **options},
    )
    for gradients in steps:
        tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
        optimizer.apply(tensors, variables)
    if accumulate:
        steps = [
            [(a + b) / 2 for a, b in zip(one, two, strict=True)]
            for one, two in zip(steps[::2], steps[1::2], strict=True)
        ]
    expected = _expected(
        values, steps, options.get("weight_decay", 0.0), options.get("global_clipnorm")
    )
    for variable, value in zip(variables, expected, strict=True):
        found = keras.ops.convert_to_numpy(variable.value)
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [None, 2])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {}),
        (AdamW, {"amsgrad": True, "clipvalue": 1.0}),
        (keras_mdm.Muon, {}),
        (keras_mdm.ScheduleFreeAdamW, {}),
    ],
)
def test_gradients_that_are_not_finite_change_nothing(kind, options, accumulate):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "b": (5,), "c": (2,)}
    variables = [
        keras.Variable(rng.normal(size=shape), dtype="float32", name=name)
        for name, shape in shapes.items()
    ]
    optimizer = kind(
        RATE, weight_decay=0.1, gradient_accumulation_steps=accumulate, **options
    )
    optimizer.group_gradients({"kernel": 0, "b": 1, "c": 1})

    def apply(bad=None):
        gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
        if bad is not None:
            gradients[1][2] = bad
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
        return gradients

    def values():
        kept = [v for v in optimizer.variables if v.name not in counting]
        return [keras.ops.convert_to_numpy(v) for v in (*variables, *kept)]

    counting = ("iteration", "skipped_in_a_row", "gradient_norms")
    every = accumulate or 1
    steps = [apply() for _ in range(every)]
    sums = [sum(parts) / every for parts in zip(*steps, strict=True)]
    norms = [np.linalg.norm(sums[0]), np.linalg.norm(np.concatenate(sums[1:]))]
    found = keras.ops.convert_to_numpy(optimizer.gradient_norms)
    np.testing.assert_allclose(found, norms, rtol=1e-5)
    before = values()
    for count, bad in enumerate((np.nan, np.inf), start=1):
        for _ in range(every):
            apply(bad)
            bad = None if accumulate else bad  # One bad part spoils the sum.
        assert int(optimizer.skipped_in_a_row.value) == count
        for old, new in zip(before, values(), strict=True):
            np.testing.assert_array_equal(old, new)
    for _ in range(every):
        apply()
    assert int(optimizer.skipped_in_a_row.value) == 0
    assert not np.array_equal(before[0], values()[0])


def test_weights_that_are_looked_up_in_part():
    """TensorFlow gives the gradient of an embedding as rows."""

    class Rows(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = keras.layers.Embedding(4, 2, embeddings_initializer="ones")
            self.table.build()
            self.built = True

        def call(self, x):
            return keras.ops.sum(self.table(x), axis=-1)

    model = Rows()
    model.compile(AdamW(RATE, weight_decay=0.0, global_clipnorm=2.0), loss="mse")
    model.train_on_batch(np.array([[1], [3]]), np.zeros((2, 1), "float32"))
    table = keras.ops.convert_to_numpy(model.table.embeddings.value)
    np.testing.assert_allclose(table[[1, 3]], 1.0 - RATE, atol=1e-4)
    np.testing.assert_array_equal(table[[0, 2]], 1.0)


def test_it_is_saved_by_its_name():
    optimizer = AdamW(RATE, global_clipnorm=2.0)
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert type(again) is AdamW and again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("kind", [keras_mdm.AdamW, "auto", "stage"])
def test_every_road_has_the_settings_of_the_paper(kind):
    """[Gu et al., 2024](https://arxiv.org/abs/2405.21048), appendix B."""
    if kind == "auto":
        mdm = tiny_mdm(1, classes=0)
        mdm.compile()
        optimizer = mdm.optimizer
    elif kind == "stage":
        optimizer = default_optimizer(keras_mdm.Stage(8, steps=10))
    else:
        optimizer = kind()
    config = optimizer.get_config()
    assert type(optimizer) is AdamW
    assert config["learning_rate"] == pytest.approx(1e-4)
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (0.9, 0.99, 1e-8)
    assert (config["weight_decay"], config["global_clipnorm"]) == (0.0, 2.0)


def test_other_ways_of_clipping_replace_that_of_the_norm():
    assert AdamW(clipnorm=1.0).global_clipnorm is None
    assert AdamW(clipvalue=1.0).global_clipnorm is None
