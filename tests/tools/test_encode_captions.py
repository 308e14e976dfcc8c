"""`tools/encode_captions.py`: shards that are resumed, the Beam pipeline, training."""

import importlib
import importlib.util
import json
import pathlib
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from text_helpers import FakeEncoder, text_mdm

import keras_mdm
from keras_mdm.data import EmbeddingShards

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = [f"{colour} {shape}" for colour in ("red", "blue") for shape in "abcd"]


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(ROOT / "tools"))
    yield importlib.import_module("encode_captions")
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for i, text in enumerate(TEXTS):
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return f"folder:{folder}"


@pytest.fixture
def job(tool, dataset, tmp_path):
    return tool.Job(
        dataset,
        str(tmp_path / "embeddings"),
        FakeEncoder,
        split="all",
        shard_size=3,
        batch_size=2,
    )


def _check(folder):
    """Every caption has the embedding that the encoder gives it on its own."""
    shards = EmbeddingShards(folder)
    assert len(shards) == len(TEXTS)
    found = shards.look_up(TEXTS)
    embeddings, mask = FakeEncoder().encode(TEXTS)
    np.testing.assert_array_equal(found["text_mask"], mask)
    np.testing.assert_allclose(found["text_embeddings"], embeddings, atol=2e-3)


def test_shards_are_written_with_progress(tool, job, capsys):
    tool.encode_here(job)
    _check(job.output)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"shard {i}/3" for i in (1, 2, 3)]
    assert "min left" in lines[0]


def test_a_stopped_run_goes_on(tool, job, monkeypatch):
    class Stopping(FakeEncoder):
        def encode(self, texts):
            if len(self.encoded) >= 5:
                raise KeyboardInterrupt
            return super().encode(texts)

    stopping = Stopping()
    monkeypatch.setattr(tool.Job, "load_encoder", lambda self: stopping)
    with pytest.raises(KeyboardInterrupt):
        tool.encode_here(job)
    encoder = FakeEncoder()
    monkeypatch.setattr(tool.Job, "load_encoder", lambda self: encoder)
    tool.encode_here(job)
    # The first shard of three is not encoded again.
    assert sorted(encoder.encoded) == sorted(TEXTS[3:])
    _check(job.output)
    # Nothing is left to do: the encoder is not even loaded.
    monkeypatch.setattr(tool.Job, "load_encoder", None)
    tool.encode_here(job)


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="needs apache-beam"
)
def test_beam_pipeline_with_the_direct_runner(tool, job):
    tool.encode_with_beam(job, ["--runner=DirectRunner", "--direct_num_workers=1"])
    _check(job.output)


def test_main(tool, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool.Job, "load_encoder", lambda self: FakeEncoder())
    output = str(tmp_path / "out")
    flags = ["--dataset", dataset, "--output", output, "--encoder", "flan-t5-fake"]
    tool.main([*flags, "--split", "all"])
    assert "8 captions of size 8" in capsys.readouterr().out
    about = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    assert about["encoder"] == "flan-t5-fake"
    with pytest.raises(SystemExit, match="shard-size"):
        tool.main([*flags, "--shard-size", "0"])
    with pytest.raises(SystemExit, match="No such folder"):
        tool.main(["--dataset", "folder:/no/such", *flags[2:]])


def test_training_reads_embeddings_without_the_encoder(tool, job):
    tool.encode_here(job)
    source = job.open_source()
    dataset = keras_mdm.data.make_dataset(
        source, 8, 4, channels=1, embeddings=EmbeddingShards(job.output)
    )
    mdm = text_mdm(keras_mdm.TextEmbeddings(8, max_tokens=6))
    mdm.compile(keras.optimizers.SGD(0.01))
    assert mdm.text_encoder is None
    assert np.isfinite(mdm.fit(dataset, verbose=0).history["loss"]).all()
    wrong = text_mdm(keras_mdm.TextEmbeddings(16))
    wrong.compile("sgd")
    with pytest.raises(ValueError, match="size 16.*Received: shape=.*8"):
        wrong.fit(dataset, verbose=0)


@pytest.mark.once
def test_limits_reach_the_data(tool, dataset, tmp_path):
    flags = ["--dataset", dataset, "--output", str(tmp_path / "e"), "--encoder", "t5"]
    args = vars(tool.parse_arguments([*flags, "--limits", "caption_length=4"]))
    job = tool.Job(args["dataset"], "e", "t5", "all", limits=args["limits"])
    with pytest.raises(ValueError, match="more than 4"):
        job.open_source()[0]
    with pytest.raises(ValueError, match="no limit 'x'"):
        tool.Job(args["dataset"], "e", "t5", limits={"x": 1}).open_source()
