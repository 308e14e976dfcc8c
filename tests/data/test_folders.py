"""Folders of good, odd and damaged files."""

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import (
    UnusablePicture,
    folders,
    make_dataset,
    open_source,
    pictures,
)
from keras_mdm.data import source as source_module

pytestmark = pytest.mark.once


def test_subfolders_are_classes(picture_folder):
    source = open_source(f"folder:{picture_folder}", split="all")
    assert len(source) == 12
    assert source.class_names == ("cats", "dogs")
    assert source.num_classes == 2
    for item in source:
        number = item["image"][0, 0, 0] // 20
        assert item["label"] == number % 2
        assert item["image"].shape == (24, 20, 3)


def test_flat_folder_is_unlabelled(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = open_source(f"folder:{tmp_path}", split="all")
    assert source.num_classes is None and source.class_names is None
    assert "label" not in source[0]
    batch = next(iter(make_dataset(source, 8, 1)))
    assert set(batch) == {"images"}


def test_splits_are_a_stable_partition(tmp_path):
    for number in range(300):
        Image.new("L", (1, 1)).save(tmp_path / f"{number}.png")
    files = {
        split: {str(file) for file in folders.Folder(tmp_path, split)._files}
        for split in folders.SPLITS
    }
    parts = [files["train"], files["validation"], files["test"]]
    assert set.union(*parts) == files["all"]
    assert sum(map(len, parts)) == 300
    assert 250 <= len(files["train"]) <= 288
    # One more picture moves none of the others.
    Image.new("L", (1, 1)).save(tmp_path / "more.png")
    again = {str(file) for file in folders.Folder(tmp_path, "test")._files}
    assert again - {"more.png"} == files["test"]


def test_damaged_pictures_are_skipped_and_reported(picture_folder):
    good = (picture_folder / "cats" / "00.png").read_bytes()
    Image.new("RGB", (64, 64)).save(picture_folder / "cats" / "x.jpg")
    jpeg = (picture_folder / "cats" / "x.jpg").read_bytes()
    (picture_folder / "cats" / "x.jpg").unlink()
    (picture_folder / "cats" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (picture_folder / "cats" / "cut.png").write_bytes(good[:50])
    (picture_folder / "cats" / "empty.png").write_bytes(b"")
    (picture_folder / "dogs" / "text.png").write_bytes(b"not a picture")
    (picture_folder / "dogs" / "notes.txt").write_text("ignored by its extension")
    (picture_folder / "dogs" / ".hidden.png").write_bytes(b"ignored as hidden")
    source = open_source(f"folder:{picture_folder}", split="all")
    assert len(source) == 16
    batches = list(make_dataset(source, 16, 4))
    assert [batch["images"].shape for batch in batches] == [(4, 16, 16, 3)] * 3
    names = {what.split("/")[-1] for what, _ in source.skipped}
    assert names == {"cut.jpg", "cut.png", "empty.png", "text.png"}
    assert source.report().startswith("4 of 16 pictures")
    assert "corrupt or unreadable" in source.report()


def test_reading_a_damaged_picture_raises(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    source = open_source(f"folder:{tmp_path}", split="all")
    with pytest.raises(UnusablePicture, match="a.png"):
        source[0]
    assert len(source.skipped) == 1


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (6, 4), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    read = pictures.read_picture(tmp_path / "a.png")
    assert read.shape == (6, 4, 3)
    assert read[0, 3].max() == 0 and read[0, 0].min() == 255


def test_modes(tmp_path):
    ramp = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    expected = np.rint(ramp / 257)
    read = pictures.read_picture(tmp_path / "wide.png")
    np.testing.assert_array_equal(read[..., 1], expected)

    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (pictures.read_picture(tmp_path / "clear.png") == 255).all()

    Image.new("LA", (2, 2), (9, 255)).save(tmp_path / "grey.png")
    assert (pictures.read_picture(tmp_path / "grey.png") == 9).all()

    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    assert (pictures.read_picture(tmp_path / "bit.png") == 255).all()

    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert tuple(pictures.read_picture(tmp_path / "two.gif")[0, 0]) == (255, 0, 0)

    Image.new("CMYK", (2, 2), (0, 0, 0, 255)).save(tmp_path / "print.jpg")
    assert pictures.read_picture(tmp_path / "print.jpg").max() < 10

    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (pictures.read_picture(tmp_path / "palette.png") == 255).all()


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match=r"No pictures in .*\.jpg"):
        open_source(f"folder:{tmp_path}")
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    empty = next(
        split
        for split in ("train", "validation", "test")
        if folders.split_of("a.png") != split
    )
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        open_source(f"folder:{tmp_path}", split=empty)


def test_pictures_beside_class_folders_are_reported(picture_folder):
    Image.new("L", (9, 9)).save(picture_folder / "stray.png")
    source = open_source(f"folder:{picture_folder}", split="all")
    assert len(source) == 12
    assert "stray.png (lies in no class folder)" in source.report()


def test_unknown_split(picture_folder):
    with pytest.raises(ValueError, match="Received: split='dev'"):
        open_source(f"folder:{picture_folder}", split="dev")


def test_contents_change_with_names_bytes_classes_and_captions(tmp_path, monkeypatch):
    picture = np.zeros((4, 4, 3), "uint8")
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name)

    def contents():
        return open_source(f"folder:{tmp_path}", split="all").contents()

    first = contents()
    assert first == contents() and first["pictures"] == 3
    assert first["class_names"] == ["a", "b"] and first["files"]["a"].startswith("2: ")
    (tmp_path / "b").rename(tmp_path / "A_b")
    renamed = contents()
    assert renamed["class_names"] == ["A_b", "a"]
    assert renamed["files"]["a"] == first["files"]["a"]
    (tmp_path / "a/2.png").rename(tmp_path / "a/3.png")
    assert contents()["files"]["a"] != first["files"]["a"]
    (tmp_path / "a/3.png").rename(tmp_path / "a/2.png")
    with open(tmp_path / "a/2.png", "ab") as file:
        file.write(b"0")
    longer = contents()["files"]["a"]
    assert longer != first["files"]["a"]
    (tmp_path / "a/2.png").write_bytes((tmp_path / "a/2.png").read_bytes()[:-1] + b"1")
    assert contents()["files"]["a"] != longer
    for name in ("a/1", "a/2", "A_b/1"):
        (tmp_path / f"{name}.txt").write_text("a dot")
    captioned = contents()
    assert captioned["captions"] and captioned["class_names"] is None
    (tmp_path / "a/1.txt").write_text("a dog")
    changed = contents()
    assert changed["files"]["a"] != captioned["files"]["a"]
    assert changed["files"]["A_b"] == captioned["files"]["A_b"]
    monkeypatch.setattr(source_module, "_MOST_READ", 6 * 2**12 - 1)
    large = contents()
    (tmp_path / "a/1.txt").write_text("a dot")
    assert contents() == large  # Of a large set sizes alone are compared.
