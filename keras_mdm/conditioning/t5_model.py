"""The encoder of a T5 model as a Keras model of keras-hub's layers.

keras-hub has no preset of FLAN-T5-XL and no reader for T5 in the form of Hugging Face.
"""

import contextlib
import re
import warnings

import numpy as np
from keras import ops

from keras_mdm.conditioning import t5_files

# Names of Hugging Face's weights, and what they are here. Kernels are transposed.
_LAYER_WEIGHTS = {
    "layer.0.SelfAttention.q.weight": "self_attention.query_projector.kernel",
    "layer.0.SelfAttention.k.weight": "self_attention.key_projector.kernel",
    "layer.0.SelfAttention.v.weight": "self_attention.value_projector.kernel",
    "layer.0.SelfAttention.o.weight": "self_attention.output_projector.kernel",
    "layer.0.layer_norm.weight": "self_attention_layer_norm.weight",
    "layer.1.layer_norm.weight": "layer_norm.weight",
    "layer.1.DenseReluDense.wo.weight": "output_projector.kernel",
}
_GATED = {
    "layer.1.DenseReluDense.wi_0.weight": "input_projector.kernel",
    "layer.1.DenseReluDense.wi_1.weight": "gate_projector.kernel",
}
_PLAIN = {"layer.1.DenseReluDense.wi.weight": "input_projector.kernel"}


def gelu_new(x):
    """GELU by its `tanh` approximation, as `gelu_new` of Hugging Face."""
    return ops.gelu(x, approximate=True)


_ACTIVATIONS = {
    "relu": (ops.relu, False),
    "gated-gelu": (gelu_new, True),
    "gated-silu": (ops.silu, True),
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
    model = _build(read_config(folder), dtype)
    _assign(model, t5_files.WeightFiles(folder), folder)
    return model


def read_config(folder):
    """`config.json` of a T5 model, checked.

    Raises:
        ValueError: if the model is of another kind.
    """
    config = t5_files.read_json(folder / t5_files.CONFIG)
    if config.get("model_type") != "t5":
        raise ValueError(
            f"'{folder}' must have a model of type 't5'. "
            f"Received: model_type={config.get('model_type')!r}"
        )
    projection = config.get("feed_forward_proj", "relu")
    if projection not in _ACTIVATIONS:
        raise ValueError(
            f"`feed_forward_proj` must be one of {sorted(_ACTIVATIONS)}. "
            f"Received: feed_forward_proj={projection!r}"
        )
    # keras-hub's attention has these built in.
    for name, value in (
        ("relative_attention_num_buckets", 32),
        ("relative_attention_max_distance", 128),
    ):
        if config.get(name, value) != value:
            raise ValueError(
                f"`{name}` must be {value}. Received: {name}={config[name]}"
            )
    return config


def encoder_names(names):
    """Those of a T5 model's tensors that the encoder needs, in order."""
    return sorted(
        name
        for name in names
        if name == "shared.weight" or re.match("encoder[.]", name)
    )


def _build(config, dtype):
    try:
        # keras-hub's public T5 has the decoder too, which is larger than the encoder.
        from keras_hub.src.models.stable_diffusion_3.t5_encoder import (
            T5Encoder as EncoderModel,
        )
    except ImportError as error:
        raise ImportError(
            'The T5 encoder needs `pip install "keras-mdm[text]"`.'
        ) from error

    activation, gated = _ACTIVATIONS[config.get("feed_forward_proj", "relu")]
    with mask_is_an_argument():
        return EncoderModel(
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
    gated = model.use_gated_activation
    names = {**_LAYER_WEIGHTS, **(_GATED if gated else _PLAIN)}
    found = {
        "shared.weight": (model.token_embedding.embeddings, False),
        "encoder.final_layer_norm.weight": (model.encoder_layer_norm.weight, False),
    }
    for i, layer in enumerate(model.encoder_transformer_layers):
        for theirs, ours in names.items():
            value = layer
            for part in ours.split("."):
                value = getattr(value, part)
            found[f"encoder.block.{i}.{theirs}"] = (value, ours.endswith("kernel"))
    first = model.encoder_transformer_layers[0].self_attention
    found["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
        first.relative_attention_bias,
        False,
    )
    return found


def _assign(model, files, folder):
    """Puts all weights into the model, after checking every one of them."""
    wanted = _variables(model)
    present = set(encoder_names(files.names))
    # The embeddings have two names, of which a file has one or both.
    twice = {"shared.weight", "encoder.embed_tokens.weight"} & present
    if twice == {"encoder.embed_tokens.weight"}:
        wanted["encoder.embed_tokens.weight"] = wanted.pop("shared.weight")
    elif len(twice) == 2:
        present.remove("encoder.embed_tokens.weight")
    problems = [f"missing: {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected: {name}" for name in sorted(present - set(wanted))]
    for name in sorted(present & set(wanted)):
        variable, transposed = wanted[name]
        shape = files.read(name).shape
        expected = tuple(variable.shape)[::-1] if transposed else tuple(variable.shape)
        if shape != expected:
            problems.append(f"shape of {name}: {shape}, expected {expected}")
    if problems:
        raise ValueError(
            f"the weights in '{folder}' do not fit its {t5_files.CONFIG}:\n"
            + "\n".join(problems)
        )
    for name, (variable, transposed) in wanted.items():
        array = np.asarray(files.read(name))
        variable.assign(array.T if transposed else array)
