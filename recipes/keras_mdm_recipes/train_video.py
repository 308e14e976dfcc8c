"""Trains a nested text-to-video model progressively, from pictures to clips.

    keras-mdm train-video --output runs/clips

draws moving coloured shapes from sentences. It begins with the pictures of
`mdm_shapes_64` (`model.start_from`), then trains clips of eight frames, then larger
ones.
Other clips, cut from the beginning of video files (mp4, webm, gif) that are captioned
as folders of pictures are, or from a TFDS set:

    keras-mdm train-video --output runs/mine --dataset clips:PATH \
        --set data.num_frames=8 data.frame_rate=8
    keras-mdm train-video --output runs/ucf --dataset ucf101 \
        --set data.num_frames=8

The run folder is that of train-image; `samples/` has an animated picture for each
stage, every resolution side by side and the truth last. `--set stage.mixed=8x32=1,16=3`
makes three of four samples single pictures.
"""

import sys

from keras_mdm_recipes import train_text_to_image as text
from keras_mdm_recipes import training
from keras_mdm_recipes.sources import open_data

NAME = "train-video"
DEFAULTS = {
    "data.dataset": "shapes/clips",
    "model.preset": "mdm_shapes_32v",
    "samples.num_samples": 8,
}
# Of `mdm_shapes_32v`, for a CPU: pictures, clips, larger clips.
SMALL = {
    **text.SMALL,
    "stage.steps": [40, 240, 60],
    "stage.batch_size": [16, 4, 4],
    "stage.learning_rate": [7e-4, 7e-4, 4e-4],
}
# A trained model whose pictures the frames of `mdm_shapes_32v` begin as.
PICTURES = "mdm_shapes_64"


def open_source(settings):
    """The clips to train on."""
    return open_clips(settings, settings.data.split)


def open_clips(settings, split):
    """The clips of a split; without captions, the names of classes are theirs."""
    from keras_mdm import data

    source = open_data(
        vars(settings.data),
        split,
        num_frames=settings.data.num_frames,
        frame_rate=settings.data.frame_rate,
    )
    return source if source.has_captions else data.ClassCaptions(source)


def make_model(settings, source):
    """The model, which begins as `PICTURES` where that has its network and words."""
    from keras_mdm import data
    from keras_mdm.levels import read_level

    model = settings.model
    mdm = text.make_model(settings, source)
    if read_level(mdm.network.level)[0] == 1:
        raise ValueError(f"the preset '{model.preset}' draws pictures, not clips.")
    data.at_level(source, mdm.network.level)  # Raises an error if they do not fit.
    if model.start_from is None and starts_from_pictures(settings):
        model.start_from = PICTURES
    return mdm


def starts_from_pictures(settings):
    """Whether `PICTURES` has the network and the words of this run."""
    model = settings.model
    own_words = model.tokens is not None or model.max_tokens is not None
    shapes = settings.data.dataset.startswith("shapes") and not own_words
    return shapes and model.preset == "mdm_shapes_32v"


def make_grid(settings, source, mdm):
    """Prompts, or real captions with their clips, as the model draws them."""
    import numpy as np

    from keras_mdm import data
    from keras_mdm.levels import read_level

    if settings.samples.prompts:
        grid = text.make_grid(settings, source, mdm)
    else:
        embeddings, level = text.attach_text(settings, mdm), mdm.network.level
        shown = source
        if settings.data.dataset.startswith("shapes"):
            shown = open_clips(settings, "validation")
        count = settings.samples.num_samples
        found = list(training.readable(data.at_level(shown, level), count))
        size = read_level(level)[1]
        clips = [data.prepare_picture(item["video"], size) for item in found]
        captions = [item["caption"] for item in found]
        options = {"prompts": captions}
        if embeddings is not None and mdm.text_encoder is None:
            options = {"features": embeddings.look_up(captions)}
        options.update(titles=captions, truth=np.stack(clips))
        grid = training.Grid(("images", "captions"), options, embeddings=embeddings)
    keep = ("images", "videos", "captions")
    grid.keep = keep[:2] if grid.embeddings else keep
    return grid


def main(arguments=None):
    training.run(sys.modules[__name__], arguments)
