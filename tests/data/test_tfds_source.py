"""TFDS sets: the prepared shapes, mocked public sets, and wrong names."""

import concurrent.futures
import pickle
import shutil
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import run_python

from keras_mdm.data import make_dataset, open_source, shapes, tfds_source
from keras_mdm.data.shapes_drawing import draw, draw_clips

pytestmark = pytest.mark.once


@pytest.mark.parametrize("config", ["single", "scenes"])
def test_prepared_shapes_are_the_drawn_scenes(shapes_dir, config):
    for split, size in (("train", 24), ("test_held_out", 12)):
        source = open_source(f"shapes/{config}", split, data_dir=shapes_dir)
        assert len(source) == size
        assert source.num_classes == 30
        assert source.class_names == shapes.CLASS_NAMES
        assert source.has_captions and not source.is_video
        for index in (0, 5, 11):
            scene = shapes.make_scene(config, split, index)
            item = source[index]
            np.testing.assert_array_equal(item["image"], draw([scene], 64)[0])
            assert item["label"] == scene.label
            assert item["caption"] == scene.caption
            attributes = item["attributes"]
            assert attributes["background"] == scene.background
            assert attributes["count"] == len(scene.items)
            assert [shapes.Item(**i) for i in attributes["items"]] == list(scene.items)


def test_prepared_clips(shapes_dir):
    source = open_source("shapes/clips", data_dir=shapes_dir)
    scene = shapes.make_scene("clips", "train", 3)
    item = source[3]
    assert source.is_video
    np.testing.assert_array_equal(item["video"], draw_clips([scene], 64)[0])
    assert item["attributes"]["direction"] == scene.direction
    assert item["attributes"]["velocity"] == scene.velocity
    batch = next(iter(make_dataset(source, 16, 4, shuffle=False)))
    assert batch["videos"].shape == (4, 8, 16, 16, 3)
    np.testing.assert_allclose(
        batch["videos"][3].astype(int), draw_clips([scene], 16)[0], atol=1
    )


def test_the_first_frames_of_clips(shapes_dir):
    source = open_source("shapes/clips", data_dir=shapes_dir, num_frames=3)
    scene = shapes.make_scene("clips", "train", 3)
    np.testing.assert_array_equal(source[3]["video"], draw_clips([scene], 64)[0, :3])
    assert next(iter(make_dataset(source, 16, 4)))["videos"].shape[1] == 3
    with pytest.raises(ValueError, match="have 8 frames. Received: num_frames=9"):
        open_source("shapes/clips", data_dir=shapes_dir, num_frames=9)
    with pytest.raises(ValueError, match="does not tell the frame rate.*frame_rate=4"):
        open_source("shapes/clips", data_dir=shapes_dir, frame_rate=4)


def test_sources_travel_to_workers(shapes_dir):
    source = open_source("shapes/scenes", data_dir=shapes_dir)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[5]["image"], source[5]["image"])


def test_shapes_means_single(shapes_dir):
    assert open_source("shapes", data_dir=shapes_dir).name == "shapes/single"


def test_tfds_finds_the_builder_and_slices(shapes_dir):
    info = tfds.builder("shapes/single", data_dir=shapes_dir).info
    assert info.splits["train"].num_examples == 24
    assert len(open_source("shapes", "train[:25%]", data_dir=shapes_dir)) == 6


@pytest.fixture
def mocked(monkeypatch, tmp_path):
    """Fake records for any set, and no preparation."""
    monkeypatch.setattr(tfds_source, "prepare", lambda builder, name: builder)
    monkeypatch.setattr(tfds_source, "RecordSizes", unittest.mock.MagicMock())
    with tfds.testing.mock_data(num_examples=5):
        yield tmp_path


@pytest.mark.parametrize(
    "name, classes", [("cifar10", 10), ("oxford_flowers102", 102), ("mnist", 10)]
)
def test_public_sets(mocked, name, classes):
    source = open_source(name, data_dir=mocked)
    item = source[0]
    assert len(source) == 5
    assert source.num_classes == classes == len(source.class_names)
    assert item["image"].dtype == np.uint8 and item["image"].ndim == 3
    assert item["image"].shape[-1] == source.channels == (1 if name == "mnist" else 3)
    assert 0 <= item["label"] < classes
    assert "caption" not in item and not source.has_captions
    batch = next(iter(make_dataset(source, 8, 4)))
    assert batch["images"].shape == (4, 8, 8, source.channels)
    assert batch["labels"].dtype == np.int32


def test_videos_of_public_sets(mocked):
    whole = open_source("ucf101", data_dir=mocked)
    assert whole.is_video and whole.num_frames is None and whole.num_classes == 101
    lengths = [len(item["video"]) for item in whole]
    assert min(lengths) < max(lengths)
    with pytest.raises(ValueError, match="may differ in length.*num_frames"):
        make_dataset(whole, 8, 2)
    source = open_source("ucf101", data_dir=mocked, num_frames=min(lengths) + 1)
    batches = list(make_dataset(source, 8, 1))
    usable = sum(length > min(lengths) for length in lengths)
    assert [len(batch["videos"][0]) for batch in batches] == [min(lengths) + 1] * usable
    assert source.report().startswith(f"{5 - usable} of 5 videos of 'ucf101'")
    assert f"has {min(lengths)} frames, not {min(lengths) + 1}" in source.report()


def test_pictures_of_public_sets_have_no_frames_to_choose(mocked):
    with pytest.raises(ValueError, match="'cifar10' has pictures, not clips"):
        open_source("cifar10", data_dir=mocked, num_frames=8)


def test_captions_of_public_sets(mocked):
    source = open_source("coco_captions", data_dir=mocked)
    assert source.has_captions and source.num_classes is None
    assert isinstance(source[0]["caption"], str)
    # A batch has any of the captions of a picture.
    several = [source[i].get("captions", ()) for i in range(len(source))]
    assert max(map(len, several)) > 1
    keep = ("images", "captions")
    batch = next(iter(make_dataset(source, 8, 2, shuffle=False, keep=keep)))
    for text, texts in zip(batch["captions"].tolist(), several, strict=False):
        assert text in texts


def test_set_without_pictures(mocked):
    with pytest.raises(ValueError, match="no pictures.*features are: .*Tensor"):
        open_source("iris", data_dir=mocked)


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="'digits', 'folder:PATH'.*cifar10.*'cifar1O'"):
        open_source("cifar1O", data_dir=tmp_path)
    with pytest.raises(ValueError, match="'cifar10/nonsense'"):
        open_source("cifar10/nonsense", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Received: name=''"):
        open_source("")


def test_first_uses_at_once(tmp_path):
    """Three processes want a set that nobody has prepared; one of them does it."""
    code = (
        "from keras_mdm.data import open_source, shapes_builder; "
        "config = shapes_builder.Shapes.builder_configs['single']; "
        "config.num_train = 400; config.num_test = 5; "
        f"source = open_source('shapes/single', data_dir={str(tmp_path)!r}); "
        "print(len(source), source[7]['caption'])"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        outputs = list(pool.map(run_python, [code] * 3))
    caption = shapes.make_scene("single", "train", 7).caption
    for output in outputs:
        assert output.splitlines()[-1] == f"400 {caption}"


@pytest.mark.parametrize("made", [1, 2])
def test_set_that_another_process_finishes_meanwhile(
    made, shapes_dir, tmp_path, monkeypatch
):
    """It appears just after the first or second builder of it was made."""
    builders = []
    make = tfds.builder

    def then_finish(*args, **kwargs):
        builders.append(make(*args, **kwargs))
        if len(builders) == made:
            shutil.copytree(shapes_dir / "shapes", tmp_path / "shapes")
        return builders[-1]

    monkeypatch.setattr(tfds, "builder", then_finish)
    source = open_source("shapes/single", data_dir=tmp_path)
    whole = open_source("shapes/single", data_dir=shapes_dir)
    assert len(source) == len(whole) > 0
    assert source[0]["caption"] == whole[0]["caption"]


def test_unknown_split(shapes_dir):
    with pytest.raises(ValueError, match="dev"):
        open_source("shapes", split="dev", data_dir=shapes_dir)


def test_set_prepared_as_tfrecord(shapes_dir, tmp_path):
    """Its metadata, with the format changed, is all that TFDS looks at."""
    (prepared,) = (shapes_dir / "shapes" / "single").iterdir()
    folder = tmp_path / "shapes" / "single" / prepared.name
    folder.mkdir(parents=True)
    for file in prepared.iterdir():
        if file.suffix in (".json", ".txt"):
            text = file.read_text().replace("array_record", "tfrecord")
            (folder / file.name).write_text(text)
    with pytest.raises(ValueError, match="prepared as tfrecord.*no random access"):
        open_source("shapes/single", data_dir=tmp_path)


@pytest.mark.skipif(
    keras.config.backend() == "tensorflow", reason="prepares in this process"
)
def test_failed_preparation_says_what_to_do(tmp_path, monkeypatch):
    builder = tfds.builder("cifar10", data_dir=tmp_path, file_format="array_record")
    # A child that fails at once, in place of a download.
    monkeypatch.setattr(tfds_source.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="pip install tensorflow-cpu"):
        tfds_source.prepare(builder, "cifar10")
