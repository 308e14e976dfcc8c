"""What JAX hands to the compilers of accelerators, looked at without one.

Nothing is compiled: steps are traced as on the device and lowered for it. Compilers
need time for every operation, and some patterns cost them minutes.
"""

import collections
import re

import keras
import numpy as np
import pytest
from helpers import tiny_nest, trainer
from keras import ops

import keras_mdm

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="accelerators' programs are JAX's"
)

BATCH, SIZE = 4, 64


@pytest.fixture(params=["gpu", "tpu"])
def device(request, monkeypatch):
    pretend(monkeypatch, request.param)
    return {"gpu": "cuda", "tpu": "tpu"}[request.param]


@pytest.fixture
def gpu(monkeypatch):
    pretend(monkeypatch, "gpu")


def pretend(monkeypatch, device):
    """Lets the package and JAX believe in an H100 or a TPU."""
    import jax
    import jax._src.cudnn.fused_attention_stablehlo as cudnn

    monkeypatch.setattr(jax, "default_backend", lambda: device)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda version: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda v: False)


def gradient(layers, tokens=16, resolution=16, dtype="mixed_bfloat16", num_heads=8):
    """Gradient of a network with attention to tokens; its arguments as shapes.

    Returns:
        A tuple: the function, its arguments, and the number of attention layers.
    """
    import jax

    network = keras_mdm.UNet(
        resolution,
        (SIZE,),
        num_residual_blocks=1,
        num_attention_layers=layers,
        num_heads=num_heads,
        conditioner=keras_mdm.TextEmbeddings(32),
        token_projection_size=SIZE,
        mid_blocks=False,
        dtype=dtype,
    )

    def loss(weights, data):
        rest = [variable.value for variable in network.non_trainable_variables]
        outputs, _ = network.stateless_call(weights, rest, data, training=True)
        return sum(ops.mean(ops.square(output)) for output in outputs)

    like = jax.ShapeDtypeStruct
    data = {
        "images": [like((BATCH, resolution, resolution, 3), "float32")],
        "timesteps": like((BATCH,), "int32"),
        "text_embeddings": like((BATCH, tokens, 32), "float32"),
        "text_mask": like((BATCH, tokens), "int32"),
    }
    weights = [like(v.shape, v.dtype) for v in network.trainable_variables]
    attentions = sum(len(block.attentions) for _, block in network.blocks())
    return jax.value_and_grad(loss), (weights, data), attentions


def lowered(function, arguments, platform):
    import jax

    traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def equations(jaxpr):
    """Every operation of a traced function and of those that it calls."""
    import jax

    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def count_operations(text):
    return len(re.findall(r" = (?:\"?(?:stablehlo|chlo)\.|call @)", text))


def reductions_over_tokens(layers):
    import jax

    function, arguments, _ = gradient(layers)
    found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    return sum(
        equation.primitive.name == "reduce_sum"
        and equation.invars[0].aval.shape == (BATCH, 16, SIZE)
        and tuple(equation.params["axes"]) == (2,)
        for equation in found
    )


def test_condition_tokens_are_normalized_once(gpu):
    """Of sixteen layer norms of the same tokens, XLA fused all gradients into one
    kernel, and took minutes to search for its shape."""
    few, many = reductions_over_tokens(1), reductions_over_tokens(3)
    assert few == many > 0


def test_the_embedding_passes_its_activation_once(gpu):
    """Rather than once for each residual block that it modulates."""
    import jax

    for layers in (1, 3):
        function, arguments, _ = gradient(layers)
        found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
        shape = (BATCH, 4 * SIZE)
        sigmoids = [
            equation
            for equation in found
            if equation.primitive.name == "logistic"
            and equation.outvars[0].aval.shape == shape
        ]
        # Forward and backward, of it and of the perceptron that makes it.
        assert len(sigmoids) <= 4


def test_gelu_is_of_erf_in_float32(gpu):
    """By erfc in bfloat16, JAX' own, a TPU's product takes twice as long."""
    import jax

    function, arguments, _ = gradient(1)
    found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    kinds = {
        (equation.primitive.name, str(equation.invars[0].aval.dtype))
        for equation in found
        if equation.primitive.name.startswith("erf")
    }
    assert kinds == {("erf", "float32")}


def test_heads_are_products_of_their_own(gpu):
    """Queries, keys and values of one product are parted, and on a TPU moved."""
    import jax

    function, arguments, _ = gradient(1)
    found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    shapes = [
        variable.aval.shape
        for equation in found
        for variable in equation.outvars
        if variable.aval.shape[:1] == (BATCH,)
    ]
    heads = [shape for shape in shapes if shape[2:] == (8, SIZE // 8)]
    together = [s for s in shapes if len(s) == 3 and s[-1] in (2 * SIZE, 3 * SIZE)]
    assert heads and not together


@pytest.mark.parametrize(
    ("tokens", "resolution"), [(16, 16), (77, 16), (1, 16), (16, 7)]
)
def test_attention_is_one_kernel_of_cudnn(gpu, tokens, resolution):
    """To pixels and to tokens, forward and backward; odd lengths are filled up."""
    function, arguments, attentions = gradient(2, tokens, resolution)
    text = lowered(function, arguments, "cuda")
    found = collections.Counter(re.findall(r"__cudnn\$fmha\w+", text))
    forward = {name: n for name, n in found.items() if not name.endswith("Backward")}
    assert sum(forward.values()) == 2 * attentions
    assert sum(found.values()) == 4 * attentions


def test_attention_in_float32_is_plain_and_silent(gpu, capfd):
    function, arguments, _ = gradient(1, dtype="float32")
    assert "__cudnn" not in lowered(function, arguments, "cuda")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_self_attention_is_one_kernel_on_a_tpu(monkeypatch):
    """Over pixels, with wide heads; tokens are too few for its blocks."""
    pretend(monkeypatch, "tpu")
    function, arguments, attentions = gradient(2, num_heads=1)
    import jax

    found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    kernels = sum(equation.primitive.name == "pallas_call" for equation in found)
    # One forward, and two backward: for queries, and for keys and values.
    assert kernels == 3 * attentions


def test_a_network_stays_small(device):
    """36 operations a weight in November 2026, at most."""
    function, arguments, _ = gradient(2)
    operations = count_operations(lowered(function, arguments, device))
    assert operations < 42 * len(arguments[0])


class _Caught(Exception):
    pass


def test_a_training_step_stays_small(device, monkeypatch):
    """With its optimizer and its average: 62 operations a weight in November 2026."""
    import jax
    from keras.src.backend.jax import trainer as keras_trainer

    mdm = trainer(
        tiny_nest(2, resolution=4),
        optimizer=keras_mdm.AdamW(),
        ema_momentum=0.999,
        ema_warmup=True,
    )
    found = {}

    def catch(function, **options):
        def call(*arguments):
            found["arguments"] = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments
            )
            raise _Caught

        found["function"] = function
        return call

    monkeypatch.setattr(keras_trainer, "jit", catch)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 8, 8, 1), dtype="uint8")
    labels = np.zeros(BATCH, "int32")
    with pytest.raises(_Caught):
        mdm.fit({"images": images, "labels": labels}, batch_size=BATCH, verbose=0)
    text = lowered(found["function"], found["arguments"], device)
    weights = len(mdm.trainable_variables)
    print(count_operations(text) / weights)
    assert count_operations(text) < 70 * weights
    # Both powers of the optimizer, for all weights together.
    assert len(re.findall(r"stablehlo\.power", text)) <= 2
