"""Options of networks: remat, attention, text tokens, micro-conditions, mistakes."""

import keras
import numpy as np
import pytest
from helpers import compute, randomize, tiny_nest, tiny_unet

import keras_mdm

RNG = np.random.default_rng(0)
LARGE, SMALL = (RNG.normal(size=(2, r, r, 1)).astype("float32") for r in (8, 4))
TIMES = np.array([3.0, 600.0], "float32")
LABELS = np.array([0, 2], "int32")


def _gradients(network):
    """Gradients of the mean square of all outputs, by backend."""
    inputs = {"images": [LARGE, SMALL], "timesteps": TIMES, "labels": LABELS}

    def loss():
        outputs = network(inputs, training=True)
        return sum(keras.ops.mean(keras.ops.square(output)) for output in outputs)

    variables = network.trainable_variables
    name = keras.backend.backend()
    if name == "jax":
        import jax

        def stateless(values):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return loss()

        found = jax.jit(jax.grad(stateless))([v.value for v in variables])
    elif name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [v.value for v in variables])
    else:
        network.zero_grad()
        loss().backward()
        found = [v.value.grad for v in variables]
    return [np.array(keras.ops.convert_to_numpy(g)) for g in found]


def test_gradients_with_remat():
    """Rematerialisation changes no gradient, and each weight has one."""
    plain = randomize(tiny_nest(2, resolution=4))
    rematerialized = tiny_nest(2, resolution=4, remat=True)
    rematerialized.set_weights(plain.get_weights())
    found = [_gradients(network) for network in (plain, rematerialized)]
    for one, other in zip(*found, strict=True):
        assert one.any()
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_remat_of_some_levels():
    network = tiny_nest(3, resolution=4)
    network.set_remat([8])
    computed_again = {
        part.level: {
            layer.remat for layer in part.own_layers if hasattr(layer, "remat")
        }
        for part in network.networks
    }
    assert computed_again == {16: {False}, 8: {True}, 4: {False}}
    assert network.get_config()["inner"]["config"]["remat"]
    network.set_remat()
    assert all(part.remat for part in network.networks)
    network.set_remat(False)
    assert not any(part.remat for part in network.networks)
    with pytest.raises(ValueError, match="one of the network's resolutions"):
        network.set_remat([32])


@pytest.fixture(scope="module")
def text_unet():
    """The only network here with attention: mid block and one level, text tokens."""
    return randomize(
        keras_mdm.UNet(
            4,
            (32,),
            num_residual_blocks=1,
            num_attention_layers=1,
            conditioner=keras_mdm.TextEmbeddings(8),
            token_projection_size=16,
            num_token_blocks=1,
            micro_conditioning={"scale": 64.0},
            image_channels=1,
        ),
        0.05,
    )


def _text(network, tokens, mask, **more):
    inputs = {"images": [SMALL], "timesteps": TIMES, **more}
    return compute(
        lambda t, m: network({**inputs, "text_embeddings": t, "text_mask": m})[0],
        tokens,
        mask,
    )


TOKENS = RNG.normal(size=(2, 3, 8)).astype("float32")
MASK = np.array([[1, 1, 0], [1, 1, 1]], bool)


def test_padded_tokens_do_not_matter(text_unet):
    first = _text(text_unet, TOKENS, MASK)
    padded = TOKENS.copy()
    padded[0, 2] += 3.0
    np.testing.assert_allclose(_text(text_unet, padded, MASK), first, atol=1e-6)
    seen = TOKENS.copy()
    seen[0, 1] += 3.0
    changed = np.abs(_text(text_unet, seen, MASK) - first)
    assert changed[0].max() > 1e-4 and changed[1].max() < 1e-6


def test_dropped_text_is_one_zero_token(text_unet):
    drop = np.array([True, False])
    dropped = _text(text_unet, TOKENS, MASK, condition_drop=drop)
    tokens, mask = TOKENS.copy(), MASK.copy()
    tokens[0], mask[0] = 0.0, [True, False, False]
    np.testing.assert_allclose(dropped, _text(text_unet, tokens, mask), atol=1e-6)
    assert not np.allclose(dropped[0], _text(text_unet, TOKENS, MASK)[0], atol=1e-4)


def test_micro_condition_default(text_unet):
    first = _text(text_unet, TOKENS, MASK)
    stated = _text(text_unet, TOKENS, MASK, scale=np.array([64.0, 16.0], "float32"))
    np.testing.assert_allclose(stated[0], first[0], atol=1e-6)
    assert not np.allclose(stated[1], first[1], atol=1e-4)


def test_dropped_label_is_the_null_class():
    network = randomize(tiny_unet(4))
    inputs = {"images": [SMALL], "timesteps": TIMES}

    def output(labels, drop):
        return network({**inputs, "labels": labels, "condition_drop": drop})[0]

    none = np.array([False, False])
    null = np.full(2, network.conditioner.num_classes, "int32")
    dropped = compute(output, LABELS, ~none)
    np.testing.assert_allclose(dropped, compute(output, null, none), atol=1e-6)
    assert not np.allclose(dropped, compute(output, LABELS, none), atol=1e-4)


def test_predictions_are_float32():
    network = tiny_unet(4, classes=0, dtype="mixed_bfloat16")
    assert network.compute_dtype == "bfloat16"
    assert all(v.dtype == "float32" for v in network.variables)
    output = network({"images": [SMALL], "timesteps": TIMES})[0]
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": ()}, "`channels` must have at least one positive"),
        ({"channels": (12,)}, r"multiple of `groups` \(8\).*\(12,\)"),
        ({"channels": (8, 8, 8), "resolution": 6}, "`resolution` must be a multiple"),
        ({"num_residual_blocks": 0}, "`num_residual_blocks` must be at least 1"),
        ({"num_residual_blocks": (1, 1)}, "`num_residual_blocks` must have one whole"),
        ({"num_attention_layers": -1}, "`num_attention_layers` must have one whole"),
        ({"num_attention_layers": 1}, "multiple of the 32 attention groups"),
        ({"image_channels": 0}, "`image_channels` must be a whole number from 1"),
        ({"embedding_size": 20}, "`size` must be a multiple of 8"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        tiny_unet(**{"resolution": 4, **options})


def test_bad_nesting():
    with pytest.raises(ValueError, match="`inner` must be a `Denoiser`"):
        keras_mdm.NestedUNet(keras.layers.Dense(3), (8, 8))
    with pytest.raises(ValueError, match="at least two widths"):
        keras_mdm.NestedUNet(tiny_unet(4), (8,), groups=8)
