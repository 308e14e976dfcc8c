"""Numbers recorded from the official implementation, and how close ours must be.

A case is a folder with `config.json`, `inputs.npz`, `outputs.npz` and `weights.npz`
(or the name of the case whose weights it uses); pictures are NCHW there. Cases are read
from `KERAS_MDM_PARITY_DIR`, by default a small selection beside this file.
"""

import functools
import json
import math
import os
import pathlib

import numpy as np
import pytest
from keras import ops

from keras_mdm.convert.ml_mdm import assign_weights, network_from_config
from keras_mdm.diffusion import NoiseSchedule

SCHEDULES = {
    "COSINE": "log_snr_cosine",
    "DDPM": "linear_unscaled",
    "DEEPFLOYD": "cosine",
}
PREDICTIONS = {"V_PREDICTION": "v", "DDPM": "epsilon", "DDIM": "epsilon"}

# Float32 sums in another order differ by about this much, relative to the largest
# value of an array, whatever the noise floor of the original says.
SMALLEST_TOLERANCE = 2e-6
# Positive and negative gradients nearly cancel in the sum of a large tensor.
SMALLEST_OF_SUMS = 3e-5
FIXED_TOLERANCES = {
    # A step from a recorded picture: one prediction, guided up to threefold, and for
    # epsilon divided by the little signal there is.
    "forced": 1e-4,
    # A step from a recorded prediction: the place of a percentile among the sorted
    # magnitudes is rounded to float32.
    "single": 1e-5,
    # Changing each weight by its last bit moves the norms after Adam's first step by up
    # to 5e-6, five times what two kernels of PyTorch happened to differ by.
    "grad_norm_after_adam": 8e-6,
    # Angles go up to 999 radians in float32.
    "sinusoid": 6e-5,
}
# The noise floor compares two kernels of one framework; another framework is further.
FLOORS = 5.0


def folder():
    """The folder that has one folder for each case."""
    given = os.environ.get("KERAS_MDM_PARITY_DIR")
    root = pathlib.Path(given) if given else pathlib.Path(__file__).parent
    return root / "fixtures" if (root / "fixtures").is_dir() else root


def _merged(config, changes):
    """`config` with nested dicts updated by those of `changes`."""
    merged = dict(config)
    for key, value in (changes or {}).items():
        if isinstance(value, dict):
            value = _merged(merged.get(key) or {}, value)
        merged[key] = value
    return merged


def cases(kind, videos=True):
    """Parameters of a test: one for each case of a type in the folder.

    Args:
        kind: str. Type of the cases.
        videos: bool. Whether those of video networks are among them.
    """
    parameters = []
    paths = sorted(folder().glob("*/config.json"))
    if not paths:
        raise ValueError(f"KERAS_MDM_PARITY_DIR: no recorded case in {folder()}")
    for path in paths:
        config = json.loads(path.read_text())
        is_video = any(config.get("is_temporal", ()))
        if config["type"] != kind or (is_video and not videos):
            continue
        parameters.append(pytest.param(path.parent.name, id=path.parent.name))
    return parameters


def to_ours(array):
    """NCHW to channels-last; arrays of other ranks as they are."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def to_clips(array, frames):
    """NCHW pictures whose tiles are the frames of a clip, to ours."""
    pictures = to_ours(array)
    if frames == 1:
        return pictures
    side = math.isqrt(frames)
    batch, height, width, channels = pictures.shape
    tiles = (batch, side, height // side, side, width // side, channels)
    clips = pictures.reshape(tiles).transpose(0, 1, 3, 2, 4, 5)
    return clips.reshape(batch, frames, *clips.shape[3:])


def to_theirs(array):
    """Channels-last to NCHW, clips as tiles; arrays of other ranks as they are."""
    array = np.asarray(array)
    if array.ndim == 5:
        batch, frames, height, width, channels = array.shape
        side = math.isqrt(frames)
        tiles = array.reshape(batch, side, side, height, width, channels)
        tiles = tiles.transpose(0, 1, 3, 2, 4, 5)
        array = tiles.reshape(batch, side * height, side * width, channels)
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


class Case:
    """One case with everything that was recorded of it."""

    def __init__(self, name):
        self.name = name
        self.path = folder() / name
        self.config = json.loads((self.path / "config.json").read_text())
        self.inputs = dict(np.load(self.path / "inputs.npz"))
        self.outputs = dict(np.load(self.path / "outputs.npz"))
        self.resolutions = self.config.get("sizes_high_to_low")
        self.runs = self.config.get("runs", [])

    @functools.cached_property
    def weights(self):
        """Official weights; a missing file is an error, not a reason to skip."""
        return dict(np.load(self.path / self.config["weights"]))

    def network(self, changes=None):
        """Our network of the case, with the recorded weights."""
        network = network_from_config(
            self.network_config(changes), self.config["px"], self.config.get("lm_dim")
        )
        assign_weights(network, self.weights)
        for part in network.networks[:-1]:
            if part.inner.frames > 1:
                for adapter in (part.adapter_in, part.adapter_out):
                    _cross_tiles(adapter, part.inner.frames)
        return network

    def network_config(self, changes=None):
        """Official configuration of the case's network."""
        return _merged(self.config["unet_config"], changes)

    def sampler_config(self, run):
        """Diffusion configuration of a run, and the part about its sampler."""
        merged = _merged(self.config["diffusion_config"], run.get("diffusion"))
        return merged, merged["sampler_config"]

    def schedule(self, run):
        """Our schedule for a run. Nested networks shift it or scale the signal."""
        _, config = self.sampler_config(run)
        nested = len(self.resolutions) > 1
        shifted = nested and config.get("schedule_shifted", False)
        kind = NoiseSchedule
        if not nested and config.get("rescale_signal", 1) not in (None, 1):
            kind = functools.partial(RescaledSchedule, config["rescale_signal"])
        return kind(
            SCHEDULES[config["schedule_type"]],
            config["num_diffusion_steps"],
            shift_power=config.get("schedule_shifted_power", 1) if shifted else 0,
            scale_signal=nested and not shifted,
        )

    def features(self, embeddings="lm_outputs", mask="lm_mask", prefix=""):
        """Features of the condition, by our names."""
        features = {}
        if f"{prefix}{embeddings}" in self.inputs:
            features["text_embeddings"] = self.inputs[f"{prefix}{embeddings}"]
        if mask and f"{prefix}{mask}" in self.inputs:
            features["text_mask"] = self.inputs[f"{prefix}{mask}"] > 0
        return features

    @functools.cached_property
    def noise_floor(self):
        path = self.path.parent / "noise_floor.json"
        if not path.exists():
            path = self.path.parent.parent / "noise_floor.json"
        return json.loads(path.read_text()).get(f"fixtures/{self.name}", {})

    def tolerance(self, kind):
        """Largest error allowed, relative to the largest value of the array.

        Args:
            kind: str. Array kind in `noise_floor.json`. Unknown ones have no floor.
        """
        if kind in FIXED_TOLERANCES:
            return FIXED_TOLERANCES[kind]
        floor = self.noise_floor.get(kind, {}).get("max_rel_to_max", 0.0)
        smallest = SMALLEST_OF_SUMS if kind == "grad_sum" else SMALLEST_TOLERANCE
        return max(smallest, FLOORS * floor)

    def check(self, actual, key, kind=None, expected=None):
        """Compares an array with the recorded one.

        Args:
            actual: Array in the recorded layout.
            key: str. Key of the recorded array.
            kind: str. Kind for the tolerance; defaults to what follows the `/`.
            expected: Optional array to compare with instead of `outputs[key]`.
        """
        expected = self.outputs[key] if expected is None else expected
        kind = kind or key.split("/")[-1]
        actual = np.asarray(actual)
        assert actual.shape == expected.shape, f"{key}: {actual.shape}"
        if expected.size == 0:
            return
        largest = max(float(np.abs(expected).max()), 1e-30)
        error = float(np.abs(actual.astype("float64") - expected).max()) / largest
        log = os.environ.get("KERAS_MDM_PARITY_LOG")
        if log:  # to see how close, not only that it is close enough
            with open(log, "a") as file:
                line = [self.name, kind, key, error, self.tolerance(kind)]
                file.write(json.dumps(line) + "\n")
        assert error <= self.tolerance(kind), (
            f"{self.name} {key}: off by {error:.2e} of {largest:.3g}, "
            f"allowed is {self.tolerance(kind):.2e}"
        )

    def check_gradients(self, gradients, prefix):
        """Compares gradients by official name with norms, sums and vectors."""
        names = [str(name) for name in self.outputs[f"{prefix}/grad_names"]]
        unused = set(self.outputs.get(f"{prefix}/grad_none", []))
        assert set(gradients) - unused <= set(names) <= set(gradients)
        flat = [gradients[name].astype("float64") for name in names]
        self.check([np.sqrt((g**2).sum()) for g in flat], f"{prefix}/grad_l2")
        self.check([g.sum() for g in flat], f"{prefix}/grad_sum")
        key = f"{prefix}/grad_total_norm"
        if key in self.outputs:
            self.check(np.sqrt(sum((g**2).sum() for g in flat)), key)
        if f"{prefix}/grad_1d_names" in self.outputs:
            self.check_vectors(gradients, f"{prefix}/grad_1d")

    def check_vectors(self, values, prefix, wanted=None):
        """Compares the recorded rank-1 tensors, or the wanted elements of them."""
        names = [str(name) for name in self.outputs[f"{prefix}_names"]]
        found = np.concatenate([values[name] for name in names])
        expected = self.outputs[f"{prefix}_flat"]
        if wanted is not None:
            kept = np.concatenate([wanted[name] for name in names])
            found, expected = found[kept], expected[kept]
        self.check(found, f"{prefix}_flat", expected=expected)


def _cross_tiles(adapter, frames):
    """Makes an adapter between two networks of clips work as the official one does.

    There the convolution runs over the frames as tiles of one picture, so that each
    frame sees the border of its neighbors in the grid. Nothing needs that, so the
    package has no such layer.
    """
    conv = adapter.call
    side = math.isqrt(frames)

    def call(x):
        height, width = x.shape[1:3]
        grid = ops.reshape(x, (-1, side, side, height, width, x.shape[-1]))
        grid = ops.transpose(grid, (0, 1, 3, 2, 4, 5))
        h = conv(ops.reshape(grid, (-1, side * height, side * width, x.shape[-1])))
        h = ops.reshape(h, (-1, side, height, side, width, h.shape[-1]))
        h = ops.transpose(h, (0, 1, 3, 2, 4, 5))
        return ops.reshape(h, (-1, height, width, h.shape[-1]))

    # Keras would track an attribute that is set the usual way.
    object.__setattr__(adapter, "call", call)


class RescaledSchedule(NoiseSchedule):
    """`rescale_signal` of the official plain UNet: a fixed scale of the pictures.

    No published configuration uses it, so the package has no option for it.
    """

    def __init__(self, scale, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._scale = float(scale)

    def signal_scale(self, ratio=1):
        return self._scale
