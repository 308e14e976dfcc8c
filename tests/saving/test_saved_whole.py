"""A model in a `.keras` file, pickled or copied goes on where it was."""

import copy
import os
import pickle
import types
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from helpers import (
    batch_of,
    equal_values,
    lean_nest,
    tiny_mdm,
    tiny_nest,
    values_of,
)

import keras_mdm

pytestmark = pytest.mark.usefixtures("eager_functions")

BATCH = batch_of(4, 8)


def through_file(mdm, folder):
    mdm.save(folder / "m.keras")
    return keras.models.load_model(folder / "m.keras")


WAYS = {
    "file": through_file,
    "pickle": lambda mdm, folder: pickle.loads(pickle.dumps(mdm)),
    "deepcopy": lambda mdm, folder: copy.deepcopy(mdm),
}


@pytest.fixture(scope="module")
def mdm():
    """Half-way through a stage, with everything that `compile` can be told."""
    mdm = tiny_mdm(levels=3, resolution=4, ema_momentum=0.5)
    mdm.set_active(8, freeze_inner=True)
    mdm.network.at_level(8).own_layers[0].trainable = False
    schedule = keras_mdm.training.StageLearningRate(1e-2, 4, 9)
    mdm.compile(
        keras_mdm.AdamW(schedule, global_clipnorm=2.0, weight_decay=0.01),
        loss_weights={8: 1.0, 4: 0.5},
        mixed_resolution={8: 1, 4: 1},
    )
    mdm.train_on_batch(BATCH)
    return mdm


@pytest.fixture(scope="module")
def copies(mdm, tmp_path_factory):
    """A copy by each way; then the model itself takes its next step.

    Returns:
        The copies, and the losses of that step.
    """
    folder = tmp_path_factory.mktemp("copies")
    found = {way: copied(mdm, folder) for way, copied in WAYS.items()}
    return found, mdm.train_on_batch(BATCH, return_dict=True)


@pytest.mark.parametrize("way", WAYS)
def test_next_step_is_the_same(way, mdm, copies):
    """Also that of the model which was saved: as if it had not been."""
    other, wanted = copies[0][way], copies[1]
    assert other.resolution == 8
    assert other.batch_spec == mdm.batch_spec
    trained = [v.path for v in mdm.trainable_variables]
    assert [v.path for v in other.trainable_variables] == trained
    assert int(other.optimizer.iterations) == int(mdm.optimizer.iterations) - 1 > 0
    logs = other.train_on_batch(BATCH, return_dict=True)
    assert logs == pytest.approx(wanted, rel=1e-5)
    for kind in (lambda m: m.variables, lambda m: m.optimizer.variables):
        for a, b in zip(values_of(kind(other)), values_of(kind(mdm)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    state = [values_of([m.seed_generator.state]) for m in (mdm, other)]
    assert equal_values(*state)
    # The frozen inner network, and what was frozen by hand.
    still, kept = (
        [v for v in m.network.variables if not v.trainable] for m in (other, mdm)
    )
    assert still and equal_values(values_of(still), values_of(kept))


def test_a_clone_is_compiled_alike(mdm):
    clone = keras.models.clone_model(mdm)
    assert clone.resolution == 8 and int(clone.optimizer.iterations) == 0
    clone.fit(BATCH, verbose=0)
    assert np.isfinite(clone.evaluate(BATCH, verbose=0)[0])


def test_a_model_that_was_not_compiled_asks_for_it(tmp_path):
    other = through_file(tiny_mdm(), tmp_path)
    for call in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        with pytest.raises(ValueError, match=r"needs a compiled model"):
            getattr(other, call)(batch_of(4))
    other = keras_mdm.MDM.from_config(tiny_mdm().get_config())
    with pytest.raises(ValueError, match=r"needs a compiled model"):
        other.fit(batch_of(4))


def test_dropout_and_levels_that_rest_are_saved(tmp_path):
    """Random states of dropout, which rest with their level, are saved once."""
    mdm = tiny_mdm(network=tiny_nest(2, resolution=4, dropout=0.1))
    count = len(mdm.variables)
    mdm.resolution = 4
    mdm.resolution = 8
    assert len(mdm.variables) == count
    mdm.save_weights(tmp_path / "m.weights.h5")
    tiny_mdm(network=tiny_nest(2, resolution=4, dropout=0.1)).load_weights(
        tmp_path / "m.weights.h5"
    )


def test_layers_frozen_by_hand_stay_so_after_loading(tmp_path):
    mdm = tiny_mdm(network=lean_nest(2, resolution=4))
    mdm.network.conv_in.trainable = False
    mdm.resolution = 4
    mdm.compile("sgd")
    loaded = through_file(mdm, tmp_path)
    loaded.resolution = 8
    assert not loaded.network.conv_in.trainable
    assert loaded.network.conv_out.trainable


def test_files_of_the_first_version_keep_their_schedule():
    config = tiny_mdm(schedule="log_snr_cosine").get_config()
    del config["timesteps"]
    config["schedule"] = {**config["schedule"], "name": "cosine"}
    config["sampling"] = {**config["sampling"], "spacing": "official"}
    loaded = keras_mdm.MDM.from_config(config)
    assert loaded.schedule.name == "log_snr_cosine"
    assert loaded.sampling.spacing == "index"


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_a_file_is_the_old_or_the_new_one(tmp_path, monkeypatch, name):
    """Whatever stops the writer; the new one has what Keras' own file would have."""
    mdm = tiny_mdm(1, resolution=4)
    write = mdm.save if name == "m.keras" else mdm.save_weights
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    replace = os.replace

    def stopped(source, target):
        assert path.read_bytes() == before and os.path.getsize(source) > 1000
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]
    monkeypatch.setattr(os, "replace", replace)
    mdm.network.set_weights([w + 1 for w in mdm.network.get_weights()])
    write(path)
    other = tiny_mdm(1, resolution=4)
    if name == "m.keras":
        other = keras.models.load_model(path)
    else:
        other.load_weights(path)
    assert equal_values(
        values_of(other.network.weights), values_of(mdm.network.weights)
    )


@pytest.mark.once
def test_weights_that_were_changed_are_refused(tmp_path):
    """Unless HDF5 changed them itself: it cuts off what stands behind its end."""
    mdm, path = tiny_mdm(1, resolution=4), tmp_path / "m.weights.h5"
    mdm.save_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mdm.load_weights(path)
    data = path.read_bytes()
    place = data.index(values_of(mdm.network.weights)[0].tobytes())
    path.write_bytes(data[:place] + b"\x7f" + data[place + 1 :])
    with pytest.raises(ValueError, match="m.weights.h5' is damaged: the checksum"):
        mdm.load_weights(path)
    with h5py.File(path, "r+") as file:
        file.attrs["changed"] = 1
    with pytest.warns(UserWarning, match="m.weights.h5' has no checksum"):
        mdm.load_weights(path)


@pytest.mark.once
def test_an_archive_that_keras_reads_in_parts(tmp_path):
    """As it does with one whose checksum is wrong; then nobody else compares it."""
    mdm, path = tiny_mdm(1, resolution=4), tmp_path / "m.keras"
    mdm.save(path)
    data = path.read_bytes()
    place = data.index(values_of(mdm.network.weights)[0].tobytes())
    path.write_bytes(data[:place] + b"\x7f" + data[place + 1 :])
    with zipfile.ZipFile(path) as archive:
        store = types.SimpleNamespace(archive=archive, keys=list)
        with pytest.raises(ValueError, match="m.keras' is damaged: Bad CRC-32"):
            mdm.load_own_variables(store)
    with pytest.raises(ValueError, match="m.keras' is damaged: Bad CRC-32"):
        mdm.load_weights(path)
