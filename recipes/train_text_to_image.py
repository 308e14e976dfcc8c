"""Trains a nested text-to-image model progressively, from low to high resolution.

    python recipes/train_text_to_image.py --output runs/sentences

draws coloured shapes from sentences, with a text encoder that is trained jointly, at
16, then 32, then 64 pixels. Other data with captions:

    python recipes/train_text_to_image.py --output runs/scenes --dataset shapes/scenes
    python recipes/train_text_to_image.py --output runs/mine --dataset folder:PATH

CC12M with FLAN-T5-XL, as the paper (`tools/encode_captions.py` says how to get both):

    python recipes/train_text_to_image.py --output runs/cc12m --preset mdm_s256_text \
        --dataset webdataset:cc12m --embeddings cc12m_t5 --text-encoder flan-t5-xl

The run folder is that of train_image.py; `samples/` and TensorBoard get pictures of
validation prompts, drawn with the averaged weights.
"""

import argparse

import common
import training
import training_flags


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=common.HelpFormatter
    )
    add = parser.add_argument
    training_flags.add_run_flags(parser)
    add(
        "--dataset",
        default="shapes",
        help="'shapes', 'shapes/scenes', a TFDS set with captions, 'folder:PATH' or "
        "'webdataset:PATH'",
    )
    add(
        "--preset",
        default="mdm_shapes_64",
        help="built-in preset or preset folder to start from",
    )

    add_text_flags(parser)
    training_flags.add_stage_flags(parser)
    training_flags.add_data_flags(parser)
    training_flags.add_model_flags(parser)
    parser.set_defaults(num_samples=16)
    return parser.parse_args(arguments), parser


def add_text_flags(parser):
    """Flags of models on text; train_video.py has them too."""
    group = parser.add_argument_group("text")
    add = group.add_argument
    add(
        "--tokens",
        choices=("words", "bytes"),
        help="of the jointly trained encoder: words of the data set, or UTF-8 bytes "
        "(default: those of the preset for shapes, bytes for other data)",
    )
    add(
        "--max-tokens",
        type=int,
        help="longer captions are cut (default: the preset's 40 words, or 128 bytes)",
    )
    add(
        "--embeddings",
        help="folder of tools/encode_captions.py, for presets on embeddings: the "
        "encoder is then needed for --prompts alone",
    )
    add("--text-encoder", help="folder of a Hugging Face T5 model, for such presets")
    add(
        "--prompts",
        nargs="+",
        help="what the sample grids show (default: captions of the validation split of "
        "shapes, or the first ones of other data)",
    )


def make_model(args, source):
    """The model for the data: a jointly trained encoder takes the tokens asked for."""
    import keras_mdm

    options = {"dtype": args.dtype, "seed": args.seed, **training.model_options(args)}
    if args.preset not in keras_mdm.MDM.builtin_presets():
        if args.tokens or args.max_tokens:
            raise ValueError(
                "--tokens and --max-tokens are for built-in presets: the encoder of "
                f"'{args.preset}' has its own."
            )
        return keras_mdm.MDM.from_preset(args.preset, **options)
    options.update(load_weights=False, image_channels=source.channels)
    mdm = keras_mdm.MDM.from_preset(args.preset, **options)
    tokens = args.tokens
    if tokens is None and not args.dataset.startswith("shapes"):
        tokens = "bytes"
    conditioner = mdm.network.conditioner
    if not isinstance(conditioner, keras_mdm.TextEncoder):
        return mdm
    if tokens is None and args.max_tokens is None:
        return mdm
    changes = {}
    if args.max_tokens is not None or tokens == "bytes":
        changes["max_tokens"] = args.max_tokens or 128
    if tokens is not None:
        changes["vocabulary"] = find_words(source) if tokens == "words" else None
    encoder = keras_mdm.TextEncoder(**{**conditioner.get_config(), **changes})
    return keras_mdm.MDM.from_preset(args.preset, conditioner=encoder, **options)


def find_words(source, limit=20_000):
    """Words of the first captions of a source."""
    from keras_mdm.conditioning import find_vocabulary

    return find_vocabulary(item["caption"] for item in training.readable(source, limit))


def find_prompts(args, source, mdm, embeddings):
    """Arguments of `SampleGrid`: prompts, or the embeddings of captions."""
    from keras_mdm import data

    if embeddings is not None and mdm.text_encoder is None:
        if args.prompts:
            raise ValueError("--prompts needs --text-encoder to encode them.")
        captions = find_captions(source, args.num_samples, embeddings)
        return {"features": embeddings.look_up(captions), "titles": captions}
    if args.prompts:
        return {"prompts": args.prompts, "titles": args.prompts}
    if args.dataset.startswith("shapes"):
        source = data.open_source(args.dataset, "validation", args.data_dir)
    captions = find_captions(source, args.num_samples)
    return {"prompts": captions, "titles": captions}


def find_captions(source, count, among=None):
    """The first captions of a source, of those that are `among` others if given."""
    captions = [item["caption"] for item in training.readable(source, 20 * count)]
    captions = [text for text in captions if among is None or text in among]
    if not captions:
        raise ValueError(f"no caption of {source.name!r} is in --embeddings.")
    return captions[:count]


def attach_text(args, mdm):
    """Opens embeddings and attaches the encoder, for a model on embeddings.

    Returns:
        `EmbeddingShards` or `None`.
    """
    import keras_mdm
    from keras_mdm import data

    conditioner = mdm.network.conditioner
    if not isinstance(conditioner, keras_mdm.TextEmbeddings):
        if args.embeddings or args.text_encoder:
            raise ValueError(
                "--embeddings and --text-encoder are for presets on embeddings, such "
                f"as mdm_s64_text. Received: --preset {args.preset}"
            )
        return None
    if not args.embeddings and not args.text_encoder:
        raise ValueError(
            f"'{args.preset}' reads embeddings of size {conditioner.size}, of "
            f"{conditioner.encoder_name or 'some encoder'}: give --embeddings, or "
            "--text-encoder to encode captions while training."
        )
    if args.text_encoder:
        from keras_mdm.conditioning.t5 import T5Encoder

        mdm.text_encoder = T5Encoder.from_hugging_face(args.text_encoder)
    if not args.embeddings:
        return None
    embeddings = data.EmbeddingShards(args.embeddings, conditioner.max_tokens)
    if embeddings.size != conditioner.size:
        raise ValueError(
            f"--embeddings '{args.embeddings}' have the size {embeddings.size}; the "
            f"model '{args.preset}' was made for {conditioner.size}."
        )
    return embeddings


def train(args, parser):
    output, args = training.begin(args, parser)

    from keras_mdm import data
    from keras_mdm.conditioning import TextConditioner

    defaults = training.fill_defaults(args, sample_every=500)
    source = data.open_source(args.dataset, args.split, args.data_dir)
    if source.is_video:
        raise ValueError(f"the data set '{args.dataset}' has clips, not pictures.")
    source.require_captions(f"--dataset {args.dataset}")
    mdm = make_model(args, source)
    if not isinstance(mdm.network.conditioner, TextConditioner):
        raise ValueError(f"the preset '{args.preset}' is not conditional on text.")
    training.load_start(args, mdm)
    stages = training.make_stages(args, mdm, defaults)
    options = training.sampling_options(args, mdm)
    embeddings = attach_text(args, mdm)
    options.update(find_prompts(args, source, mdm, embeddings))
    keep = ("images", "captions") if embeddings is None else ("images",)
    make_dataset = training.dataset_maker(args, source, mdm, keep, embeddings)
    training.fit(args, output, source, mdm, stages, make_dataset, options)


def main(arguments=None):
    training.run(train, *parse_arguments(arguments))


if __name__ == "__main__":
    main()
