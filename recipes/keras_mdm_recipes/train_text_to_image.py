"""Trains a nested text-to-image model progressively, from low to high resolution.

    keras-mdm train-text --output runs/sentences

draws coloured shapes from sentences, with a text encoder that is trained jointly, at
16, then 32, then 64 pixels. Other data with captions:

    keras-mdm train-text --output runs/scenes --dataset shapes/scenes
    keras-mdm train-text --output runs/mine --dataset folder:PATH

CC12M with FLAN-T5-XL, as the paper (`tools/encode_captions.py` says how to get both):

    keras-mdm train-text --output runs/cc12m --preset mdm_s256_text \
        --dataset webdataset:cc12m \
        --set data.embeddings=cc12m_t5 model.text_encoder=flan-t5-xl

The run folder is that of train-image; `samples/` and TensorBoard get pictures of
validation prompts, drawn with the averaged weights.
"""

import sys

from keras_mdm_recipes import stages, training
from keras_mdm_recipes.sources import open_data

NAME = "train-text"
DEFAULTS = {
    "data.dataset": "shapes",
    "model.preset": "mdm_shapes_64",
    "samples.num_samples": 16,
}
SMALL = {**stages.SMALL, "samples.sample_every": 500}


def open_source(settings):
    """Pictures with captions."""
    name = settings.data.dataset
    source = open_data(vars(settings.data), settings.data.split)
    if source.is_video:
        raise ValueError(f"the data set '{name}' has clips, not pictures.")
    source.require_captions(f"--dataset {name}")
    return source


def make_model(settings, source):
    """The model for the data: a jointly trained encoder takes the tokens asked for."""
    import keras_mdm
    from keras_mdm.conditioning import TextConditioner, find_vocabulary

    preset, tokens = settings.model.preset, settings.model.tokens
    max_tokens = settings.model.max_tokens
    options = training.model_options(settings)
    builtin = preset in keras_mdm.MDM.builtin_presets()
    if builtin:
        options.update(load_weights=False, image_channels=source.channels)
    elif tokens or max_tokens:
        raise ValueError(
            "model.tokens and model.max_tokens are for built-in presets: the encoder "
            f"of '{preset}' has its own."
        )
    mdm = keras_mdm.MDM.from_preset(preset, **options)
    conditioner = mdm.network.conditioner
    if not isinstance(conditioner, TextConditioner):
        raise ValueError(f"the preset '{preset}' is not conditional on text.")
    if tokens is None and not settings.data.dataset.startswith("shapes"):
        tokens = "bytes"
    changed = tokens is not None or max_tokens is not None
    if not (builtin and changed and isinstance(conditioner, keras_mdm.TextEncoder)):
        return mdm
    changes = {}
    if max_tokens is not None or tokens == "bytes":
        changes["max_tokens"] = max_tokens or 128
    if tokens == "bytes":
        changes["vocabulary"] = None
    elif tokens == "words":
        items = training.readable(source, 20_000)
        changes["vocabulary"] = find_vocabulary(item["caption"] for item in items)
    encoder = keras_mdm.TextEncoder(**{**conditioner.get_config(), **changes})
    return keras_mdm.MDM.from_preset(preset, conditioner=encoder, **options)


def make_grid(settings, source, mdm):
    """Prompts, or captions that training has not seen, or those of the embeddings."""

    embeddings = attach_text(settings, mdm)
    prompts, count = settings.samples.prompts, settings.samples.num_samples
    keep = ("images", "captions") if embeddings is None else ("images",)
    given = "prompts"
    if embeddings is not None and mdm.text_encoder is None:
        if prompts:
            raise ValueError("samples.prompts needs model.text_encoder to encode them.")
        prompts, given = find_captions(source, count, embeddings), "features"
    elif not prompts:
        if settings.data.dataset.startswith("shapes"):
            source = open_data(vars(settings.data), "validation")
        prompts = find_captions(source, count)
    shown = embeddings.look_up(prompts) if given == "features" else prompts
    return training.Grid(keep, {given: shown, "titles": prompts}, embeddings=embeddings)


def find_captions(source, count, among=None):
    """The first captions of a source, of those that are `among` others if given."""
    captions = [item["caption"] for item in training.readable(source, 20 * count)]
    captions = [text for text in captions if among is None or text in among]
    if not captions:
        raise ValueError(f"no caption of {source.name!r} is in data.embeddings.")
    return captions[:count]


def attach_text(settings, mdm):
    """Opens embeddings and attaches the encoder, for a model on embeddings.

    Returns:
        `EmbeddingShards` or `None`.
    """
    import keras_mdm
    from keras_mdm import data

    conditioner, preset = mdm.network.conditioner, settings.model.preset
    folder, text_encoder = settings.data.embeddings, settings.model.text_encoder
    if not isinstance(conditioner, keras_mdm.TextEmbeddings):
        if folder or text_encoder:
            raise ValueError(
                "data.embeddings and model.text_encoder are for presets on "
                f"embeddings, such as mdm_s64_text. Received: --preset {preset}"
            )
        return None
    if not folder and not text_encoder:
        raise ValueError(
            f"'{preset}' reads embeddings of size {conditioner.size}, of "
            f"{conditioner.encoder_name or 'some encoder'}: give data.embeddings, or "
            "model.text_encoder to encode captions while training."
        )
    if text_encoder:
        from keras_mdm.conditioning.t5 import T5Encoder

        mdm.text_encoder = T5Encoder.from_hugging_face(text_encoder)
    if not folder:
        return None
    embeddings = data.EmbeddingShards(folder, conditioner.max_tokens)
    if embeddings.size != conditioner.size:
        raise ValueError(
            f"data.embeddings '{folder}' have the size {embeddings.size}; the "
            f"model '{preset}' was made for {conditioner.size}."
        )
    return embeddings


def main(arguments=None):
    training.run(sys.modules[__name__], arguments)
