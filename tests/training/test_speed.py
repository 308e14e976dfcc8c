"""Figures of speed against sums made by hand."""

import types

import numpy as np
import pytest
from helpers import tiny_mdm, tiny_unet

from keras_mdm import backend
from keras_mdm.networks.cost import count_flops
from keras_mdm.training.speed import FIGURES, SpeedMeter, step_flops

ROW = {"images": np.zeros((1, 16, 16, 1), "uint8"), "labels": np.zeros(1, "int32")}


def test_flops_of_a_step():
    mdm = tiny_mdm()
    outer, inner = count_flops(mdm.network).values()
    mdm.compile("sgd")
    assert step_flops(mdm, ROW, 12) == 12 * 3 * (outer + inner)
    # Two in three of the batch take part at 16 pixels, all at 8.
    mdm.compile("sgd", mixed_resolution={16: 2, 8: 1})
    assert step_flops(mdm, ROW, 12) == 3 * (8 * outer + 12 * inner)
    mdm.compile("sgd")
    mdm.set_active(16, freeze_inner=True)
    assert step_flops(mdm, ROW, 12) == 12 * (3 * outer + 2 * inner)
    mdm.set_active(8)
    assert step_flops(mdm, ROW, 12) == 12 * 3 * inner


class FakeClock:
    def __init__(self, row=ROW):
        self.flops, self.size, self.row, self.now = None, 5, row, (0, 0.0, 0.0)

    def totals(self):
        return self.now


def test_figures(monkeypatch):
    mdm = tiny_mdm(network=tiny_unet())
    clock = FakeClock()
    monkeypatch.setattr(backend, "peak_flops", lambda dtype: (4e9, False))
    meter = SpeedMeter(mdm, clock)
    (flops,) = count_flops(mdm.network).values()
    assert clock.flops == 15 * flops
    assert meter.figures() == {}
    clock.now = (10, 4.0, 1.0)
    expected = {
        "images_per_second": 12.5,
        "teraflops": 2.5 * 15 * flops / 1e12,
        "share_of_peak": 2.5 * 15 * flops / 4e9,
        "waited_for_data": 0.25,
    }
    assert meter.figures() == meter.figures(restart=True) == pytest.approx(expected)
    assert tuple(expected) == FIGURES
    clock.now = (12, 5.0, 2.0)
    assert meter.figures()["waited_for_data"] == 1.0
    assert SpeedMeter(mdm, None).figures() == {}


def test_layers_that_tell_no_cost_have_no_teraflops():
    clock = FakeClock()
    clock.flops = 0
    meter = SpeedMeter(types.SimpleNamespace(), clock)
    clock.now = (1, 1.0, 0.0)
    assert meter.figures() == {"images_per_second": 5.0, "waited_for_data": 0.0}


@pytest.mark.parametrize(
    ("kind", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-40GB", "float32", 156),
        ("NVIDIA L40S", "float16", 362),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5p", "bfloat16", 459),
        # Others than those in the table, however alike their names.
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("NVIDIA A10G", "bfloat16", None),
        ("TPU v5 lite", "int8", None),
        ("cpu", "float32", None),
    ],
)
def test_known_peaks(kind, dtype, teraflops):
    found = backend.known_peak(kind, dtype)
    assert found == (teraflops and teraflops * 1e12)


def test_a_processor_is_measured():
    assert backend.measured_peak("float32", 64, 2) > 1e6
