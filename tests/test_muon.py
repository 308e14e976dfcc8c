"""Muon against Newton-Schulz in float64, and against singular value decompositions."""

import keras
import numpy as np
import pytest
from helpers import compute, tiny_unet, values_of

import keras_mdm
from keras_mdm.muon import orthogonalize

RATE, MOMENTUM = 0.1, 0.95
# Kernels of convolutions, wide and tall, of frames, and of a dense layer.
SHAPES = [(3, 3, 2, 4), (3, 3, 2, 4), (1, 1, 3, 8), (3, 4, 5), (6, 6)]


def _orthogonal(matrix):
    """Newton-Schulz as printed by Jordan et al., 2024, in float64."""
    x = matrix / np.linalg.norm(matrix)
    if len(x) > len(x[0]):
        x = x.T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(matrix) > len(matrix[0]) else x


def _expected(values, steps, decay):
    values = [value.astype("float64") for value in values]
    momenta = [np.zeros_like(value) for value in values]
    for gradients in steps:
        for i, gradient in enumerate(gradients):
            values[i] -= values[i] * decay * RATE
            momenta[i] = MOMENTUM * momenta[i] + (1 - MOMENTUM) * gradient
            nesterov = (1 - MOMENTUM) * gradient + MOMENTUM * momenta[i]
            matrix = nesterov.reshape(-1, nesterov.shape[-1])
            size = 0.2 * np.sqrt(max(matrix.shape))
            update = size * _orthogonal(matrix).reshape(nesterov.shape)
            values[i] -= RATE * update
    return values


def _arrays(rng, shapes=SHAPES):
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def _variables(values):
    class Holder(keras.layers.Layer):
        def __init__(self, value, **kwargs):
            super().__init__(**kwargs)
            self.kernel = self.add_weight(shape=value.shape, name="kernel")
            self.kernel.assign(value)
            self.built = True

    layers = [Holder(value, name=f"layer_{i}") for i, value in enumerate(values)]
    return [layer.kernel for layer in layers]


def _apply(optimizer, variables, steps):
    for gradients in steps:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)


@pytest.mark.parametrize(("accumulate", "decay"), [(None, 0.0), (None, 0.1), (2, 0.0)])
def test_updates_follow_the_formula(accumulate, decay):
    rng = np.random.default_rng(0)
    values = _arrays(rng)
    steps = [_arrays(rng) for _ in range(4)]
    variables = _variables(values)
    optimizer = keras_mdm.Muon(
        RATE,
        momentum=MOMENTUM,
        weight_decay=decay,
        global_clipnorm=None,
        gradient_accumulation_steps=accumulate,
    )
    _apply(optimizer, variables, steps)
    if accumulate:
        steps = [
            [(a + b) / 2 for a, b in zip(one, two, strict=True)]
            for one, two in zip(steps[::2], steps[1::2], strict=True)
        ]
    expected = _expected(values, steps, decay)
    for found, value in zip(values_of(variables), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-4)


def test_directions_are_those_of_the_singular_vectors():
    matrices = np.random.default_rng(1).normal(size=(3, 8, 24)).astype("float32")
    found = compute(orthogonalize, matrices)
    for matrix, direction in zip(matrices, found, strict=True):
        u, _, vt = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
        inside = u.T @ direction @ vt.T
        sizes = np.diag(inside)
        assert 0.6 < sizes.min() and sizes.max() < 1.3
        np.testing.assert_allclose(inside - np.diag(sizes), 0.0, atol=1e-4)


def test_kernels_without_gradient_stay():
    """Such as those before a layer that starts at zero."""
    values = _arrays(np.random.default_rng(2))
    variables = _variables(values)
    _apply(keras_mdm.Muon(RATE), variables, [[np.zeros_like(v) for v in values]])
    for found, value in zip(values_of(variables), values, strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_gradient_that_is_not_finite_changes_nothing():
    rng = np.random.default_rng(4)
    values, good, bad = (_arrays(rng, SHAPES[-2:]) for _ in range(3))
    bad[0][0] = np.nan
    variables, optimizer = _variables(values), keras_mdm.Muon(RATE, weight_decay=0.1)
    _apply(optimizer, variables, [good])
    kept = [*variables, *optimizer._momentums]
    before = values_of(kept)
    _apply(optimizer, variables, [bad])
    for found, value in zip(values_of(kept), before, strict=True):
        np.testing.assert_array_equal(found, value)
    assert int(values_of([optimizer.skipped_in_a_row])[0]) == 1


def test_what_is_no_hidden_kernel_is_trained_by_adamw():
    parts = ("class_labels", "conv_in", "residual_0/conv_1", "norm_out", "conv_out")
    variables, others = (
        [v for v in tiny_unet().trainable_variables if any(p in v.path for p in parts)]
        for _ in range(2)
    )
    for variable, other in zip(variables, others, strict=True):
        other.assign(variable.value)
    rng = np.random.default_rng(3)
    steps = [_arrays(rng, [v.shape for v in variables])]
    optimizer = keras_mdm.Muon(RATE)
    _apply(optimizer, variables, steps)
    _apply(keras_mdm.AdamW(RATE), others, steps)
    same, different = set(), set()
    for variable, mine, adamw in zip(
        variables, values_of(variables), values_of(others), strict=True
    ):
        equal = np.allclose(mine, adamw, rtol=1e-4, atol=1e-5)
        (same if equal else different).add(variable.path.partition("/")[2])
    kernels = {path for path in same | different if path.endswith("/kernel")}
    assert different == kernels - {"conv_in/kernel", "conv_out/kernel"}
    assert {"class_labels/table", "conv_in/bias", "norm_out/gamma"} < same
    # Half of the state of AdamW, for kernels.
    names = [variable.path for variable in optimizer.variables]
    assert sum("velocity" in name for name in names) == len(same)
    assert sum("momentum" in name for name in names) == len(variables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"exclude": "conv_in"}, "exclude"),
        ({"amsgrad": True}, "amsgrad"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        keras_mdm.Muon(**options)


def test_it_is_saved_by_its_name():
    optimizer = keras_mdm.Muon(RATE, momentum=0.9, exclude=["head"])
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert type(again) is keras_mdm.Muon
    assert again.get_config() == optimizer.get_config()
    assert again.exclude == ("head",)
