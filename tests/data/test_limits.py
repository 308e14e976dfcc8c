"""Limits of what is read, set where a source is opened."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from video_helpers import write_greys

from keras_mdm.data import Limits, UnusablePicture, open_source
from keras_mdm.data.video_files import read_clip

pytestmark = pytest.mark.once


def _png(side):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side), "uint8")
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _folder(path, texts=("a", "b")):
    for name, side, text in zip("ab", (8, 9), texts, strict=True):
        (path / f"{name}.png").write_bytes(_png(side))
        (path / f"{name}.txt").write_text(text)
    return f"folder:{path}"


def _shard(path, texts=("a", "b")):
    with tarfile.open(path / "x.tar", "w") as file:
        for name, side, text in zip("ab", (8, 9), texts, strict=True):
            for ending, data in (("png", _png(side)), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return f"webdataset:{path}"


def _rows(path, texts=("a", "b")):
    import datasets

    pictures = [{"bytes": _png(side), "path": None} for side in (8, 9)]
    kinds = {"image": datasets.Image(), "text": datasets.Value("string")}
    rows = datasets.Dataset.from_dict(
        {"image": pictures, "text": list(texts)}, datasets.Features(kinds)
    )
    rows.to_parquet(path / "train.parquet")
    return f"hf:{path}?split=train"


def reasons(name, split="all", **limits):
    """Numbers of readable items, and the reasons why others are not."""
    source = open_source(name, split, limits=Limits(**limits))
    count = 0
    for index in range(len(source)):
        try:
            source[index]
            count += 1
        except UnusablePicture:
            pass
    return count, [why for _, why in source.skipped]


@pytest.mark.parametrize("make", [_folder, _shard, _rows])
def test_pixels_and_captions_of_every_source(make, tmp_path):
    texts = ("x" * 20, "x" * 21)
    name = make(tmp_path, texts)
    split = "train" if make is _rows else "all"
    assert reasons(name, split) == (2, [])
    assert reasons(name, split, picture_pixels=81, caption_length=21) == (2, [])
    count, (why,) = reasons(name, split, picture_pixels=80)
    assert count == 1 and "9x9 pixels are more than 80" in why
    count, (why,) = reasons(name, split, caption_length=20)
    assert count == 1 and "21 characters, more than 20" in why


@pytest.mark.parametrize("make", [_folder, _shard])
def test_bytes_of_a_picture(make, tmp_path):
    name = make(tmp_path)
    sizes = [len(_png(side)) for side in (8, 9)]
    assert sizes[0] < sizes[1]
    assert reasons(name, picture_bytes=sizes[1]) == (2, [])
    count, (why,) = reasons(name, picture_bytes=sizes[0])
    assert count == 1 and f"more than {sizes[0]} bytes" in why


def test_members_of_a_shard(tmp_path):
    name = _shard(tmp_path)
    assert reasons(name, shard_members=4) == (2, [])
    # Whatever index the shard has from before.
    count, (why,) = reasons(name, shard_members=2)
    assert count == 1 and "it has more than 2 members" in why
    assert reasons(name, shard_members=4) == (2, [])


def test_bytes_and_captions_of_a_table(tmp_path):
    name = _folder(tmp_path)
    rows = "file_name,text\na.png,abc\nb.png,abcd\n"
    (tmp_path / "metadata.csv").write_text(rows)
    assert reasons(name, caption_length=4, table_bytes=len(rows)) == (2, [])
    count, whys = reasons(name, caption_length=3)
    assert count == 1 and any("4 characters, more than 3" in why for why in whys)
    with pytest.raises(ValueError, match=f"more than the {len(rows) - 1} that are"):
        reasons(name, table_bytes=len(rows) - 1)


def test_frames_and_pixels_of_a_clip(tmp_path):
    write_greys(tmp_path / "a.mp4", count=6, frame_rate=4)
    name, pixels = f"clips:{tmp_path}", read_clip(tmp_path / "a.mp4")[..., 0].size
    assert reasons(name, clip_frames=6, clip_pixels=pixels) == (1, [])
    assert "more than 5 frames" in reasons(name, clip_frames=5)[1][0]
    assert "more than" in reasons(name, clip_pixels=pixels - 1)[1][0]
    frame = pixels // 6
    # FFmpeg counts whole blocks.
    assert reasons(name, frame_pixels=4 * frame) == (1, [])
    assert "more than" in reasons(name, frame_pixels=frame - 1)[1][0]
    # Of many frames that are shown, of few that are decoded, and the other way round.
    with pytest.raises(UnusablePicture, match="more than 20 frames"):
        read_clip(tmp_path / "a.mp4", 24, 16, max_frames=20)
    assert len(read_clip(tmp_path / "a.mp4", 20, 16, max_frames=20)) == 20
    with pytest.raises(UnusablePicture, match="more than 4 frames"):
        read_clip(tmp_path / "a.mp4", 2, 1, max_frames=4)


def test_a_set_of_tfds(shapes_dir):
    size = 64 * 64
    for name, limit, need in (
        ("shapes", "picture_pixels", size),
        ("shapes/clips", "clip_pixels", 8 * size),
        ("shapes/clips", "clip_frames", 8),
    ):
        for most in (need, need - 1):
            limits = Limits(**{limit: most})
            source = open_source(name, data_dir=shapes_dir, limits=limits)
            if most == need:
                assert source[0]
                continue
            with pytest.raises(UnusablePicture, match="more than"):
                source[0]


@pytest.mark.parametrize("value", [0, -1, 1.5, "9", None, True, float("inf")])
def test_a_limit_is_a_positive_integer(value):
    with pytest.raises(ValueError, match="`picture_pixels` must be a positive int"):
        Limits(picture_pixels=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, "a", None, float("nan")])
def test_a_share_is_a_share(value):
    with pytest.raises(ValueError, match="`unusable_rows` must be from 0 to 1"):
        Limits(unusable_rows=value)


def test_a_source_of_ones_own_may_take_them(monkeypatch):
    from keras_mdm.data import register_source, sources

    monkeypatch.setattr(sources, "_OPENERS", dict(sources._OPENERS))
    register_source("own", lambda path, split="train", limits=None: limits)
    register_source("other", lambda path, split="train": path)
    limits = Limits(caption_length=5)
    assert open_source("own:x", limits=limits) is limits
    assert open_source("other:x", limits=limits) == "x"


@pytest.mark.parametrize("value", [None, 5, {"picture_pixels": 5}, Limits])
def test_limits_are_limits(value):
    with pytest.raises(ValueError, match="`limits` must be a `keras_mdm.data.Limits`"):
        open_source("digits", limits=value)
