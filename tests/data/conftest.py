"""Small prepared sets and pictures for the data tests."""

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data.source import Source, UnusablePicture


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch, tmp_path_factory):
    """Indexes of shards are kept in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    """Folder in which the shapes are prepared with few scenes to a split."""
    from keras_mdm.data import shapes_builder

    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        for config in shapes_builder.Shapes.BUILDER_CONFIGS:
            patch.setattr(config, "num_train", 24)
            patch.setattr(config, "num_test", 12)
            shapes_builder.Shapes(
                config=config.name, data_dir=folder, file_format="array_record"
            ).download_and_prepare()
    return folder


@pytest.fixture
def picture_folder(tmp_path):
    """Folder with 12 good pictures in two classes, each of one colour."""
    for number in range(12):
        path = tmp_path / ("cats", "dogs")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 24), (number * 20, 0, 255)).save(path)
    return tmp_path


class NumberedSource(Source):
    """Picture `index` has the value `index` everywhere, and brightens to the right.

    Args:
        size: Int. Number of pictures.
        broken: Indices of the pictures that cannot be read.
        side: Int. Side of the pictures.
    """

    def __init__(self, size, broken=(), side=8):
        super().__init__("numbered", channels=1, class_names=map(str, range(size)))
        self.size = size
        self.broken = broken
        self.side = side

    def __len__(self):
        return self.size

    def _read(self, index):
        if index in self.broken:
            raise UnusablePicture(f"numbered[{index}]", "corrupt")
        image = np.full((self.side, self.side, 1), index, np.uint8)
        image[:, self.side // 2 :] += 100
        return {"image": image, "label": index}


@pytest.fixture
def numbered():
    """The class `NumberedSource`."""
    return NumberedSource
