"""Folders with links, splits, empty classes, foreign files; formats of pictures."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image
from video_helpers import write_greys

from keras_mdm.data import (
    EmbeddingShards,
    UnusablePicture,
    make_dataset,
    open_source,
    prepare_picture,
    steps_per_epoch,
)
from keras_mdm.data.levels import at_level
from keras_mdm.data.pictures import read_picture

pytestmark = pytest.mark.once

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
newpath 0 0 moveto 16 16 lineto stroke showpage
"""


def _save(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        write_greys(path, count=4, frame_rate=4)
    else:
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)


@pytest.fixture(params=["folder", "clips"])
def kind(request):
    """Scheme of a source and the ending of its files."""
    ending = {"folder": ".png", "clips": ".mp4"}[request.param]
    return request.param, ending


def _names(source, root):
    found = [source.describe(index) for index in range(len(source))]
    return [str(pathlib.Path(name).relative_to(root)) for name in found]


def test_each_real_folder_is_read_once(tmp_path, kind):
    scheme, ending = kind
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("ant/1", "bee/2", "bee/deep/3"):
        _save(root / f"{name}{ending}")
    _save(outside / "more" / f"4{ending}")
    for link, target in {
        "ant/all": root,
        "ant/parent": tmp_path,
        "ant/self": root / "ant" / "self",
        "ant/z_bee": root / "bee",
        "ant/outside": outside,
        "cow": outside,
        f"ant/2{ending}": root / "bee" / f"2{ending}",
    }.items():
        (root / link).symlink_to(target, target_is_directory=True)
    source = open_source(f"{scheme}:{root}?links=1", "all")
    assert _names(source, root) == [
        f"ant/1{ending}",
        f"bee/2{ending}",
        f"bee/deep/3{ending}",
        f"cow/more/4{ending}",
    ]
    # The folder that lies nearest to the root gives the class.
    assert source.class_names == ("ant", "bee", "cow")
    assert "4 link(s) lead to what is read anyway" in source.report()
    for name in ("ant/all", "ant/z_bee", "ant/outside", f"ant/2{ending}"):
        assert name in source.report()


def test_pipes_are_not_waited_for(tmp_path):
    _save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "a.txt")
    source = open_source(f"folder:{tmp_path}", "all")
    assert len(source) == 1 and not source.has_captions
    assert "b.png (is no regular file)" in source.report()


def test_files_of_other_kinds_are_counted(tmp_path, kind):
    scheme, ending = kind
    for name in "abc":
        _save(tmp_path / name / f"1{ending}")
    for name in ("1.heic", "2.HEIC", "x.psd", "README"):
        (tmp_path / "a" / name).write_bytes(b"?")
    source = open_source(f"{scheme}:{tmp_path}", "all")
    report = source.report()
    assert len(source) == 3 and not source.skipped
    assert "not read: 2 .heic, 1 " in report
    assert "1 .psd" in report and "1 without an ending" in report
    if scheme == "clips":
        assert "2 .heic" in at_level(source, 16).report()
    heic = tmp_path / "heic"
    heic.mkdir()
    (heic / "1.heic").write_bytes(b"?")
    with pytest.raises(ValueError, match="Found: 1 .heic"):
        open_source(f"{scheme}:{heic}")


def test_empty_classes_keep_their_numbers(tmp_path, kind):
    scheme, ending = kind
    for name in ("ant", "cow"):
        _save(tmp_path / name / f"1{ending}")
    for name in ("bee", ".cache", "__MACOSX"):
        (tmp_path / name).mkdir()
    source = open_source(f"{scheme}:{tmp_path}", "all")
    assert source.class_names == ("ant", "bee", "cow")
    assert [source[index]["label"] for index in range(2)] == [0, 2]
    assert "1 class folder(s) have no file that is read" in source.report()
    assert "keep their numbers: bee." in source.report()


@pytest.mark.parametrize("splits", [("train", "test"), ("Training", "val"), ("train",)])
def test_splits_are_no_classes(tmp_path, kind, splits):
    scheme, ending = kind
    for split in splits:
        for name in ("a", "b"):
            _save(tmp_path / split / name / f"1{ending}")
    with pytest.raises(ValueError, match=f"like splits.*'{scheme}:{tmp_path}/[tT]rain"):
        open_source(f"{scheme}:{tmp_path}", "all")
    inside = open_source(f"{scheme}:{tmp_path / splits[0]}", "all")
    assert inside.class_names == ("a", "b")


def test_splits_with_captions_are_not_mixed(tmp_path):
    for split in ("train", "test"):
        _save(tmp_path / split / "1.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,text\n1.png,a")
    with pytest.raises(ValueError, match="look like splits"):
        open_source(f"folder:{tmp_path}", "all")
    assert open_source(f"folder:{tmp_path / 'train'}", "all")[0]["caption"] == "a"


def test_a_train_among_vehicles_is_a_class(tmp_path):
    for name in ("bus", "car", "train"):
        _save(tmp_path / name / "1.png")
    source = open_source(f"folder:{tmp_path}", "all")
    assert source.class_names == ("bus", "car", "train")


def test_names_that_are_not_text(tmp_path, kind):
    scheme, ending = kind
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    for number in range(40):
        _save(tmp_path / odd / f"{odd}{number}{ending}")
    sizes = []
    for split in ("train", "validation", "test", "all"):
        try:
            sizes.append(len(open_source(f"{scheme}:{tmp_path}", split)))
        except ValueError as error:
            assert "is empty" in str(error)
            sizes.append(0)
    assert sizes[3] == sum(sizes[:3]) == 40
    source = open_source(f"{scheme}:{tmp_path}", "all")
    assert source[0]["label"] == 0
    assert source.class_names == ("caf\\xe9",)
    source.describe(0).encode()
    (tmp_path / odd / f"{odd}.txt").write_text("a caption")


@pytest.mark.parametrize("name", ["folder:", "clips:", "webdataset:", "folder: "])
def test_empty_paths_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="must name a file or folder"):
        open_source(name, "all")
    with pytest.raises(ValueError, match="`data_dir` must name"):
        open_source("shapes", data_dir="")
    with pytest.raises(ValueError, match="must name a file or folder"):
        EmbeddingShards("")


def test_tilde_is_the_home_folder(tmp_path, monkeypatch, shapes_dir):
    monkeypatch.setenv("HOME", str(tmp_path))
    _save(tmp_path / "pictures" / "a.png")
    _save(tmp_path / "videos" / "a.mp4")
    assert len(open_source("folder:~/pictures", "all")) == 1
    assert len(open_source("clips:~/videos", "all")) == 1
    assert len(read_picture("~/pictures/a.png"))
    (tmp_path / "tfds").symlink_to(shapes_dir)
    assert len(open_source("shapes", data_dir="~/tfds")) == 24
    with pytest.raises(ValueError, match="no such home folder.*~nobody-here"):
        open_source("folder:~nobody-here/pictures")
    with pytest.raises(FileNotFoundError, match="Not a folder"):
        open_source("folder:~/pictures/a.png")


@pytest.mark.parametrize("resolution", [(32, 48), [16, 16], np.array([8, 8])])
def test_pictures_are_square(numbered, resolution):
    with pytest.raises(ValueError, match=r"(?s)Pictures are square.*Received: resol"):
        make_dataset(numbered(8), resolution, 4)
    with pytest.raises(ValueError, match="Pictures are square"):
        prepare_picture(np.zeros((64, 64, 3), "uint8"), resolution)


@pytest.mark.parametrize("value", ["8", None, 0, -4, 2.5, float("nan"), 1e400, True])
def test_sizes_are_positive_integers(numbered, value):
    with pytest.raises(ValueError, match="`resolution` must be a positive integer"):
        make_dataset(numbered(8), value, 4)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        make_dataset(numbered(8), 8, value)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        steps_per_epoch(numbered(8), value)


def test_whole_floats_are_sizes(numbered):
    batch = next(iter(make_dataset(numbered(8), np.float32(4), 4.0)))
    assert batch["images"].shape == (4, 4, 4, 1)


def _pretend_ghostscript(folder, monkeypatch):
    """A program `gs`, first in PATH, that leaves a file when it is started."""
    for name in ("gs", "gswin32c", "gswin64c"):
        program = folder / name
        program.write_text(f"#!/bin/sh\ntouch {folder}/started\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "started"


READ_ALL = """
import sys
from keras_mdm.data import open_source
for name in sys.argv[1:]:
    source = open_source(name, "all")
    for index in range(len(source)):
        try:
            source[index]
        except ValueError:
            pass
    print(len(source), len(source.skipped))
"""


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    started = _pretend_ghostscript(programs, monkeypatch)
    names = []
    for ending in ("jpg", "eps"):
        data = tmp_path / ending
        _save(data / "good.png")
        (data / "good.txt").write_text("a")
        (data / f"bad.{ending}").write_bytes(POSTSCRIPT)
        (data / "bad.txt").write_text("a")
        shard = tmp_path / f"{ending}.tar"
        with tarfile.open(shard, "w") as file:
            for path in sorted(data.iterdir()):
                file.add(path, path.name)
        names += [f"folder:{data}", f"webdataset:{shard}"]
    # Another process, as Pillow looks for the program once.
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not started.exists()
    counts = [line.split()[0] for line in done.stdout.splitlines()]
    assert counts == ["2", "2", "1", "1"]


def test_postscript_in_a_tfds_set_is_no_picture(tmp_path, shapes_dir):
    source = open_source("shapes/single", data_dir=shapes_dir)
    decoder = source._records.decoders["image"]
    assert decoder.decode_example_np(_png((4, 5))).shape == (5, 4, 3)
    with pytest.raises(OSError, match="cannot identify"):
        decoder.decode_example_np(POSTSCRIPT)
    clips = open_source("shapes/clips", data_dir=shapes_dir)
    assert clips._records.decoders.keys() == {"video"}
    with pytest.raises(OSError, match="cannot identify"):
        clips._records.decoders["video"].decode_batch_example_np([POSTSCRIPT])


def _png(size):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "kind, ending",
    [
        ("AVIF", "avif"),
        ("BMP", "bmp"),
        ("GIF", "gif"),
        ("ICO", "ico"),
        ("JPEG", "jpeg"),
        ("JPEG2000", "jp2"),
        ("MPO", "mpo"),
        ("PCX", "pcx"),
        ("PNG", "png"),
        ("PPM", "ppm"),
        ("QOI", "qoi"),
        ("SGI", "sgi"),
        ("TGA", "tga"),
        ("TIFF", "tif"),
        ("WEBP", "webp"),
    ],
)
def test_usual_formats_are_read(tmp_path, kind, ending):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    colour = (200, 40, 90)
    Image.new("RGB", (16, 16), colour).save(tmp_path / f"a.{ending}", kind)
    source = open_source(f"folder:{tmp_path}", "all")
    pixels = source[0]["image"].astype(int)
    assert pixels.shape == (16, 16, 3) and abs(pixels - colour).max() <= 12


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PSD", "FITS"])
def test_other_formats_are_not_tried(tmp_path, kind):
    start = {
        "EPS": b"%!PS-Adobe",
        "PDF": b"%PDF-1.4",
        "PSD": b"8BPS",
        "FITS": b"SIMPLE",
    }
    path = tmp_path / "a.png"
    path.write_bytes(start[kind] + bytes(2000))
    with pytest.raises(UnusablePicture, match="cannot identify image file"):
        read_picture(path)
