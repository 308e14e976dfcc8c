"""Numbers of a picture that models may be conditioned on."""

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import make_dataset, open_source


@pytest.mark.parametrize("crop", ["center", "random"])
def test_numbers_tell_where_a_picture_was_cut(tmp_path, crop):
    """Each pixel of the original knows its place, so the crop can be read off."""
    rows, columns = np.meshgrid(np.arange(120), np.arange(200), indexing="ij")
    places = np.stack([rows, columns, rows * 0], axis=-1).astype("uint8")
    for i in range(3):
        Image.fromarray(places).save(tmp_path / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", "all")
    names = ("crop_top", "crop_left", "scale")
    (batch,) = make_dataset(source, 20, 3, crop=crop, micro_conditioning=names, seed=1)
    assert batch["scale"].tolist() == [120] * 3
    for picture, top, left in zip(
        batch["images"].astype("float64"),
        batch["crop_top"],
        batch["crop_left"],
        strict=True,
    ):
        spacing = (picture[-1, 0, 0] - picture[0, 0, 0]) / 19  # old pixels a new one
        middle = (spacing - 1) / 2
        assert top == pytest.approx((picture[0, 0, 0] - middle) / spacing, abs=0.3)
        assert left == pytest.approx((picture[0, 0, 1] - middle) / spacing, abs=0.3)
    if crop == "center":
        assert batch["crop_left"].tolist() == pytest.approx([40 / 6] * 3)
    else:
        assert len(set(batch["crop_left"].tolist())) == 3
