"""Trains a nested picture model progressively, from low to high resolution.

    keras-mdm train-image --output runs/shapes

draws coloured shapes, conditional on shape and colour, trained at 16, then 32, then 64
pixels. Other data:

    keras-mdm train-image --output runs/digits --dataset digits
    keras-mdm train-image --output runs/flowers --dataset oxford_flowers102
    keras-mdm train-image --output runs/mine --dataset folder:PATH --set data.flip=true

The run folder gets `preset/` (the model, for `MDM.from_preset` and `keras-mdm sample`),
`samples/` (a grid of pictures for each stage, every resolution side by side),
`history.csv` and `losses.png` (loss of each resolution), `config.json` (all that was
chosen), `logs/` (TensorBoard) and `state/` (from which `--resume` goes on). Without
--preset, it is mdm_tiny_64, or mdm_tiny_32 if the pictures are smaller than 64 pixels.
"""

import sys

from keras_mdm_recipes import stages, training
from keras_mdm_recipes.labels import class_title, spread_labels
from keras_mdm_recipes.sources import open_data

NAME = "train-image"
DEFAULTS = {"data.dataset": "shapes", "samples.num_samples": 20}
SMALL = stages.SMALL


def open_source(settings):
    """The pictures; the small preset that they can fill is chosen if none was."""
    name = settings.data.dataset
    source = open_data(vars(settings.data), settings.data.split)
    if source.is_video:
        raise ValueError(f"the data set '{name}' has clips, not pictures.")
    if settings.model.preset is None:
        first = next(training.readable(source, 1))["image"]
        large = min(first.shape[:2]) >= 64
        settings.model.preset = "mdm_tiny_64" if large else "mdm_tiny_32"
    if source.num_classes is None and not settings.model.unconditional:
        print(f"'{name}' has no labels: the model is trained unconditionally.")
    return source


def make_model(settings, source):
    """The model for the data: a built-in preset takes its classes and channels."""
    import keras_mdm

    preset, unconditional = settings.model.preset, settings.model.unconditional
    options = training.model_options(settings)
    if preset in keras_mdm.MDM.builtin_presets():
        # The message that there are no weights is for those who want to draw.
        return keras_mdm.MDM.from_preset(
            preset,
            load_weights=False,
            num_classes=0 if unconditional else source.num_classes or 0,
            image_channels=source.channels,
            **options,
        )
    mdm = keras_mdm.MDM.from_preset(preset, **options)
    needed = mdm.batch_spec.num_classes
    if needed is not None and (needed != source.num_classes or unconditional):
        raise ValueError(
            f"preset '{preset}' is conditional on {needed} classes, and the data set "
            f"'{settings.data.dataset}' has {source.num_classes or 'no'} classes."
        )
    return mdm


def make_grid(settings, source, mdm):
    """Classes in turn, if the model knows any."""
    count, num_classes = settings.samples.num_samples, mdm.batch_spec.num_classes
    if num_classes is None:
        return training.Grid(("images",), {"num_samples": count})
    class_names = list(source.class_names or [])
    labels = spread_labels(count, num_classes)
    titles = [class_title(label, class_names) for label in labels]
    return training.Grid(
        ("images", "labels"), {"labels": labels, "titles": titles}, class_names
    )


def main(arguments=None):
    training.run(sys.modules[__name__], arguments)
