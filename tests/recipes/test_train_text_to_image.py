"""`recipes/train_text_to_image.py` end to end, and its way from flags to a model."""

import json

import keras
import numpy as np
import pytest
from helpers import tiny_mdm
from keras_mdm_recipes import command_line, sample, stages
from keras_mdm_recipes import train_text_to_image as recipe
from PIL import Image
from recipe_runs import run_recipe
from text_helpers import text_mdm

import keras_mdm
from keras_mdm.data.embeddings import write_about, write_shard
from keras_mdm.training.stage import default_optimizer

pytestmark = pytest.mark.once

TEXTS = [f"{colour} square" for colour in ("red", "blue", "green")] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures with captions, one of them broken."""
    folder = tmp_path_factory.mktemp("captioned")
    for i, text in enumerate(TEXTS):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    (folder / "0.png").write_bytes(b"no picture")
    return folder


def _flags(folder, preset, output, *more):
    return (
        *("--output", output, "--preset", preset, "--dataset", f"folder:{folder}"),
        *("--backend", keras.backend.backend(), "--steps", 4, "--batch-size", 4),
        *("--sample-every", 2, "--set", "data.split=all", "samples.num_samples=2"),
        *more,
    )


def test_run_with_validation_prompts(folder, tmp_path):
    small = text_mdm(keras_mdm.TextEncoder(8, max_tokens=16, num_heads=2))
    small.save_to_preset(tmp_path / "small")
    run = tmp_path / "run"
    done = run_recipe(
        "train_text_to_image.py",
        *_flags(folder, tmp_path / "small", run),
        'samples.prompts=["a red square", ""]',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {entry.name for entry in (run / "samples").iterdir()}
    assert names == {"stage1_8px_step2.png", "stage1_8px.png", "nearest.png"}
    kinds = {e.suffix for e in (run / "logs" / "stage1_8px").iterdir()}
    assert kinds == {".history", ".samples", ".noise_levels"}
    assert "1 of 12 pictures" in done.stdout and "0.png" in done.stdout
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["stage"]["decay"] == "cosine"
    mdm = keras_mdm.MDM.from_preset(run)
    assert mdm.generate("a red square", seed=0).shape == (1, 8, 8, 1)

    flags = [str(run), "--num-samples", "2", "--output", str(tmp_path), "--no-progress"]
    sample.main([*flags, "--prompts", "a red square", "--negative-prompt", "blue"])
    assert (tmp_path / "00001_a-red-square_8px.png").is_file()
    with pytest.raises(SystemExit, match="--prompts"):
        sample.main(flags)
    # Before any snapshot is read.
    (tmp_path / "run" / "averages").mkdir()
    (tmp_path / "run" / "averages" / "damaged.npz").touch()
    with pytest.raises(SystemExit, match="--prompts"):
        sample.main([*flags, "--ema", "0.1"])


def test_run_on_embeddings_needs_no_encoder(folder, tmp_path):
    small = text_mdm(keras_mdm.TextEmbeddings(8, max_tokens=4))
    small.save_to_preset(tmp_path / "small")
    rows = np.ones((3, 2, 8), "float32")
    write_about(tmp_path / "embeddings", "fake", 8, 4)
    write_shard(tmp_path / "embeddings", 0, TEXTS[:3], rows, rows[..., 0] > 0)
    embeddings = f"data.embeddings={tmp_path / 'embeddings'}"
    flags = _flags(folder, tmp_path / "small", tmp_path / "run", embeddings)
    recipe.main([str(flag) for flag in flags])
    assert (tmp_path / "run" / "samples" / "stage1_8px.png").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["data.split=train", "--dataset", "digits"], "'digits' has no captions"),
        (["--preset", "mdm_tiny_32"], "not conditional on text"),
        (["data.embeddings=nowhere"], "presets on embeddings"),
        (["--preset", "EMBEDDINGS"], "give data.embeddings, or model.text_enc"),
        (["data.embeddings=nowhere", "--preset", "EMBEDDINGS"], "has no embeddings"),
    ],
)
def test_bad_input_is_told_before_the_first_step(flags, message, folder, tmp_path):
    small = text_mdm(keras_mdm.TextEmbeddings(8, max_tokens=4))
    small.save_to_preset(tmp_path / "small")
    flags = [str(tmp_path / "small") if f == "EMBEDDINGS" else f for f in flags]
    base = _flags(folder, "mdm_shapes_64", tmp_path / "run")
    with pytest.raises(SystemExit, match=message):
        recipe.main([*map(str, base), *flags])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mdm_s256_text", "mdm_s256"])
def test_defaults_of_the_paper_presets_are_the_papers(name):
    """Numbers of Kaleido (arXiv 2405.21048), appendix B, in every stage."""
    settings, _ = command_line.parse(recipe, ["--output", "x", "--preset", name])
    defaults = stages.fill_defaults(recipe, settings)
    found = stages.make_stages(settings, tiny_mdm(2, resolution=64), defaults)
    assert [stage.resolution for stage in found] == [64, 128]
    for stage in found:
        assert (stage.steps, stage.batch_size) == (400_000, 512)
        assert (stage.learning_rate, stage.warmup_steps) == (1e-4, 10_000)
        assert (stage.decay, stage.freeze_inner) == ("constant", False)
    optimizer = default_optimizer(found[0]).get_config()
    assert (optimizer["beta_1"], optimizer["beta_2"]) == (0.9, 0.99)
    assert (optimizer["weight_decay"], optimizer["global_clipnorm"]) == (0, 2)
    model = keras_mdm.MDM.builtin_presets()[name]["config"]["config"]
    assert model["ema_momentum"] == 0.9999 and settings.model.dtype == "mixed_bfloat16"


@pytest.mark.parametrize("tokens", ["words", "bytes", None])
def test_tokens_of_other_data(folder, tokens):
    flags = ["--output", "x", "--dataset", f"folder:{folder}"]
    flags += ["--set", f"model.tokens={tokens or 'null'}"]
    settings, _ = command_line.parse(recipe, flags)
    source = keras_mdm.data.open_source(settings.data.dataset, "all")
    encoder = recipe.make_model(settings, source).network.conditioner
    if tokens == "words":
        assert encoder.vocabulary == ("square", "blue", "green", "red")
        assert encoder.max_tokens == 40
    else:
        assert encoder.vocabulary is None and encoder.max_tokens == 128
