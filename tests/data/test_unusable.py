"""Odd items: skipped, counted, and too many of them end a run with the reasons."""

import numpy as np
import pytest

from keras_mdm.data import Source, UnusablePicture, make_dataset
from keras_mdm.data.pictures import read_picture
from keras_mdm.data.source import read_captions


class Odd(Source):
    """Pictures of which some make a library raise whatever it likes."""

    def __init__(self, odd, error):
        super().__init__("odd", channels=1)
        self.odd, self.error = odd, error

    def __len__(self):
        return 40

    def _read(self, index):
        if index < self.odd:
            raise self.error
        return {"image": np.full((4, 4, 1), index, "uint8")}


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), KeyError("x"), OverflowError()]
)
def test_whatever_is_raised_makes_one_item_unusable(error):
    source = Odd(1, error)
    with pytest.raises(UnusablePicture, match=type(error).__name__):
        source[0]
    assert [what for what, _ in source.skipped] == ["odd[0]"]
    assert source[1]["image"][0, 0, 0] == 1
    batches = list(make_dataset(source, 4, 4, shuffle=False))
    seen = np.concatenate([batch["images"] for batch in batches])[:, 0, 0, 0]
    assert seen.tolist() == list(range(1, 37))


def test_too_many_unusable_items_end_the_reading():
    dataset = make_dataset(Odd(21, KeyError("x")), 4, 2, max_unusable=0.5)
    with pytest.raises(ValueError, match=r"max_unusable=0.5.*KeyError: 'x' \(21\)"):
        list(dataset)
    assert len(list(make_dataset(Odd(20, KeyError()), 4, 2, max_unusable=0.5))) == 10


def test_pictures_are_bounded_before_they_are_decoded(tmp_path):
    from PIL import Image

    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(UnusablePicture, match="30x20 pixels are more than 599"):
        read_picture(tmp_path / "a.png", max_pixels=599)


def test_captions_are_bounded():
    assert read_captions("x" * 10, max_length=10) == ("x" * 10,)
    with pytest.raises(ValueError, match="11 characters, more than 10"):
        read_captions(["a", "x" * 11], max_length=10)


def test_labels_of_no_class_are_not_clipped_to_another():
    class Labels(Source):
        def __init__(self):
            super().__init__("labels", class_names=("a", "b"))

        def __len__(self):
            return 4

        def _read(self, index):
            return {
                "image": np.zeros((8, 8, 3), "uint8"),
                "label": (0, 2, -1, 1)[index],
            }

    source = Labels()
    for index, label in ((1, 2), (2, -1)):
        with pytest.raises(UnusablePicture, match=f"label {label} of 2 classes"):
            source[index]
    assert [source[index]["label"] for index in (0, 3)] == [0, 1]
    assert len(source.skipped) == 2
