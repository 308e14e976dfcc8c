"""The width of a network is known before the network is made."""

import pytest
from helpers import tiny_mdm

from keras_mdm.model.widths import widest, widest_of_preset


@pytest.mark.parametrize(
    "preset, channels",
    [("mdm_s256", 768), ("mdm_flickr_1024", 768), (None, 0), ("no_such_preset", 0)],
)
def test_widest_of_preset(preset, channels):
    assert widest_of_preset(preset) == channels


def test_widest_of_folders(tmp_path):
    mdm = tiny_mdm()
    mdm.save_to_preset(tmp_path / "run" / "preset")
    for folder in (tmp_path / "run", tmp_path / "run" / "preset"):
        assert widest_of_preset(folder) == mdm.network.widest


def test_widest_of_official_configurations():
    inner = {"resolution_channels": [64, 320]}
    assert widest({"unet_config": {"resolution_channels": [32], "in": inner}}) == 320
