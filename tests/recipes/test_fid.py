"""FID and CLIP score, on small stand-ins for the networks that are downloaded."""

import argparse
import json
import sys
import types

import numpy as np
import pytest
import scipy.linalg
from keras_mdm_recipes import evaluate, evaluate_field, fid
from PIL import Image

from keras_mdm.fitting.batches import BatchSpec

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")


class Corners:
    """Features of a picture: the means of its four quarters."""

    def features(self, shown):
        return features_by_hand(shown).astype("float32")


def pictures(count, seed, low=0):
    rng = np.random.default_rng(seed)
    return rng.integers(low, 256, (count, 8, 8, 3)).astype("uint8")


def features_by_hand(shown):
    shown = np.broadcast_to(shown, (*shown.shape[:3], 3)).astype("float64")
    blocks = shown.reshape(len(shown), 2, 4, 2, 4, 3)
    return blocks.mean(axis=(2, 4, 5)).reshape(len(shown), 4) / 255


def frechet_by_hand(first, second):
    one, other = (np.cov(x, rowvar=False) for x in (first, second))
    root = scipy.linalg.sqrtm(one @ other).real
    means = first.mean(0) - second.mean(0)
    return means @ means + np.trace(one + other - 2 * root)


class Model:
    """Draws what it is told to, as `MDM.generate` would be asked."""

    resolution = 8

    def __init__(self, shown, num_classes=None, text=None):
        self.shown, self.asked = shown, []
        self.batch_spec = BatchSpec(8, 3, (), num_classes, (), text)

    def generate(self, labels=None, prompts=None, num_samples=None, **options):
        begin = len(self.asked)
        self.asked += prompts or labels or [None] * num_samples
        return self.shown[begin : len(self.asked)]


def flags(**changes):
    values = {"num_samples": 60, "seed": 0, "batch_size": 4, "test_split": "test"}
    values |= {"sampler": None, "num_steps": None, "guidance_scale": None}
    values |= {"fid": None, "clip_score": None, "ema": None}
    return argparse.Namespace(**{**values, **changes})


def test_from_a_folder_to_fid(tmp_path, monkeypatch, capsys):
    """The whole way, beside scipy's root of a matrix; one channel is read as gray."""
    (tmp_path / "real").mkdir()
    real = pictures(30, 0, low=100)
    for number, picture in enumerate(real):
        Image.fromarray(picture).save(tmp_path / "real" / f"{number}.png")
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(fid, "Network", Corners)
    output = tmp_path / "reference.npz"
    arguments = [f"folder:{tmp_path / 'real'}", "--split", "all", "--resolution", "8"]
    arguments += ["--batch-size", "7", "--output", str(output)]
    fid.main(arguments)
    with pytest.raises(SystemExit, match="exists: give another name"):
        fid.main(arguments)
    told = capsys.readouterr().out
    assert "Statistics of 30 pictures" in told and "broken.png" in told
    monkeypatch.setattr(fid, "NUM_SAMPLES", 60)
    shown = pictures(60, 1)[..., :1]
    model = Model(shown, num_classes=3)
    seconds, found = evaluate_field.evaluate(flags(fid=str(output)), {}, model)
    wanted = frechet_by_hand(features_by_hand(shown), features_by_hand(real))
    np.testing.assert_allclose(found["fid"], wanted, rtol=1e-4)
    assert model.asked == [0, 1, 2] * 20 and found["pictures"] == 60


def test_fewer_pictures_are_not_called_fid():
    args = evaluate.parse_arguments(["run", "--fid", "reference.npz"])
    assert args.num_samples == 50_000
    assert evaluate.parse_arguments(["run"]).num_samples == 500
    few = flags(fid="reference.npz", num_samples=49_999)
    with pytest.raises(ValueError, match="FID is of 50,000 pictures.*49999"):
        evaluate_field.evaluate(few, {}, Model(None, 3))
    with pytest.raises(ValueError, match="at least 5 pictures. Received: 4"):
        fid.statistics(Corners().features(pictures(4, 0)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mu": np.zeros(4)}, "must be an .npz file with `mu` and `sigma`"),
        ({"mu": np.zeros(4), "sigma": np.zeros((3, 3))}, "must have the shapes"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "must be finite"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "resolution": 64}, "of 64 pixels"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "resolution": [8, 8]}, "must be an"),
    ],
)
def test_a_wrong_reference_is_refused(tmp_path, content, message):
    path = tmp_path / "reference.npz"
    np.savez(path, **content)
    with pytest.raises(ValueError, match=message):
        fid.read_reference(path, 8)


def test_a_reference_that_is_no_npz(tmp_path):
    path = tmp_path / "reference.npz"
    path.write_text("no")
    with pytest.raises(ValueError, match="must be an .npz file"):
        fid.read_reference(path, 8)


def test_a_reference_half_downloaded(tmp_path):
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.zeros(4), sigma=np.eye(4))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="must be an .npz file"):
        fid.read_reference(path, 8)


def test_a_reference_of_another_network_is_refused_before_drawing(tmp_path):
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    model = Model(None, 3)
    args = flags(fid=str(path), num_samples=50_000)
    with pytest.raises(ValueError, match="has 3 features, the network 4"):
        evaluate_field.evaluate(args, {}, model, network=Corners())
    assert not model.asked


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP model of random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    tokens = [*letters, *(f"{x}</w>" for x in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    size = {"height": 8, "width": 8}
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=size)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    layers |= {"num_attention_heads": 2}
    text = layers | {"vocab_size": len(tokens), "bos_token_id": 52, "eos_token_id": 53}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config=layers | {"image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_score_is_the_mean_of_cosines(clip_folder):
    """Beside the model's own logits, which are cosines times its scale."""
    clip = evaluate_field.Clip(str(clip_folder))
    shown, captions = pictures(6, 2), ["a", "red cat", "dog", "b", "x y z", "fox"]
    found = clip.scores(shown, captions)
    inputs = clip.processor(
        text=captions, images=list(shown), return_tensors="pt", padding=True
    )
    with torch.no_grad():
        logits = clip.model(**inputs).logits_per_text.diagonal()
    wanted = 100 * (logits / clip.model.logit_scale.exp().detach()).numpy()
    np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-4)


def test_captions_are_drawn_in_turn_and_scored(monkeypatch):
    """More pictures than captions; each is scored with its own caption."""

    class Captions(list):
        def require_captions(self, received):
            assert received == "--fid or --clip-score"

    captions = Captions({"caption": text} for text in "abc")
    monkeypatch.setattr("keras_mdm.data.open_source", lambda *_, **__: captions)
    model = Model(pictures(8, 0), text=object())

    class Scores:
        def scores(self, shown, captions):
            return np.array([ord(text) - ord("a") for text in captions], "float64")

    args = flags(clip_score="any", num_samples=8, batch_size=2)
    settings = {"dataset": "any", "data_dir": None}
    _, found = evaluate_field.evaluate(args, settings, model, clip=Scores())
    assert model.asked == [*"abcabcab"]
    assert found["clip_score"] == pytest.approx((2 * 3 + 1) / 8)


def test_a_sweep_has_no_fid():
    with pytest.raises(ValueError, match="one length at a time"):
        evaluate_field.check(flags(fid="any.npz", ema="sweep"), Model(None, 3))


def test_clip_score_needs_captions():
    with pytest.raises(ValueError, match="this run is not on text"):
        evaluate_field.evaluate(flags(clip_score="any"), {}, Model(None, 3))


def stand_in(monkeypatch, create):
    """torch-fidelity, which can't be imported beside a torch for CPUs alone."""
    utils = types.ModuleType("torch_fidelity.utils")
    utils.create_feature_extractor = create
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.utils", utils)


def test_the_network_is_shown_what_it_reads(monkeypatch):
    """Bytes, channels first, and gray pictures in three channels."""

    def create(name, layers, **options):
        assert (name, layers) == ("inception-v3-compat", ["2048"])
        return lambda shown: (shown.float().mean(dim=(2, 3)),)

    stand_in(monkeypatch, create)
    shown = pictures(5, 3)
    network = fid.Network()
    wanted = shown.mean(axis=(1, 2))
    np.testing.assert_allclose(network.features(shown), wanted, rtol=1e-5)
    gray = network.features(shown[..., :1])
    np.testing.assert_allclose(gray, wanted[:, [0, 0, 0]], rtol=1e-5)


def test_weights_that_can_not_be_fetched(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no internet")

    stand_in(monkeypatch, refuse)
    with pytest.raises(OSError, match="can't be fetched.*copy its file"):
        fid.Network()
