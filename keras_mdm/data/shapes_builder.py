"""TFDS builder of the generated shapes: `shapes/single`, `/scenes` and `/clips`.

Importing this module registers the set, after which `tfds.builder("shapes/single")`
finds it. `open_source("shapes")` does both. Preparing and reading work without
TensorFlow. Record `index` of a split is `make_scene(config, split, index)`.
"""

import dataclasses
import io
import json

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
    """Generated pictures and clips of colored shapes, with captions.

    Splits: `train`, `validation`, `test`, and `test_held_out`, which has the
    combinations of color, shape and place kept from the others
    (`shapes.is_held_out`).
    """

    VERSION = tfds.core.Version("1.3.0")
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
            # What else is known of the scene, as JSON.
            "attributes": tfds.features.Text(),
        }
        if self.builder_config.name == "clips":
            # Not `features.Video`: constructing that imports TensorFlow.
            features["video"] = tfds.features.Sequence(
                picture, length=shapes.NUM_FRAMES
            )
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
    attributes = dataclasses.asdict(scene) | {"count": len(scene.items)}
    example = {
        "label": scene.label,
        "caption": scene.caption,
        "attributes": json.dumps(attributes),
    }
    if scene.direction is None:
        return example | {"image": _png(picture)}
    return example | {"video": [_png(frame) for frame in picture]}


def _png(picture):
    # TFDS would encode arrays with TensorFlow; it stores bytes as they are.
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()
