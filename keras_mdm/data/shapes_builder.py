"""TFDS builder of the generated shapes: `shapes/single`, `/scenes` and `/clips`.

Importing this module registers the set, after which `tfds.builder("shapes/single")`
finds it. `open_source("shapes")` does both. Preparing and reading work without
TensorFlow. Record `index` of a split is `make_scene(config, split, index)`.
"""

import dataclasses
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from keras_mdm.data import shapes, shapes_drawing

RESOLUTION = 64
_CHUNK = 100


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """Configuration of `Shapes`.

    Args:
        num_train: Int. Number of training scenes.
        num_test: Int. Number of scenes of each of the other splits.
    """

    num_train: int = 8000
    num_test: int = 500


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Generated pictures and clips of coloured shapes, with captions.

    Splits: `train`, `validation`, `test`, and `test_held_out`, which has the
    combinations of colour, shape and place kept from the others
    (`shapes.is_held_out`).
    """

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [
        ShapesConfig(name="single", description="One large shape."),
        ShapesConfig(name="scenes", description="One to three shapes."),
        ShapesConfig(
            name="clips",
            description="One moving shape.",
            num_train=4000,
            num_test=250,
        ),
    ]

    def _info(self):
        picture = tfds.features.Image(
            shape=(RESOLUTION, RESOLUTION, 3), encoding_format="png"
        )
        features = {
            "label": tfds.features.ClassLabel(names=list(shapes.CLASS_NAMES)),
            "caption": tfds.features.Text(),
            "background": tfds.features.Text(),
            "items": tfds.features.Sequence(
                {
                    "shape": tfds.features.Text(),
                    "colour": tfds.features.Text(),
                    "size": tfds.features.Text(),
                    "place": tfds.features.Text(),
                    "x": np.float32,
                    "y": np.float32,
                    "radius": np.float32,
                }
            ),
        }
        if self.builder_config.name == "clips":
            # Not `features.Video`: constructing that imports TensorFlow.
            features["video"] = tfds.features.Sequence(
                picture, length=shapes.NUM_FRAMES
            )
            features["direction"] = tfds.features.Text()
            features["velocity"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        else:
            features["image"] = picture
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            # Record `index` stays scene `index`; reading shuffles anyway.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Nothing to download.
        return {split: self._generate_examples(split) for split in shapes.SPLITS}

    def _generate_examples(self, split):
        config = self.builder_config
        count = config.num_train if split == "train" else config.num_test
        for start in range(0, count, _CHUNK):
            numbers = range(start, min(start + _CHUNK, count))
            scenes = [shapes.make_scene(config.name, split, n) for n in numbers]
            if config.name == "clips":
                pictures = shapes_drawing.draw_clips(scenes, RESOLUTION)
            else:
                pictures = shapes_drawing.draw(scenes, RESOLUTION)
            for number, scene, picture in zip(numbers, scenes, pictures, strict=True):
                yield number, _example(scene, picture)


def _example(scene, picture):
    example = {
        "label": scene.label,
        "caption": scene.caption,
        "background": scene.background,
        "items": [dataclasses.asdict(item) for item in scene.items],
    }
    if scene.direction is None:
        return example | {"image": _png(picture)}
    return example | {
        "video": [_png(frame) for frame in picture],
        "direction": scene.direction,
        "velocity": np.array(scene.velocity, np.float32),
    }


def _png(picture):
    # TFDS would encode arrays with TensorFlow; it stores bytes as they are.
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def attributes_of(record):
    """Returns what a record tells of its `shapes.Scene`, as plain values."""

    def plain(value):
        return value.decode() if isinstance(value, bytes) else float(value)

    columns = record["items"]
    items = [
        {key: plain(value) for key, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
    attributes = {
        "background": record["background"].decode(),
        "count": len(items),
        "items": items,
    }
    if "direction" in record:
        attributes["direction"] = record["direction"].decode()
        attributes["velocity"] = tuple(float(v) for v in record["velocity"])
    return attributes
