"""Threefry against published vectors, and the noise made of it."""

import numpy as np
import pytest
from helpers import compute
from keras import ops

from keras_mdm.diffusion.noise import sample_noise, sample_uniform, threefry


def _signed(*words):
    return [np.array([w], "uint32").view("int32") for w in words]


# Known answers of the Random123 library for threefry2x32, 20 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (
            (0x243F6A88, 0x85A308D3),
            (0x13198A2E, 0x03707344),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    key, counter = (
        [ops.convert_to_tensor(w) for w in _signed(*pair)] for pair in (key, counter)
    )
    found = np.concatenate(compute(lambda k, c: list(threefry(k, c)), key, counter))
    np.testing.assert_array_equal(found, np.concatenate(_signed(*expected)))


def _noise(seeds, stream=16, step=0, shape=(16, 16, 3)):
    seeds = np.asarray(seeds, "int32")
    return compute(lambda s, k: sample_noise(s, stream, k, shape), seeds, step)


def test_normality():
    values = np.sort(_noise(np.arange(64)).ravel())
    size = len(values)
    assert abs(values.mean()) < 4 / size**0.5
    assert values.std() == pytest.approx(1.0, abs=0.01)
    assert (values**3).mean() == pytest.approx(0.0, abs=0.05)
    assert (values**4).mean() == pytest.approx(3.0, abs=0.1)
    for point, share in ((-1.959964, 0.025), (-1.0, 0.158655), (0.674490, 0.75)):
        assert (values < point).mean() == pytest.approx(share, abs=0.005)


def test_independence():
    """No two of: neighboring seeds, other streams, other steps, halves of one."""
    shape = (32, 32, 3)
    first, second = _noise([0, 1], shape=shape).reshape(2, -1)
    rows = [
        first,
        second,
        _noise([0], stream=32, shape=shape).ravel(),
        _noise([0], step=1, shape=shape).ravel(),
        _noise([0], step=2, shape=shape).ravel(),
        np.roll(first, len(first) // 2),
        first[::-1],
    ]
    correlations = np.corrcoef(rows)
    np.fill_diagonal(correlations, 0.0)
    # The last two are made of the first: compared with themselves only at a shift.
    assert np.abs(correlations).max() < 5 / len(first) ** 0.5


def test_depends_on_own_seed_only():
    alone = _noise([7])[0]
    np.testing.assert_array_equal(_noise([3, 7, 2**31 - 1])[1], alone)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 1), (4, 4, 3)])
def test_shapes(shape):
    noise = _noise([1, 2], shape=shape)
    assert noise.shape == (2, *shape) and noise.dtype == np.float32
    assert len(np.unique(noise)) == noise.size


def test_recorded_numbers():
    """The same on every backend and machine: pictures by seed depend on it."""
    expected = _reference([0, 12345], 16, 3, 6)
    found = _noise([0, 12345], 16, 3, (6,))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def _reference(seeds, stream, step, count):
    """The same definition with numpy's unsigned numbers."""

    def rotate(x, bits):
        return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))

    half = (count + 1) // 2
    rows = []
    for seed in seeds:
        keys = [np.uint32(seed), np.uint32(stream)]
        keys.append(keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA))
        x = np.arange(half, dtype="uint32") + keys[0]
        y = np.full(half, step, "uint32") + keys[1]
        for round_ in range(20):
            bits = [13, 15, 26, 6, 17, 29, 16, 24][round_ % 8]
            x = x + y
            y = rotate(y, bits) ^ x
            if round_ % 4 == 3:
                group = round_ // 4 + 1
                x = x + keys[group % 3]
                y = y + keys[(group + 1) % 3] + np.uint32(group)
        u, v = ((bits >> np.uint32(9)).astype("float64") + 0.5 for bits in (x, y))
        radius, angle = np.sqrt(-2 * np.log(u / 2**23)), 2 * np.pi * v / 2**23
        rows.append(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]))
    return np.array(rows)[:, :count]


def test_uniform():
    values = compute(lambda s: sample_uniform(s, -1), np.arange(4000, dtype="int32"))
    assert 0.0 < values.min() and values.max() < 1.0
    counts, _ = np.histogram(values, 10, (0.0, 1.0))
    assert np.abs(counts - 400).max() < 90
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.06
