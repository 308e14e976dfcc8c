"""Trains a nested text-to-video model progressively, from pictures to clips.

    python recipes/train_video.py --output runs/clips

draws moving coloured shapes from sentences. It begins with the pictures of
`mdm_shapes_64` (`--start-from`), then trains clips of eight frames, then larger ones.
Other clips, cut from the beginning of video files (mp4, webm, gif) that are captioned
as folders of pictures are, or from a TFDS set:

    python recipes/train_video.py --output runs/mine --dataset clips:PATH \
        --num-frames 8 --frame-rate 8
    python recipes/train_video.py --output runs/ucf --dataset ucf101 --num-frames 8

The run folder is that of train_image.py; `samples/` has an animated picture for each
stage, every resolution side by side and the truth last. `--mixed 8x32=1 16=3` makes
three of four samples single pictures.
"""

import argparse

import common
import train_text_to_image as text
import training
import training_flags

# Of `mdm_shapes_32v`, for a CPU: pictures, clips, larger clips.
SMALL_STAGES = {
    "steps": (40, 240, 60),
    "batch_size": (16, 4, 4),
    "learning_rate": (7e-4, 7e-4, 4e-4),
    "warmup_steps": (20,),
}
# A trained model whose pictures the frames of `mdm_shapes_32v` begin as.
PICTURES = "mdm_shapes_64"


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=common.HelpFormatter
    )
    add = parser.add_argument
    training_flags.add_run_flags(parser)
    add(
        "--dataset",
        default="shapes/clips",
        help="'shapes/clips', 'clips:PATH' or a TFDS set of videos; without captions, "
        "names of classes are drawn from",
    )
    add(
        "--preset",
        default="mdm_shapes_32v",
        help="built-in preset or preset folder to start from",
    )
    group = parser.add_argument_group("clips")
    add = group.add_argument
    add(
        "--num-frames",
        type=int,
        help="frames of a clip, as many as the model's or a multiple of them; needed "
        "where videos may differ in length",
    )
    add(
        "--frame-rate",
        type=float,
        help="frames a second, picked from video files by their time stamps (default: "
        "every frame)",
    )
    text.add_text_flags(parser)
    training_flags.add_stage_flags(parser, SMALL_STAGES)
    training_flags.add_data_flags(parser)
    training_flags.add_model_flags(
        parser, start=f"{PICTURES} for mdm_shapes_32v on shapes, or else none"
    )
    parser.set_defaults(num_samples=8)
    return parser.parse_args(arguments), parser


def starts_from_shapes(args):
    """Whether `PICTURES` has the network and the words of this run."""
    own_words = args.tokens is not None or args.max_tokens is not None
    shapes = args.dataset.startswith("shapes") and not own_words
    return shapes and args.preset == "mdm_shapes_32v"


def open_clips(args, split):
    """The clips of a split; without captions, the names of classes are theirs."""
    from keras_mdm import data

    source = data.open_source(
        args.dataset,
        split,
        args.data_dir,
        num_frames=args.num_frames,
        frame_rate=args.frame_rate,
    )
    return source if source.has_captions else data.ClassCaptions(source)


def find_examples(args, source, level):
    """Real clips as the model draws them, and their captions, for the grids."""
    import numpy as np

    from keras_mdm import data
    from keras_mdm.levels import read_level

    if args.dataset.startswith("shapes"):
        source = open_clips(args, "validation")
    found = list(training.readable(data.at_level(source, level), args.num_samples))
    size = read_level(level)[1]
    clips = np.stack([data.prepare_picture(item["video"], size) for item in found])
    return clips, [item["caption"] for item in found]


def find_prompts(args, source, mdm, embeddings):
    """Arguments of `SampleGrid`: prompts, or real captions with their clips."""
    if args.prompts:
        return text.find_prompts(args, source, mdm, embeddings)
    clips, captions = find_examples(args, source, mdm.network.level)
    if embeddings is not None and mdm.text_encoder is None:
        given = {"features": embeddings.look_up(captions)}
    else:
        given = {"prompts": captions}
    return {**given, "titles": captions, "truth": clips}


def train(args, parser):
    output, args = training.begin(args, parser)

    from keras_mdm import data
    from keras_mdm.levels import read_level

    defaults = training.fill_defaults(args, SMALL_STAGES, sample_every=500)
    if args.start_from is None and starts_from_shapes(args):
        args.start_from = PICTURES
    source = open_clips(args, args.split)
    mdm = text.make_model(args, source)
    if read_level(mdm.network.level)[0] == 1:
        raise ValueError(f"the preset '{args.preset}' draws pictures, not clips.")
    data.at_level(source, mdm.network.level)  # Raises an error if they do not fit.
    training.load_start(args, mdm)
    stages = training.make_stages(args, mdm, defaults)
    options = training.sampling_options(args, mdm)
    embeddings = text.attach_text(args, mdm)
    options.update(find_prompts(args, source, mdm, embeddings))
    keep = ("images", "videos") if embeddings else ("images", "videos", "captions")
    make_dataset = training.dataset_maker(args, source, mdm, keep, embeddings)
    training.fit(args, output, source, mdm, stages, make_dataset, options)


def main(arguments=None):
    training.run(train, *parse_arguments(arguments))


if __name__ == "__main__":
    main()
