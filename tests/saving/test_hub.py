"""Presets from elsewhere: hub repositories, published weights, official folders."""

import copy
import shutil
import sys
import types

import numpy as np
import pytest
from helpers import equal_values, lean_nest, tiny_mdm
from official import TEXT_SIZE, UNET, save_official, tensors

import keras_mdm
from keras_mdm import convert
from keras_mdm.convert.ml_mdm import official_weights
from keras_mdm.saving import presets

pytestmark = pytest.mark.once

huggingface_hub = pytest.importorskip("huggingface_hub")
MDM = keras_mdm.MDM


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def offline(*args, **kwargs):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    return tmp_path / "cache" / "keras_mdm" / "presets"


def _serve(monkeypatch, folder):
    """A hub whose repository is a local folder; returns the calls it saw."""
    calls = []

    def snapshot_download(repository, allow_patterns=None):
        calls.append(repository)
        assert set(allow_patterns) >= {entry.name for entry in folder.iterdir()}
        return str(folder)

    def hf_hub_download(repository, filename):
        calls.append((repository, filename))
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return calls


def _official(mdm):
    return dict(official_weights(mdm.network))


def _equal(found, expected):
    assert set(found) == set(expected)
    return all(np.array_equal(found[key], expected[key]) for key in expected)


def test_repository_of_ours(tmp_path, monkeypatch):
    mdm = tiny_mdm(network=lean_nest(2, resolution=4))
    mdm.save_to_preset(tmp_path / "repository")
    calls = _serve(monkeypatch, tmp_path / "repository")
    other = MDM.from_preset("hf://user/shapes")
    assert calls == ["user/shapes"]
    assert equal_values(mdm.network.get_weights(), other.network.get_weights())


def test_repository_in_the_official_form(tmp_path, monkeypatch, cache):
    weights = save_official(tmp_path / "repository")
    _serve(monkeypatch, tmp_path / "repository")
    mdm = MDM.from_preset("hf://user/official")
    assert _equal(_official(mdm), weights)
    assert len(list(cache.iterdir())) == 1  # kept, and taken from there again
    monkeypatch.setattr("keras_mdm.convert.convert.assign_weights", None)
    assert _equal(_official(MDM.from_preset("hf://user/official")), weights)


def test_folder_in_the_official_form(tmp_path, cache):
    first = save_official(tmp_path / "run")
    assert _equal(_official(MDM.from_preset(tmp_path / "run")), first)
    # Trained on: other weights, hence another preset.
    second = {key: value + 1 for key, value in first.items()}
    save_official(tmp_path / "run", second)
    assert _equal(_official(MDM.from_preset(tmp_path / "run")), second)


def test_repository_that_can_not_be_reached():
    with pytest.raises(ValueError, match="'hf://user/x' can't be downloaded") as caught:
        MDM.from_preset("hf://user/x")
    assert "https://huggingface.co/user/x/tree/main" in str(caught.value)
    assert "no network in tests" in str(caught.value)


FLICKR = sorted(n for n in MDM.builtin_presets() if n.startswith("mdm_flickr"))


@pytest.fixture
def small_flickr(monkeypatch):
    """A published preset with a tiny network instead of half a billion numbers."""
    from keras_mdm.backend import serialize
    from keras_mdm.convert.ml_mdm import network_from_config

    builtin = presets.builtin_presets()
    network = network_from_config(UNET, 8, TEXT_SIZE)
    builtin["mdm_flickr_64"]["config"]["config"]["network"] = serialize(network)
    monkeypatch.setattr(presets, "builtin_presets", lambda: copy.deepcopy(builtin))


def test_published_weights_at_first_use(tmp_path, monkeypatch, cache, small_flickr):
    weights = save_official(tmp_path / "repository")
    calls = _serve(monkeypatch, tmp_path / "repository")
    mdm = MDM.from_preset("mdm_flickr_64")
    assert calls == [("pcuenq/mdm-flickr-64", "vis_model.pth")]
    assert _equal(_official(mdm), weights)
    assert mdm.sampling.num_steps == 50 and mdm.sampling.guidance_scale == 7.5
    assert equal_values(
        mdm.network.get_weights(), [np.array(v) for v in mdm.ema.averages]
    )
    shutil.rmtree(tmp_path / "repository")
    again = MDM.from_preset("mdm_flickr_64")  # from the cache, without the hub
    assert len(calls) == 1 and _equal(_official(again), weights)
    assert [entry.name for entry in cache.iterdir()] == ["mdm_flickr_64"]


def test_local_file(tmp_path, small_flickr):
    weights = save_official(tmp_path / "a")
    path = tmp_path / "a" / "vis_model.pth"
    mdm = MDM.from_preset("mdm_flickr_64", weights=path)
    assert _equal(_official(mdm), weights)
    assert equal_values(
        mdm.network.get_weights(), [np.array(v) for v in mdm.ema.averages]
    )
    with pytest.raises(ValueError, match="is not a whole PyTorch checkpoint"):
        path.write_bytes(path.read_bytes()[:5000])
        MDM.from_preset("mdm_flickr_64", weights=path)
    with pytest.raises(ValueError, match="missing: cond_emb.weight"):
        missing = tensors()
        del missing["cond_emb.weight"]
        save_official(tmp_path / "b", missing)
        MDM.from_preset("mdm_flickr_64", weights=tmp_path / "b" / "vis_model.pth")
    with pytest.raises(ValueError, match="can't be changed in a preset with weights"):
        MDM.from_preset("mdm_flickr_64", weights=path, image_channels=1)


def test_local_file_instead_of_a_preset_s_weights(tmp_path):
    save_official(tmp_path / "a")
    MDM.from_preset(tmp_path / "a").save_to_preset(tmp_path / "preset")
    other = save_official(tmp_path / "b", {k: v + 1 for k, v in tensors().items()})
    mdm = MDM.from_preset(tmp_path / "preset", weights=tmp_path / "b" / "vis_model.pth")
    assert _equal(_official(mdm), other)


@pytest.mark.parametrize("name", FLICKR)
def test_offline(name, cache):
    """The error says which file to fetch from where, before a network is built."""
    with pytest.raises(ValueError) as caught:
        MDM.from_preset(name)
    size = name.removeprefix("mdm_flickr_")
    for words in (
        f"preset '{name}' can't be downloaded",
        "'vis_model.pth' (1.",
        f"mdm/flickr{size}/vis_model.pth or ",
        f"https://huggingface.co/pcuenq/mdm-flickr-{size}/resolve/main/vis_model.pth",
        "`weights='vis_model.pth'`",
        "`load_weights=False`",
        "no network in tests",
    ):
        assert words in str(caught.value)
    assert not cache.exists()


def test_hub_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'need `pip install "keras-mdm\[hub\]"`'):
        MDM.from_preset(FLICKR[0])


def test_conversion_that_fails_is_not_kept(tmp_path, monkeypatch, cache):
    weights = tensors()
    weights["extra"] = np.zeros(3)
    save_official(tmp_path / "a", weights)
    with pytest.raises(ValueError, match="unexpected: extra"):
        MDM.from_preset(tmp_path / "a")
    assert not cache.exists() or not list(cache.iterdir())
    assert convert.reads(tmp_path / "a")


def test_a_reader_of_one_s_own(tmp_path, monkeypatch):
    """Another form is a module with four names, registered by its own."""
    mdm = tiny_mdm()
    reader = types.ModuleType("reader_of_mine")
    reader.FILES = ("mine.npz",)
    reader.reads = lambda path: path.suffix == ".npz" or (path / "mine.npz").is_file()
    reader.to_preset = lambda folder, output: mdm.save_to_preset(output)

    def load_weights(network, path):
        with np.load(path) as values:
            network.set_weights([values[name] for name in values.files])

    reader.load_weights = load_weights
    monkeypatch.setitem(sys.modules, "reader_of_mine", reader)
    monkeypatch.setattr(presets, "_readers", [])
    (tmp_path / "mine").mkdir()
    np.savez(
        tmp_path / "mine" / "mine.npz", *[w + 1 for w in mdm.network.get_weights()]
    )
    with pytest.raises(ValueError, match="is not a whole preset"):
        MDM.from_preset(tmp_path / "mine")
    presets.register_reader("reader_of_mine")
    found = MDM.from_preset(tmp_path / "mine").network
    assert equal_values(found.get_weights(), mdm.network.get_weights())
    mdm.save_to_preset(tmp_path / "preset")
    file = tmp_path / "mine" / "mine.npz"
    found = MDM.from_preset(tmp_path / "preset", weights=file).network
    wanted = [w + 1 for w in mdm.network.get_weights()]
    assert equal_values(found.get_weights(), wanted)
    with pytest.raises(ValueError, match="`weights` must be a file of weights"):
        MDM.from_preset(tmp_path / "preset", weights=tmp_path / "none.pth")
