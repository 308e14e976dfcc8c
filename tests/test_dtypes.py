"""Dtype policies of every kind, on the network alone or for the whole program."""

import numpy as np
import pytest
from helpers import batch_of, run_python, tiny_mdm, tiny_unet, uncompiled

import keras_mdm

pytestmark = pytest.mark.usefixtures("eager_functions")

DTYPES = ("bfloat16", "mixed_bfloat16", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_of_another_dtype_draws_and_learns(dtype):
    mdm = tiny_mdm(network=tiny_unet(dtype=dtype), ema_momentum=0.9)
    mdm.compile(keras_mdm.AdamW(1e-3), **uncompiled())
    before = mdm.evaluate(batch_of(8, 8), verbose=0, return_dict=True)["loss"]
    mdm.fit(batch_of(8, 8), batch_size=8, epochs=20, verbose=0)
    after = mdm.evaluate(batch_of(8, 8), verbose=0, return_dict=True)["loss"]
    assert after < 0.99 * before
    drawn = mdm.generate(labels=[0, 1], num_steps=2)
    assert drawn.shape == (2, 8, 8, 1) and drawn.dtype == "uint8"


FLOATX = """
import sys
import keras
keras.config.set_floatx(sys.stdin.read())
import numpy as np
from helpers import batch_of, keras_mdm, tiny_mdm, tiny_unet, uncompiled
mdm = tiny_mdm(network=tiny_unet(), ema_momentum=0.9)
mdm.compile(keras_mdm.AdamW(1e-3), **uncompiled())
losses = mdm.fit(batch_of(4, 8), batch_size=4, verbose=0).history
again = mdm.evaluate(batch_of(4, 8), batch_size=2, verbose=0, return_dict=True)
drawn = mdm.generate(labels=[0, 1], num_steps=2, output="float")
print(np.isfinite(drawn).all(), np.isfinite(losses["loss"][0]), again["loss_8"])
"""


@pytest.fixture(scope="module")
def loss_in_float32():
    mdm = tiny_mdm(network=tiny_unet())
    mdm.compile(keras_mdm.AdamW(1e-3), **uncompiled())
    found = mdm.evaluate(batch_of(4, 8), batch_size=2, verbose=0, return_dict=True)
    return found["loss_8"]


@pytest.mark.parametrize("floatx", ["bfloat16", "float64"])
def test_another_floatx(floatx, loss_in_float32):
    finite, learned, loss = run_python(FLOATX, stdin=floatx).split()
    assert finite == learned == "True"
    # Not the mean of a metric that was kept in bfloat16.
    assert float(loss) == pytest.approx(loss_in_float32, rel=0.02)
    assert np.isfinite(float(loss))
