"""The encoder of a T5 model as a Keras model of keras-hub's layers.

keras-hub has no preset of FLAN-T5-XL and no reader for T5 in the form of Hugging Face.
"""

import contextlib
import functools
import math
import operator
import warnings

from keras import ops

from keras_mdm.conditioning.t5_files import CONFIG, encoder_weights, read_json
from keras_mdm.text_files import printable

# Names of Hugging Face's weights, and what they are here. Kernels are transposed.
_LAYER_WEIGHTS = {
    "layer.0.SelfAttention.q": "self_attention.query_projector.kernel",
    "layer.0.SelfAttention.k": "self_attention.key_projector.kernel",
    "layer.0.SelfAttention.v": "self_attention.value_projector.kernel",
    "layer.0.SelfAttention.o": "self_attention.output_projector.kernel",
    "layer.0.layer_norm": "self_attention_layer_norm.weight",
    "layer.1.layer_norm": "layer_norm.weight",
    "layer.1.DenseReluDense.wo": "output_projector.kernel",
}
_GATED = {
    "layer.1.DenseReluDense.wi_0": "input_projector.kernel",
    "layer.1.DenseReluDense.wi_1": "gate_projector.kernel",
}
_PLAIN = {"layer.1.DenseReluDense.wi": "input_projector.kernel"}
# Whether the layer is gated stands beside its activation.
_ACTIVATIONS = {
    "relu": (ops.relu, False),
    "gated-gelu": (functools.partial(ops.gelu, approximate=True), True),
    "gated-silu": (ops.silu, True),
}
_SIZES = ("vocab_size", "num_layers", "num_heads", "d_model", "d_ff", "d_kv")
# keras-hub's attention has these built in.
_BUILT_IN = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}


@contextlib.contextmanager
def mask_is_an_argument():
    """Silences Keras' warning that layers drop the mask attached to the embeddings.

    keras-hub's model passes it to them as an argument.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* was passed an input with a mask")
        yield


def load_encoder(folder, dtype):
    """Builds the encoder of a T5 model and reads its weights, one after the other.

    Args:
        folder: Path of a folder; see `t5_files`.
        dtype: str. `"float32"` or `"bfloat16"`.

    Returns:
        A Keras model of `token_ids` and `padding_mask`, each int32 of shape
        `(batch, tokens)`, to embeddings of shape `(batch, tokens, hidden_dim)`.

    Raises:
        ValueError: if the model is no T5, or its files are damaged.
    """
    config = read_config(folder)
    activation, gated = _ACTIVATIONS[config.get("feed_forward_proj", "relu")]
    files = encoder_weights(folder)
    _check_sizes(config, files, folder)
    model = _build(config, activation, gated, dtype)
    _assign(model, files, folder)
    return model


def read_config(folder):
    """`config.json` of a T5 model.

    Raises:
        ValueError: if the model is of a kind that can't be built.
    """
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "t5":
        raise ValueError(
            f"'{folder}' must have a model of type 't5'. "
            f"Received: model_type={config.get('model_type')!r}"
        )
    projection = config.get("feed_forward_proj", "relu")
    if not isinstance(projection, str) or projection not in _ACTIVATIONS:
        raise ValueError(
            f"`feed_forward_proj` must be one of {sorted(_ACTIVATIONS)}. "
            f"Received: feed_forward_proj={projection!r}"
        )
    for name, value in _BUILT_IN.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"`{name}` must be {value}. Received: {name}={config[name]!r}"
            )
    return config


def _check_sizes(config, files, folder):
    """Raises a `ValueError` if a model is far larger than its files, before it is."""
    sizes = [config.get(name) for name in _SIZES]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(
            f"'{folder / CONFIG}' must have {', '.join(_SIZES)}, positive whole "
            f"numbers. Received: {sizes}"
        )
    vocabulary, layers, heads, dim, width, head = sizes
    wanted = vocabulary * dim + layers * dim * (4 * heads * head + 2 * width)
    found = sum(math.prod(f.get_slice(n).get_shape()) for n, f in files.items())
    if wanted > 4 * found:
        raise ValueError(
            f"the weights in '{folder}' do not fit its {CONFIG}: it asks for {wanted} "
            f"numbers, and they have {found}."
        )


def _build(config, activation, gated, dtype):
    try:
        # keras-hub's public T5 has the decoder too, which is larger than the encoder.
        from keras_hub.src.models.stable_diffusion_3.t5_encoder import T5Encoder
    except ImportError as error:
        raise ImportError(
            'The T5 encoder needs `pip install "keras-mdm[text]"`.'
        ) from error

    with mask_is_an_argument():
        return T5Encoder(
            vocabulary_size=config["vocab_size"],
            num_layers=config["num_layers"],
            num_heads=config["num_heads"],
            hidden_dim=config["d_model"],
            intermediate_dim=config["d_ff"],
            key_value_dim=config["d_kv"],
            dropout=0.0,
            activation=activation,
            use_gated_activation=gated,
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-6),
            dtype=dtype,
            name="t5_encoder",
        )


def _variables(model):
    """dict of Hugging Face's name to (variable, whether it is transposed)."""
    names = {**_LAYER_WEIGHTS, **(_GATED if model.use_gated_activation else _PLAIN)}
    layers = model.encoder_transformer_layers
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    found = {
        "shared.weight": (model.token_embedding.embeddings, False),
        "encoder.final_layer_norm.weight": (model.encoder_layer_norm.weight, False),
        bias: (layers[0].self_attention.relative_attention_bias, False),
    }
    for i, layer in enumerate(layers):
        for theirs, ours in names.items():
            variable = operator.attrgetter(ours)(layer)
            name = f"encoder.block.{i}.{theirs}.weight"
            found[name] = (variable, ours.endswith("kernel"))
    return found


def _assign(model, files, folder):
    """Puts all weights into the model, after checking every one of them."""
    wanted = _variables(model)
    present = set(files)
    # The embeddings have two names, of which a file has one or both.
    if "shared.weight" not in present:
        wanted["encoder.embed_tokens.weight"] = wanted.pop("shared.weight")
    else:
        present.discard("encoder.embed_tokens.weight")
    problems = [f"missing: {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected: {name}" for name in sorted(present - set(wanted))]
    for name in sorted(present & set(wanted)):
        variable, transposed = wanted[name]
        tensor = files[name].get_slice(name)
        shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
        expected = tuple(variable.shape)[::-1] if transposed else tuple(variable.shape)
        if shape != expected:
            problems.append(f"shape of {name}: {shape}, expected {expected}")
        if dtype not in ("F64", "F32", "F16", "BF16"):
            problems.append(f"dtype of {name}: {dtype}")
    if problems:
        raise ValueError(
            f"the weights in '{folder}' do not fit its {CONFIG}:\n"
            + "\n".join(map(printable, problems))
        )
    for name, (variable, transposed) in wanted.items():
        array = files[name].get_tensor(name)
        variable.assign(array.T if transposed else array)
