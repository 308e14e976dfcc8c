"""The T5 encoder against `transformers`, on tiny models in its file format."""

import importlib
import io
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from keras_mdm.conditioning import t5_files

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("keras_hub")

from keras_mdm.conditioning.t5 import T5Encoder  # noqa: E402

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
SENTENCES = [
    "a red circle on a blue square",
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
]
# One shorter than the longest relative position, one with every kind of distance.
TEXTS = ["a red circle", "", SENTENCES[1] * 2, SENTENCES[2] * 12]


def _vocabulary():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=60,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def _save(folder, shard="1GB", **options):
    """A random T5 as `save_pretrained` writes it, and the model itself."""
    options = {"feed_forward_proj": "gated-gelu", "num_layers": 2, **options}
    config = transformers.T5Config(
        vocab_size=96,
        d_model=32,
        d_kv=4,  # heads narrower than the model, as in no multiple of it
        d_ff=48,
        num_heads=6,
        tie_word_embeddings=False,
        **options,
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the near-zero initial values
            parameter.add_(0.5 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "spiece.model").write_bytes(_vocabulary())
    return model


@pytest.fixture(scope="module")
def flan(tmp_path_factory):
    """A folder like `google/flan-t5-xl`: shards, an index, encoder and decoder."""
    folder = tmp_path_factory.mktemp("t5") / "flan"
    model = _save(folder, shard="20KB")
    assert (folder / t5_files.INDEX).is_file()
    return folder, model


def _reference(model, rows, length):
    """What the original encoder gives, with zeros for padding."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    mask = (ids != 0).long()
    with torch.no_grad():
        states = model.encoder(ids, attention_mask=mask).last_hidden_state
    return (states.float() * mask[..., None]).numpy(), mask.numpy() > 0


def _check(encoder, model, tolerance):
    embeddings, mask = encoder.encode(TEXTS)
    rows = encoder.tokenize(TEXTS)
    expected, expected_mask = _reference(model, rows, max(map(len, rows)))
    assert embeddings.dtype == np.float32 and mask.dtype == bool
    np.testing.assert_array_equal(mask, expected_mask)
    assert embeddings.shape == (*mask.shape, encoder.size)
    assert not embeddings[~mask].any()
    error = np.abs(embeddings - expected).max() / np.abs(expected).max()
    assert error <= tolerance, error


@pytest.mark.filterwarnings("error:.*mask:UserWarning")
def test_flan(flan):
    folder, model = flan
    encoder = T5Encoder.from_hugging_face(folder)
    assert (encoder.size, encoder.max_tokens) == (32, 128)
    _check(encoder, model, 1e-5)
    assert not encoder.model.trainable_variables
    # The decoder is not there: its parameters would be more than half.
    count = sum(p.numel() for p in model.encoder.parameters())
    assert encoder.model.count_params() == count


@pytest.mark.parametrize("projection", ["relu", "gated-silu"])
def test_other_feed_forward_layers(tmp_path, projection):
    model = _save(tmp_path, feed_forward_proj=projection)
    _check(T5Encoder.from_hugging_face(tmp_path), model, 1e-5)


def test_bfloat16(flan):
    """As far from float32 as `transformers` in bfloat16, about."""
    folder, model = flan
    encoder = T5Encoder.from_hugging_face(folder, dtype="bfloat16")
    assert {v.dtype for v in encoder.model.variables} == {"bfloat16"}
    half = transformers.T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16)
    rows = encoder.tokenize(TEXTS)
    length = max(map(len, rows))
    expected, _ = _reference(model, rows, length)
    theirs, _ = _reference(half.eval(), rows, length)
    ours, _ = encoder.encode(TEXTS)

    def distance(states):
        return np.sqrt(np.mean((states - expected) ** 2) / np.mean(expected**2))

    assert 1e-4 < distance(ours) <= 2.5 * distance(theirs)


def test_tokens(flan):
    """Ids of SentencePiece itself, then the end token; at most 128 in all."""
    folder, _ = flan
    encoder = T5Encoder.from_hugging_face(folder)
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromFile(str(folder / "spiece.model"))
    rows = encoder.tokenize(TEXTS)
    assert rows[0] == [*processor.EncodeAsIds(TEXTS[0]), 1]
    blank = processor.PieceToId("\u2581")
    assert rows[1] == [blank, 1]
    assert encoder.tokenize(["  "]) == [[blank, 1]]
    ids = processor.EncodeAsIds(TEXTS[3])
    assert len(ids) > 127 and rows[3] == [*ids[:127], 1]
    short = T5Encoder.from_hugging_face(folder, max_tokens=4)
    assert short.tokenize(TEXTS)[0] == [*rows[0][:3], 1]


def test_neighbors_change_only_the_padding(flan):
    encoder = T5Encoder.from_hugging_face(flan[0])
    together, _ = encoder.encode(TEXTS)
    alone, mask = encoder.encode(TEXTS[:1])
    assert mask.all()
    np.testing.assert_allclose(alone[0], together[0, : alone.shape[1]], atol=1e-4)


def test_bad_arguments(flan, tmp_path):
    folder, _ = flan
    encoder = T5Encoder.from_hugging_face(folder)
    with pytest.raises(ValueError, match="`texts` must be a sequence of strings"):
        encoder.encode("a red circle")
    with pytest.raises(ValueError, match="must have at least one text"):
        encoder.encode([])
    with pytest.raises(ValueError, match="overflows in float16"):
        T5Encoder.from_hugging_face(folder, dtype="float16")
    with pytest.raises(ValueError, match="`max_tokens` must be a whole number from 2"):
        T5Encoder.from_hugging_face(folder, max_tokens=1)
    with pytest.raises(ValueError, match="must be a folder or 'hf://"):
        T5Encoder.from_hugging_face(tmp_path / "none")


def _changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def copy(flan, tmp_path):
    return pathlib.Path(shutil.copytree(flan[0], tmp_path / "copy"))


def test_folders_that_are_damaged(copy):
    shard = sorted(copy.glob("*.safetensors"))[0]
    whole = shard.read_bytes()
    for content, words in (
        (whole[:-10], "safetensors' is damaged.*not fully covered"),
        (whole[:20], "safetensors' is damaged.*header"),
        (whole[:8] + b"x" * (len(whole) - 8), "safetensors' is damaged.*JSON"),
    ):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            T5Encoder.from_hugging_face(copy)
    shard.unlink()
    with pytest.raises(ValueError, match="is missing. The weights must be safetensors"):
        T5Encoder.from_hugging_face(copy)
    (copy / "spiece.model").unlink()
    with pytest.raises(ValueError, match="the SentencePiece model"):
        T5Encoder.from_hugging_face(copy)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "bert"}, "must have a model of type 't5'"),
        ({"feed_forward_proj": "swish"}, "`feed_forward_proj` must be one of"),
        ({"relative_attention_num_buckets": 64}, "must be 32"),
        ({"num_layers": 3}, "missing: encoder.block.2"),
        ({"num_layers": 1}, "unexpected: encoder.block.1"),
        ({"d_ff": 64}, r"wo.weight: \(32, 48\), expected \(32, 64\)"),
    ],
)
def test_configurations_that_do_not_fit(copy, values, words):
    _changed(copy, **values)
    with pytest.raises(ValueError, match=words):
        T5Encoder.from_hugging_face(copy)


def test_keras_hub_that_is_not_installed(flan, monkeypatch):
    name = "keras_hub.src.models.stable_diffusion_3.t5_encoder"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"needs `pip install \"keras-mdm\[text\]"):
        T5Encoder.from_hugging_face(flan[0])


def test_hub(flan, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    seen = []

    def snapshot_download(repository, allow_patterns=None):
        seen.append(repository)
        return str(flan[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert T5Encoder.from_hugging_face("hf://google/flan-t5-xl").size == 32
    assert seen == ["google/flan-t5-xl"]

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        ValueError, match="Fetch .*spiece.model.*google/flan-t5-xl/tree"
    ):
        T5Encoder.from_hugging_face("hf://google/flan-t5-xl")


def test_program(flan, tmp_path, monkeypatch, capsys):
    """The encoder alone, in the same form: for ours and for `transformers`."""
    folder, model = flan
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("convert_t5")
    kept = tmp_path / "kept"
    arguments = [str(folder), "--output", str(kept), "--dtype", "float32"]
    assert tool.main(arguments) == 0
    assert "tensors" in capsys.readouterr().err
    names = {entry.name for entry in kept.iterdir()}
    assert names == {"config.json", "spiece.model", "model.safetensors"}
    _check(T5Encoder.from_hugging_face(kept), model, 1e-5)
    theirs = transformers.T5EncoderModel.from_pretrained(kept).state_dict()
    for name, tensor in model.encoder.state_dict().items():
        np.testing.assert_array_equal(theirs[f"encoder.{name}"], tensor)
    assert tool.main(arguments) == 1
    assert "error: `path` exists" in capsys.readouterr().err
    assert tool.main([str(folder), "--output", str(kept), "--overwrite"]) == 0
    size = (kept / "model.safetensors").stat().st_size
    count = sum(p.numel() for p in model.encoder.parameters())
    assert 2 * count < size < 2.5 * count + 4096
    half = transformers.T5EncoderModel.from_pretrained(kept, dtype="auto")
    assert half.dtype == torch.bfloat16


def test_a_model_on_embeddings_draws_from_strings(flan):
    """With the encoder attached, strings and the embeddings of them draw the same."""
    from text_helpers import text_mdm

    import keras_mdm

    folder, _ = flan
    encoder = T5Encoder.from_hugging_face(folder, max_tokens=8)
    mdm = text_mdm(keras_mdm.TextEmbeddings(encoder.size, max_tokens=8))
    mdm.text_encoder = encoder
    prompt = TEXTS[0].split(" on ")[0]
    options = {"seed": 0, "guidance_scale": 2.0, "output": "float"}
    with pytest.warns(UserWarning, match="Cut off: '.*dog' of 'the quick"):
        found = mdm.generate([prompt, SENTENCES[1]], **options)
    embeddings, mask = encoder.encode([prompt, SENTENCES[1]])
    features = {"text_embeddings": embeddings, "text_mask": mask}
    wanted = mdm.generate(features=features, **options)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
