"""Data sets of Hugging Face: local files, columns, streams, bad input."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import pickle
import sys
import zipfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from keras_mdm.data import UnusablePicture, at_level, make_dataset, open_source

pytestmark = pytest.mark.once

datasets = pytest.importorskip("datasets")

CAPTIONS = ("images", "captions")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No network, and a cache of each test's own."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # Seconds that `datasets` waits for threads at the end of a shuffled pass.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def encode(number, mode="RGB", kind="PNG"):
    color = {"RGB": (number, 0, 0), "L": number, "CMYK": (0, 0, 0, 255 - number)}
    color |= {"RGBA": (number, 0, 0, 0), "LA": (number, 255)}
    file = io.BytesIO()
    Image.new(mode, (12, 10), color[mode]).save(file, kind)
    return file.getvalue()


def write(folder, columns, features, split="train", name="00000"):
    path = folder / "set" / f"{split}-{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_dict(columns, datasets.Features(features))
    rows.to_parquet(str(path))
    return path.parent


IMAGE, TEXT = datasets.Image(), datasets.Value("string")
LABEL = datasets.ClassLabel(names=["even", "odd"])
NUMBER = datasets.Value("int64")


@pytest.fixture
def pictures(tmp_path):
    """Twenty labelled pictures with captions in two files, and three to test."""
    features = {"img": IMAGE, "label": LABEL, "text": TEXT, "width": NUMBER}
    for name, numbers in (("0", range(13)), ("1", range(13, 20))):
        columns = {
            "img": [{"bytes": encode(i), "path": f"{i}.png"} for i in numbers],
            "label": [i % 2 for i in numbers],
            "text": [f" number {i}\n" for i in numbers],
            "width": [100 + i for i in numbers],
        }
        write(tmp_path, columns, features, name=name)
    columns = {key: values[:3] for key, values in columns.items()}
    return write(tmp_path, columns, features, "test")


def reds(pictures):
    return [int(image[0, 0, 0]) for image in pictures]


@pytest.mark.parametrize("stream", ["", "?stream=1"])
def test_columns_are_found_by_their_types(pictures, stream):
    source = open_source(f"hf:{pictures}{stream}")
    assert len(source) == 20 and len(open_source(f"hf:{pictures}{stream}", "test")) == 3
    assert source.class_names == ("even", "odd") and source.has_captions
    for index in (3, 4, 19, 0):
        item = source[index]
        assert item["image"].shape == (10, 12, 3) and item["image"].dtype == np.uint8
        assert reds([item["image"]]) == [index]
        assert item["label"] == index % 2
        assert item["caption"] == f"number {index}"
        assert item["micro_conditioning"] == {"width": 100 + index}
    batch = next(
        iter(
            make_dataset(
                source,
                8,
                20,
                keep=("images", "labels", "captions"),
                micro_conditioning=("scale", "width"),
            )
        )
    )
    numbers = reds(batch["images"])
    assert sorted(numbers) == list(range(20)) and numbers != sorted(numbers)
    assert batch["labels"].tolist() == [n % 2 for n in numbers]
    assert batch["captions"].tolist() == [f"number {n}" for n in numbers]
    assert batch["width"].tolist() == [100 + n for n in numbers]
    assert batch["scale"].tolist() == [10] * 20


def test_pictures_are_decoded_once(pictures, monkeypatch):
    source = open_source(f"hf:{pictures}")
    opened, decoded = Image.open, []
    monkeypatch.setattr(
        datasets.Image, "decode_example", lambda *_: pytest.fail("decoded by datasets")
    )
    monkeypatch.setattr(
        Image, "open", lambda *args, **kw: (decoded.append(1), opened(*args, **kw))[1]
    )
    source[0]
    assert decoded == [1]


@pytest.mark.parametrize("stream", ["", "?stream=1"])
def test_workers_read_each_picture_once(pictures, stream):
    source = open_source(f"hf:{pictures}{stream}")
    copy = pickle.loads(pickle.dumps(source))
    assert copy[5]["caption"] == source[5]["caption"]
    batches = list(make_dataset(source, 8, 2, num_workers=2))
    numbers = reds(np.concatenate([batch["images"] for batch in batches]))
    assert sorted(numbers) == list(range(20)) and numbers != sorted(numbers)


def test_streams_repeat_resume_and_shard(pictures):
    def make(**options):
        source = open_source(f"hf:{pictures}?stream=1")
        return make_dataset(source, 8, 4, repeat=True, flip=True, **options)

    batches = iter(make())
    labels = [reds(next(batches)["images"]) for _ in range(10)]
    one, two = sum(labels[:5], []), sum(labels[5:], [])
    assert sorted(one) == sorted(two) == list(range(20)) and one != two
    dataset = make()
    dataset.epoch = 1
    assert reds(next(iter(dataset))["images"]) == labels[5]
    batches = iter(make(crop="random"))
    for _ in range(7):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches) for _ in range(3)]
    resumed = iter(make(crop="random"))
    resumed.set_state(state)
    for batch in expected:
        found = next(resumed)
        for key in batch:
            np.testing.assert_array_equal(found[key], batch[key])
    parts = [
        set(
            sum(
                (
                    reds(b["images"])
                    for b in itertools.islice(make(shard=(i, 2), shuffle=False), 5)
                ),
                [],
            )
        )
        for i in range(2)
    ]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(range(20))
    plain = make_dataset(
        open_source(f"hf:{pictures}?stream=1"), 8, 5, shuffle=False, keep=CAPTIONS
    )
    assert [reds(b["images"]) for b in plain] == np.arange(20).reshape(4, 5).tolist()


def test_pictures_of_all_modes(tmp_path):
    kinds = [("L", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "JPEG")]
    pictures = [{"bytes": encode(9, *kind), "path": None} for kind in kinds]
    folder = write(tmp_path, {"image": pictures}, {"image": IMAGE})
    source = open_source(f"hf:{folder}")
    assert not source.has_captions and source.num_classes is None
    gray, clear, alpha, printed = (item["image"] for item in source)
    assert gray.shape == (10, 12, 3) and (gray == 9).all() and (alpha == 9).all()
    assert (clear == 255).all() and printed.shape == (10, 12, 3) and printed.max() < 20


@pytest.mark.parametrize("stream", ["", "?stream=1"])
def test_unusable_rows_are_skipped_and_counted(tmp_path, stream):
    values = [encode(1), b"no picture", encode(3)[:40], None, encode(5), encode(6)]
    columns = {
        "image": [value and {"bytes": value, "path": None} for value in values],
        "label": [0, 1, 0, 1, -1, 1],
        "caption": ["a"] * 6,
    }
    features = {"image": IMAGE, "label": LABEL, "caption": TEXT}
    source = open_source(f"hf:{write(tmp_path, columns, features)}{stream}")
    dataset = make_dataset(source, 8, 2, shuffle=False)
    for _ in range(2):
        assert [reds(batch["images"]) for batch in dataset] == [[1, 6]]
    report = source.report()
    assert report.startswith("4 of 6 pictures") and report.count("corrupt") == 2
    assert "has no picture" in report and "has no label" in report


def test_several_and_missing_captions(tmp_path):
    columns = {
        "image": [{"bytes": encode(i), "path": None} for i in range(4)],
        "captions": [["one", " two "], ["three"], [], None],
    }
    features = {"image": IMAGE, "captions": datasets.List(TEXT)}
    source = open_source(f"hf:{write(tmp_path, columns, features)}")
    assert source[0]["captions"] == ("one", "two") and source[1]["caption"] == "three"
    for index in (2, 3):
        with pytest.raises(UnusablePicture, match="a caption must be"):
            source[index]


@pytest.mark.parametrize("stream", ["", "?stream=1&length=6"])
def test_folders_of_pictures(tmp_path, stream):
    for number in range(6):
        path = tmp_path / "set" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(number))
    source = open_source(f"hf:{tmp_path / 'set'}{stream}")
    assert source.class_names == ("cat", "dog")
    found = sorted((reds([item["image"]])[0], item["label"]) for item in source)
    assert found == [(number, number % 2) for number in range(6)]
    if stream:
        with pytest.raises(ValueError, match="not tell how many rows.*length="):
            open_source(f"hf:{tmp_path / 'set'}?stream=1")


def test_folders_of_pictures_with_captions(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(3):
        (tmp_path / "set" / f"{number}.png").write_bytes(encode(number))
    rows = "".join(f"{i}.png,number {i}\n" for i in range(3))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\n" + rows)
    source = open_source(f"hf:{tmp_path / 'set'}")
    assert [item["caption"] for item in source] == [f"number {i}" for i in range(3)]


@pytest.fixture
def doubtful(tmp_path):
    picture = {"bytes": encode(0), "path": None}
    columns = {"left": [picture], "right": [picture], "fine": [0], "coarse": [1]}
    features = {"left": IMAGE, "right": IMAGE, "fine": LABEL, "coarse": LABEL}
    columns |= {"url": ["u"], "prompt": ["a cat"], "size": [3]}
    features |= {"url": TEXT, "prompt": TEXT, "size": NUMBER}
    return write(tmp_path, columns, features)


def test_columns_in_doubt_are_to_be_named(doubtful):
    name = f"hf:{doubtful}"
    with pytest.raises(ValueError, match=r"can be the image: \['left', 'right'\]"):
        open_source(name)
    name += "?image=right"
    with pytest.raises(ValueError, match=r"can be the label: \['fine', 'coarse'\]"):
        open_source(name)
    name += "&label=coarse"
    with pytest.raises(ValueError, match=r"can be the caption: \['url', 'prompt'\]"):
        open_source(name)
    source = open_source(f"{name}&caption=prompt")
    assert source[0]["caption"] == "a cat" and source[0]["label"] == 1
    without = open_source(f"hf:{doubtful}?image=left&label=&caption=")
    assert without.num_classes is None
    with pytest.raises(ValueError, match=r"no captions.*\['url', 'prompt'\]"):
        make_dataset(without, 8, 1, keep=CAPTIONS)
    for wrong in ("image=size", "image=up", "image=left&label=fine&caption=size"):
        with pytest.raises(ValueError, match=r"is no column of .*size \(Value"):
            open_source(f"hf:{doubtful}?{wrong}")


def test_a_set_without_pictures(tmp_path):
    folder = write(tmp_path, {"text": ["a"]}, {"text": TEXT})
    with pytest.raises(ValueError, match=r"has no pictures. Its columns are: text"):
        open_source(f"hf:{folder}")


@pytest.mark.parametrize("stream", ["", "&stream=1"])
def test_an_empty_split(tmp_path, stream):
    folder = write(tmp_path, {"image": []}, {"image": IMAGE})
    with pytest.raises(ValueError, match="is empty"):
        open_source(f"hf:{folder}?image=image{stream}")


@pytest.mark.parametrize("stream", ["", "?stream=1"])
def test_wrong_splits_and_configurations(pictures, stream):
    with pytest.raises(ValueError, match="split='dev'.*train"):
        open_source(f"hf:{pictures}{stream}", "dev")
    joined = f"{stream}&" if stream else "?"
    with pytest.raises(ValueError, match="config='odd'.*default"):
        open_source(f"hf:{pictures}{joined}config=odd")
    assert len(open_source(f"hf:{pictures}{joined}split=test")) == 3
    with pytest.raises(ValueError, match="names another split.*split='validation'"):
        open_source(f"hf:{pictures}{joined}split=test", "validation")


@pytest.mark.parametrize(
    "options",
    [
        "size=3",
        "image",
        "image=img&image=img",
        "stream=yes",
        "stream=",
        "length=0&stream=1",
    ],
)
def test_wrong_options(pictures, options):
    with pytest.raises(ValueError, match="Options stand behind|`length` must be"):
        open_source(f"hf:{pictures}?{options}")


def test_a_folder_with_a_question_mark(pictures, tmp_path):
    odd = tmp_path / "what?split=none"
    pictures.rename(odd)
    assert len(open_source(f"hf:{odd}")) == 20


def test_sets_that_are_not_there(tmp_path):
    for name in (f"{tmp_path}/nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="No such folder: .*"):
            open_source(f"hf:{name}")
    with pytest.raises(OSError, match="'hf:nobody/nothing' can't be opened"):
        open_source("hf:nobody/nothing")
    with pytest.raises(ValueError, match="must be followed by the name"):
        open_source("hf:")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="doesn't contain any data files"):
        open_source(f"hf:{tmp_path / 'empty'}")


def test_a_name_of_the_hub(pictures, monkeypatch):
    """What is asked of `datasets`, with the answer of a local set."""
    asked, load = [], datasets.load_dataset_builder

    def answer(name, config):
        asked.append((name, config))
        return load(str(pictures))

    monkeypatch.setattr(datasets, "load_dataset_builder", answer)
    source = open_source("hf:owner/name?config=large&stream=1", "test")
    assert asked == [("owner/name", "large")] and len(source) == 3
    assert source.name == "hf:owner/name?config=large&stream=1"


def test_what_the_hub_packs_is_looked_at_before_it_is_unpacked(tmp_path, monkeypatch):
    folder, load = tmp_path / "set", datasets.load_dataset_builder
    folder.mkdir()
    monkeypatch.setattr(
        datasets, "load_dataset_builder", lambda name, config: load(str(folder))
    )
    cells = pyarrow.table({"image": pyarrow.array([bytes(2**25)])})
    parquet.write_table(cells, folder / "train.parquet", compression="zstd")
    with pytest.raises(ValueError, match="train.parquet' would be unpacked to"):
        open_source("hf:owner/name")
    (folder / "train.parquet").unlink()
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(2**25))
    with pytest.raises(ValueError, match="a.zip' would be unpacked to"):
        open_source("hf:owner/name")


def test_slices_and_class_captions(pictures):
    from keras_mdm.data import ClassCaptions

    assert len(open_source(f"hf:{pictures}", "train[:25%]")) == 5
    source = ClassCaptions(open_source(f"hf:{pictures}?caption=&stream=1"))
    batch = next(iter(make_dataset(at_level(source, 8), 8, 4, keep=CAPTIONS)))
    expected = [("even", "odd")[number % 2] for number in reds(batch["images"])]
    assert batch["captions"].tolist() == expected


def test_frames_and_a_missing_library(pictures, monkeypatch):
    with pytest.raises(ValueError, match="has pictures, not clips.*num_frames=8"):
        open_source(f"hf:{pictures}", num_frames=8)
    monkeypatch.delitem(sys.modules, "keras_mdm.data.hugging_face", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="needs datasets.*pip install datasets"):
        open_source(f"hf:{pictures}")


@pytest.mark.parametrize(
    ("name", "pack", "words"),
    [
        ("train.csv.gz", gzip.compress, "gunzip"),
        ("train.parquet", bz2.compress, "bunzip2"),
        ("notes", lzma.compress, "unxz"),
        ("more.zip", lambda data: b"PK" + data, "damaged"),
    ],
)
def test_what_would_be_unpacked_without_a_bound(tmp_path, name, pack, words):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(99))
    (folder / name).write_bytes(pack(b"a,b\n" * 1000))
    with pytest.raises(ValueError, match=f"{name}.*{words}"):
        open_source(f"hf:{folder}")


def test_zip_archives_of_pictures_are_read(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.zip", "w") as file:
        for number in (0, 99, 198):
            file.writestr(f"{number}.png", encode(number))
    source = open_source(f"hf:{folder}")
    found = sorted(source[i]["image"][0, 0, 0] for i in range(len(source)))
    assert found == [0, 99, 198]
