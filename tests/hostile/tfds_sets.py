"""Forged sets of TFDS: descriptions, links and records."""

import json

import numpy as np

from hostile.forge import EVIL, case, write


def read_tfds(folder):
    from keras_mdm.data import UnusablePicture, open_source

    source = open_source("forged", data_dir=folder)
    for index in range(len(source)):
        try:
            source[index]
        except UnusablePicture:
            pass
    return [why for _, why in source.skipped]


def tfds(features):
    def make(folder, outside):
        path = folder / "forged" / "1.0.0"
        write(path / "dataset_info.json", {"name": "forged", "version": "1.0.0"})
        write(path / "features.json", features)

    return make


def elsewhere(key, template):
    """Makes a set whose description names files that are not beside it."""

    def make(folder, outside):
        template_ = template.replace("{outside}", str(outside))
        path = folder / "forged" / "1.0.0" / "dataset_info.json"
        split = {key: template_, "name": "train", "shardLengths": ["1"]}
        write(path, {"name": "forged", "version": "1.0.0", "splits": [split]})
        write(path.with_name("features.json"), FEATURES)

    return make


def _linked_records(folder, outside):
    tfds(FEATURES)(folder, outside)
    name = "forged-train.array_record-00000-of-00001"
    (folder / "forged" / "1.0.0" / name).symlink_to(outside / "secret.txt")


def _packed_tensor(folder, outside):
    """A tensor that a few bytes are unpacked to."""
    from tensorflow_datasets import features

    tensor = features.Tensor(shape=(2**28,), dtype=np.float32, encoding="zlib")
    found = features.FeaturesDict({"a": tensor, "image": features.Image()})
    tfds(found.to_json())(folder, outside)


case(
    "tfds",
    "template",
    elsewhere("filepathTemplate", "{outside}/secret.txt"),
    read_tfds,
)
case("tfds", "parent", elsewhere("filepath_template", "../../../outside/x"), read_tfds)
case("tfds", "link", _linked_records, read_tfds)
case("tfds", "zlib", _packed_tensor, read_tfds)
FEATURES = {"pythonClassName": "tensorflow_datasets.core.features.x.FeaturesDict"}
for _name, _features in {
    "class": {"pythonClassName": f"{EVIL}.Evil"},
    "nested": FEATURES
    | {"featuresDict": {"features": {"a": {"pythonClassName": EVIL}}}},
    "legacy": {"type": f"{EVIL}.Evil", "content": {}},
    "proto": {"type": "tensorflow_datasets.x.Y", "content": "", "proto_cls": EVIL},
    "deep": "[" * 100_000,
}.items():
    case("tfds", _name, tfds(_features), read_tfds)


# Records of TFDS.
NUMBER = "forged-train.array_record-00000-of-00001"


def records(change=None, count=1, size=64, options="group_size:1", told=None):
    """Makes a set of so many records of zeros, whose file is changed afterwards."""

    def make(folder, outside):
        from array_record.python import array_record_module
        from tensorflow_datasets import features

        found = features.FeaturesDict({"image": features.Image()})
        tfds(found.to_json())(folder, outside)
        path = folder / "forged" / "1.0.0" / NUMBER
        split = {
            "name": "train",
            "numBytes": "1",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(told or count)],
        }
        about = {"name": "forged", "version": "1.0.0", "fileFormat": "array_record"}
        write(path.with_name("dataset_info.json"), about | {"splits": [split]})
        writer = array_record_module.ArrayRecordWriter(str(path), options)
        for _ in range(count):
            writer.write(bytes(size))
        writer.close()
        data = bytearray(path.read_bytes())
        if change is not None:
            change(data)
        path.write_bytes(data)

    return make


def _flip(place):
    def change(data):
        data[place] ^= 255

    return change


LAST = -(2**16)
for _name, _made in {
    "bomb": records(size=2**29),
    "group-bomb": records(count=600, size=2**20, options="group_size:600"),
    "brotli-bomb": records(size=2**29, options="group_size:1,brotli:3"),
    "transposed": records(options="group_size:1,transpose:true"),
    "many-told": records(told=10**12),
    "more-told": records(told=9),
    "cut": records(lambda data: data.__delitem__(slice(2**16, None))),
    "empty": records(lambda data: data.clear()),
    "zeros": records(lambda data: data.__setitem__(slice(None), bytes(len(data)))),
    "chunk-header": records(_flip(64 + 16)),
    "footer": records(lambda data: data.__setitem__(slice(200, 400), b"\xff" * 200)),
    "postscript": records(_flip(LAST + 24 + 40 + 6)),
}.items():
    case("tfds", f"records-{_name}", _made, read_tfds)


def tfds_classes(count='"2"', names=None):
    def make(folder, outside):
        from tensorflow_datasets import features

        records()(folder, outside)
        found = {"image": features.Image(), "label": features.ClassLabel(num_classes=2)}
        text = json.dumps(features.FeaturesDict(found).to_json())
        path = folder / "forged" / "1.0.0"
        write(path / "features.json", text.replace('"2"', count))
        if names is not None:
            with (path / "label.labels.txt").open("w") as file:
                file.truncate(names)

    return make


for _name, _made in {
    "classes": tfds_classes('"1000000000"'),
    "classes-float": tfds_classes("1e9"),
    "names": tfds_classes(names=2**32),
}.items():
    case("tfds", _name, _made, read_tfds)
