"""Counts of FLOPs and parameters: by hand, by tracing, and those of the original."""

import math

import keras
import numpy as np
import pytest
from released import RELEASED, SMALL_NESTED, SMALL_UNET

from keras_mdm import ClassLabels, NestedUNet, TextEmbeddings, UNet
from keras_mdm.convert.ml_mdm import network_from_config
from keras_mdm.layers.primitives import Conv3x3, EnlargingConv3x3
from keras_mdm.networks.cost import count_condition_flops, count_flops

pytestmark = pytest.mark.once


def text(network, tokens):
    """Features of a network on text."""
    size = network.conditioner.size
    return {"text_embeddings": np.zeros((1, tokens, size), "float32")}


def shapes_only(config, resolution, text_size):
    """A network whose variables have shapes but no memory, and its counts."""
    with keras.StatelessScope(initialize_variables=False):
        network = network_from_config(config, resolution, text_size)
        counts = [part.count_params() for part in network.networks]
    # Otherwise Keras fills the variables after the next scope.
    keras.utils.clear_session()
    return network, counts


@pytest.fixture
def enlarged_first(monkeypatch):
    """Pictures are enlarged, then convolved, as in the original, which counts that."""

    def convolution_op(self, x, kernel):
        x = keras.ops.repeat(keras.ops.repeat(x, 2, axis=1), 2, axis=2)
        return Conv3x3.convolution_op(self, x, kernel)

    monkeypatch.setattr(EnlargingConv3x3, "convolution_op", convolution_op)


@pytest.mark.parametrize(
    "config, resolution, gflops, parameters",
    [
        pytest.param(SMALL_UNET, 32, 4.82, 17.7, id="small_unet"),
        pytest.param(SMALL_NESTED, 64, 6.99, 18.6, id="small_nested"),
    ],
)
def test_small_counts_are_the_recorded_ones(
    enlarged_first, config, resolution, gflops, parameters
):
    network, counts = shapes_only(config, resolution, 512)
    assert (
        round(sum(count_flops(network, text(network, 32)).values()) / 1e9, 2) == gflops
    )
    assert round(counts[0] / 1e6, 1) == parameters


@pytest.mark.parametrize(
    "name, parameters, gflops",
    [
        ("64", [461_359_107], 363.9),
        ("256", [476_613_958, 461_359_107], 589.1),
        ("1024", [480_970_057, 476_613_958, 461_359_107], None),
    ],
)
def test_released_counts_are_the_recorded_ones(
    enlarged_first, name, parameters, gflops
):
    config = RELEASED[name]
    network, counts = shapes_only(config["unet_config"], config["px"], config["lm_dim"])
    assert counts == parameters
    if gflops is not None:
        assert (
            round(sum(count_flops(network, text(network, 32)).values()) / 1e9, 1)
            == gflops
        )


def test_released_networks_normalize_as_released():
    networks = [
        shapes_only(c["unet_config"], c["px"], c["lm_dim"])[0].networks
        for c in RELEASED.values()
    ]
    normalized = [[d.normalize_input for d in nest[:-1]] for nest in networks]
    assert normalized == [[], [False], [False, True]]
    assert [nest[0].levels for nest in networks] == [
        (64,),
        (256, 64),
        (1024, 256, 64),
    ]


def test_flops_of_the_smallest_network_by_hand():
    network = UNet(8, (32,), num_residual_blocks=1, mid_blocks=False)
    pixels, size = 64, 128
    conv = 2 * pixels * 9
    modulation = 2 * size * 64
    time = 2 * (size // 4) * size + 2 * size * size
    first = conv * 32 * 32 * 2 + modulation
    wide = conv * (64 * 32 + 32 * 32) + 2 * pixels * 64 * 32 + modulation
    ends = conv * 3 * 32 * 2
    # One block down; two up, each of which reads a skip connection.
    assert count_flops(network) == {8: time + ends + first + 2 * wide}
    assert count_condition_flops(network) == {8: 0}


def test_flops_of_attention_by_hand():
    options = {"num_residual_blocks": 1, "mid_blocks": False, "num_heads": 4}
    conditioner = TextEmbeddings(16)
    plain = UNet(8, (32,), conditioner=conditioner, **options)
    attentive = UNet(
        8, (32,), num_attention_layers=1, conditioner=conditioner, **options
    )
    pixels, tokens, width = 64, 5, 32
    dense = 2 * pixels * (width * 3 * width + width * width + 2 * width * 4 * width)
    products = 2 * 2 * pixels * (pixels + tokens) * width
    keys_values = 2 * tokens * 16 * 2 * width
    layers = 3  # after each residual block
    found = (
        count_flops(attentive, text(attentive, tokens))[8]
        - count_flops(plain, text(plain, tokens))[8]
    )
    assert found == layers * (dense + products + keys_values)
    pooled = 2 * 16 * 128
    assert (
        count_condition_flops(attentive, text(attentive, tokens))[8]
        == layers * keys_values + pooled
    )


def traced_flops(network, features):
    """FLOPs of products and convolutions in JAX' own trace of a network."""
    import jax

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            out = math.prod(equation.outvars[0].aval.shape)
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                total += 2 * out * math.prod(shape[axis] for axis in contracted)
            elif equation.primitive.name == "conv_general_dilated":
                *window, inputs, _ = equation.invars[1].aval.shape
                products = 2 * out * math.prod(window) * inputs
                # Of a transposed convolution most are products with zeros.
                total += products // math.prod(equation.params["lhs_dilation"])
            for inner in jax.tree_util.tree_leaves(
                list(equation.params.values()),
                is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
            ):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    total += count(getattr(inner, "jaxpr", inner))
        return total

    images = [
        np.zeros((1, size, size, network.image_channels), "float32")
        for size in network.levels
    ]
    inputs = {**features, "images": images, "timesteps": np.zeros(1, "int32")}
    return count(jax.make_jaxpr(lambda inputs: network(inputs))(inputs).jaxpr)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="reads a trace of JAX")
@pytest.mark.parametrize("kind", ["none", "labels", "text"])
def test_flops_are_those_of_the_traced_network(kind):
    conditioner, features = {
        "none": (None, {}),
        "labels": (ClassLabels(3, 16), {"labels": np.zeros(1, "int32")}),
        "text": (
            TextEmbeddings(16),
            {"text_embeddings": np.zeros((1, 7, 16), "float32")},
        ),
    }[kind]
    inner = UNet(
        8,
        (32, 64),
        num_residual_blocks=(2, 1),
        num_attention_layers=(0, 2),
        conditioner=conditioner,
        token_projection_size=24 if conditioner else None,
        num_token_blocks=1 if conditioner else 0,
        micro_conditioning={"scale": 8.0},
    )
    network = NestedUNet(inner, (32, 32, 64), (1, 2, 1), num_attention_layers=(0, 0, 1))
    found = count_flops(network, features)
    assert sum(found.values()) == traced_flops(network, features)
    inside = count_flops(inner, features)
    assert inside == {8: found[8]}
