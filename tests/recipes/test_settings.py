"""From command lines and files to settings, and from settings to stages."""

import dataclasses
import json
import subprocess
import sys

import pytest
from helpers import tiny_mdm
from keras_mdm_recipes import (
    command_line,
    settings,
    stages,
    start,
    train_image,
    train_text_to_image,
    train_video,
)
from PIL import Image
from recipe_runs import ROOT

import keras_mdm

pytestmark = pytest.mark.once

RECIPES = [train_image, train_text_to_image, train_video]
FLAGS = (
    "output resume backend seed dataset preset resolutions steps max-steps batch-size "
    "learning-rate save-every sample-every dtype num-workers check"
).split()


def parse(*flags, recipe=train_image, output="/no/such/run"):
    return command_line.parse(recipe, ["--output", output, *map(str, flags)])[0]


def told(*flags, recipe=train_image):
    """The error of a command line."""
    with pytest.raises(ValueError) as error:
        parse(*flags, recipe=recipe)
    return str(error.value)


# === Keys and values ===


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("stage.learning_rate=3e-4", [3e-4]),
        ("stage.learning_rate=3e-4,1e-4", [3e-4, 1e-4]),
        ("stage.steps=[5, 6]", [5, 6]),
        ("stage.resolutions=8,4x16", [8, "4x16"]),
        ("stage.mixed=64=2,32=1", {64: 2.0, 32: 1.0}),
        ('stage.loss_weights={"8x32": 1, "16": 0.5}', {"8x32": 1, 16: 0.5}),
        (
            "data.limits=picture_pixels=1000,unusable_rows=0.5",
            {"picture_pixels": 1000, "unusable_rows": 0.5},
        ),
        ("stage.freeze_inner=false", False),
        ("model.remat=true", True),
        ("model.remat=16,4x16", [16, "4x16"]),
        ("model.ema_momentum=0.5", 0.5),
        ("model.ema_momentum=null", None),
        ("data.crop=random", "random"),
        ("samples.num_samples=3", 3),
        ("model.preset=a=b", "a=b"),
    ],
)
def test_set_is_typed(text, value):
    found, key = parse("--set", text), text.partition("=")[0]
    assert found.get(key) == value


def test_resolutions_come_back_from_a_file(tmp_path):
    """Where true and false would be right too, a list is not looked up among them."""
    path = tmp_path / "settings.json"
    path.write_text('{"model": {"remat": [16, "4x16"]}}')
    assert parse("--config", str(path)).get("model.remat") == [16, "4x16"]


def test_texts_are_not_cut_at_commas():
    def prompts(text):
        return parse("--set", text, recipe=train_video).samples.prompts

    assert prompts("samples.prompts=a red, round thing") == ["a red, round thing"]
    assert prompts('samples.prompts=["a red circle", ""]') == ["a red circle", ""]


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse("--set", "data.data_dir=~/sets").data.data_dir == "/home/me/sets"
    assert parse(output="~/no/run").run.output == "/home/me/no/run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage.learning_rat=1", "no setting 'stage.learning_rat'. Did you mean "),
        ("learning_rate=1", "Did you mean 'stage.learning_rate'"),
        ("model.learning_rate=1", "Did you mean 'stage.learning_rate'"),
        ("nonsense=1", "Settings are: run.output, run.backend"),
        ("stage.steps", "--set must be KEY=VALUE. Received: 'stage.steps'"),
        ("stage.steps=1.5", "stage.steps must be a whole number. Received: '1.5'"),
        ("stage.steps=4,x", "must be a whole number. Received: 'x'"),
        ("stage.steps=[4", "must be JSON"),
        ("stage.learning_rate=fast", "must be a number. Received: 'fast'"),
        ("stage.resolutions=big", "must be a resolution, such as 64 or 8x64"),
        ("stage.mixed=16:2", "NAME=NUMBER"),
        (
            "stage.decay=linear",
            "must be one of constant, cosine, inverse_square_root. Received: 'linear'",
        ),
        ("data.flip=yes", "must be true or false. Received: 'yes'"),
        ("run.backend=mxnet", "must be one of jax, tensorflow, torch"),
        ("model.tokens=words", "a setting of train-text, train-video, not of train-i"),
    ],
)
def test_what_set_refuses(text, message):
    assert message in told("--set", text)


def test_flags_are_checked_alike():
    assert "--steps must be a whole number" in told("--steps", "many")
    assert "--backend must be one of" in told("--backend", "mxnet")
    found = parse("--steps", 5, 6, "--resolutions", 8, "4x16", "--dtype", "float32")
    assert found.stage.steps == [5, 6] and found.stage.resolutions == [8, "4x16"]
    assert found.model.dtype == "float32"


# === Files ===


def write(folder, tree):
    path = folder / "settings.json"
    path.write_text(json.dumps(tree))
    return path


def test_a_file_of_settings(tmp_path):
    tree = {
        "stage": {"steps": 7, "learning_rate": [1e-3, 1e-4], "mixed": {"16": 2}},
        "data": {"dataset": "digits"},
    }
    path = write(tmp_path, tree)
    found = parse("--config", path, "--steps", 9, "--set", "data.flip=true")
    assert found.stage.steps == [9] and found.stage.learning_rate == [1e-3, 1e-4]
    assert found.stage.mixed == {16: 2} and found.data.dataset == "digits"
    assert found.data.flip


def test_a_flag_that_there_is_not_is_told_its_setting(capsys):
    for flags in (["--mixed", "16=2"], ["--freeze-inner"]):
        with pytest.raises(SystemExit):
            parse(*flags)
        key = f"stage.{flags[0].strip('-').replace('-', '_')}"
        assert f"Did you mean --set {key}=...?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"recipe": "train_image.py", "arguments": {}}, "of another version"),
        ({"stage": {"step": 7}}, "Did you mean 'stage.steps'"),
        ({"steps": 7}, "Did you mean 'stage.steps'"),
        ({"stage": {"steps": "x"}}, "stage.steps must be a whole number"),
        ({"data": {"flip": 1}}, "data.flip must be true or false. Received: 1"),
        ({"data": {"dataset": 5}}, "data.dataset must be text. Received: 5"),
        ([], "no JSON object"),
    ],
)
def test_what_a_file_is_refused_for(tree, message, tmp_path):
    assert message in told("--config", write(tmp_path, tree))


def test_the_config_of_a_run_can_be_given_back(finished, finished_config, tmp_path):
    found = parse("--config", finished[0] / "config.json", output=str(tmp_path))
    saved = settings.Settings()
    for key in settings.FIELDS:
        section, name = key.split(".")
        value = finished_config["settings"][section][name]
        saved.set(key, value)
    saved.run.output = str(tmp_path)
    assert found == saved


@pytest.mark.parametrize("recipe", RECIPES)
def test_resume_takes_the_settings_of_the_run(recipe, tmp_path):
    saved = parse("--steps", 5, "--set", "data.crop=random", recipe=recipe)
    saved.run.output = str(tmp_path)
    tree = {"recipe": recipe.NAME, "settings": dataclasses.asdict(saved)}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    flags = ["--output", str(tmp_path), "--resume", "--seed", "0", "--steps", "5"]
    begin = command_line.Begin(resume=True)
    assert command_line.parse(recipe, flags) == (saved, begin)
    with pytest.raises(
        ValueError, match="=0. Received: run.seed=1.* --resume run.seed"
    ):
        command_line.parse(recipe, [*flags, "--seed", "1"])
    # Where it is computed is free.
    found, _ = command_line.parse(recipe, [*flags, "--set", "data.data_dir=sets"])
    assert found.data.data_dir == "sets"
    # What was allowed by name may change.
    flags += ["--seed", "1", "--resume", "run.seed", "data"]
    found, begin = command_line.parse(recipe, flags)
    assert found.run.seed == 1 and begin.changes == ("run.seed", "data")
    with pytest.raises(ValueError, match="no setting 'run.sed'.*mean 'run.seed'"):
        command_line.parse(recipe, [*flags, "run.sed"])


# === Limits of data ===


@pytest.mark.parametrize("recipe", [train_image, train_text_to_image])
def test_limits_reach_the_data(recipe, tmp_path):
    for side in (16, 20):
        picture = Image.new("RGB", (side, side))
        picture.save(tmp_path / f"{side}.png")
        (tmp_path / f"{side}.txt").write_text("a")
    flags = ["--dataset", f"folder:{tmp_path}", "--set", "data.split=all"]
    found = parse(*flags, "data.limits=picture_pixels=300", recipe=recipe)
    source = recipe.open_source(found)
    with pytest.raises(ValueError, match="20x20 pixels are more than 300"):
        [source[index] for index in range(2)]
    assert [why for _, why in source.skipped] and "20.png" in source.report()
    for limits, message in (
        ("picture_pixel=300", "no limit 'picture_pixel'.*picture_pixels, picture_b"),
        ("picture_pixels=0.5", "`picture_pixels` must be a positive integer"),
        ("unusable_rows=3", "`unusable_rows` must be from 0 to 1"),
    ):
        found = parse(*flags, f"data.limits={limits}", recipe=recipe)
        with pytest.raises(ValueError, match=message):
            recipe.open_source(found)


# === Help ===


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_shows_few_flags_and_every_setting(recipe, capsys):
    with pytest.raises(SystemExit):
        command_line.parse(recipe, ["--help"])
    text = capsys.readouterr().out
    shown = {word for word in text.split() if word.startswith("--")}
    assert not {f"--{name}" for name in FLAGS} - shown
    lines = text.partition("options:")[2].splitlines()
    assert len([line for line in lines if line.startswith("  --")]) <= 20
    for key, (field, _) in settings.FIELDS.items():
        known = settings.has(recipe.NAME, key) and not field.metadata["flag"]
        assert known == (f"\n  {key} " in text), key
    assert f"(default: {recipe.DEFAULTS['data.dataset']})" in text
    assert "None" not in text and "(default: cosine)" in text


@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_other_programs_have_few_flags(name):
    program = str(ROOT / "recipes" / f"{name}.py")
    done = subprocess.run(
        [sys.executable, program, "--help"], capture_output=True, text=True
    )
    flags = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    # And `--help`.
    assert done.returncode == 0 and 5 < len(flags) <= 20 + 1


# === Stages ===


@pytest.fixture
def make_stages():
    """A function from flags to the stages of a nest of 4, 8 and 16 pixels."""
    mdm = tiny_mdm(levels=3, resolution=4)

    def make(*flags):
        found = parse(*flags)
        found.fill({"stage.decay": "cosine", "stage.freeze_inner": True})
        return found, stages.make_stages(found, mdm, stages.SMALL)

    return make


def test_stages_that_are_not_described_have_defaults(make_stages):
    chosen, found = make_stages("--batch-size", "2")
    assert [stage.resolution for stage in found] == [4, 8, 16]
    assert [stage.steps for stage in found] == stages.SMALL["stage.steps"]
    first, later = stages.SMALL["stage.learning_rate"]
    assert [stage.learning_rate for stage in found] == [first, later, later]
    warmup = stages.SMALL["stage.warmup_steps"]
    assert [stage.warmup_steps for stage in found] == warmup * 3
    assert [stage.batch_size for stage in found] == [2, 2, 2]
    assert {stage.decay for stage in found} == {"cosine"}
    # What config.json says, for `--resume`.
    assert chosen.stage.steps == stages.SMALL["stage.steps"]


def test_optimizers_by_name(make_stages):
    _, found = make_stages(
        *("--set", "stage.optimizer=muon", "stage.decay=inverse_square_root"),
        "stage.decay_reference=30",
    )
    assert {stage.optimizer for stage in found} == {"muon"}
    assert {stage.decay_reference for stage in found} == {30}
    # What takes the place of a decay has none by default.
    chosen = parse("--set", "stage.optimizer=schedule_free_adamw")
    stages.fill_defaults(train_image, chosen)
    assert chosen.stage.decay == "constant"
    with pytest.raises(ValueError, match="needs `decay='constant'`"):
        make_stages("--set", "stage.optimizer=schedule_free_adamw")
    assert "must be one of adamw, muon" in told("--set", "stage.optimizer=lion")


def test_one_stage_takes_the_first_default(make_stages):
    _, (stage,) = make_stages("--resolutions", "8")
    assert stage.steps == stages.SMALL["stage.steps"][0]
    assert not stage.freeze_inner


def test_inner_networks_are_frozen_where_a_stage_before_has_trained_them(make_stages):
    def frozen(*flags):
        return [stage.freeze_inner for stage in make_stages(*flags)[1]]

    assert frozen() == [False, True, True]
    assert frozen("--set", "stage.freeze_inner=false") == [False, False, False]
    assert frozen("--resolutions", "4", "16") == [False, False]


def test_a_value_for_each_stage(make_stages):
    _, found = make_stages("--steps", 3, 4, 5, "--set", "stage.mixed=8=2,4=1")
    assert [stage.steps for stage in found] == [3, 4, 5]
    assert [stage.mixed for stage in found] == [None, {8: 2, 4: 1}, {8: 2, 4: 1}]
    with pytest.raises(ValueError, match="one for each of the 3 stages"):
        make_stages("--steps", 3, 4)


def test_the_backend_is_chosen_before_keras():
    code = (
        "from keras_mdm_recipes import __main__, evaluate, sample, train_image, "
        "train_text_to_image, train_video\n"
        "import sys\n"
        "assert not {'keras', 'jax', 'tensorflow'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "recipes", check=True)


@pytest.mark.parametrize(
    ("on_cpu", "dtype"), [(True, "float32"), (False, "mixed_bfloat16")]
)
def test_dtype_of_the_device(monkeypatch, on_cpu, dtype):
    monkeypatch.setattr(keras_mdm.backend, "on_cpu", lambda: on_cpu)
    assert start.default_dtype() == dtype


def test_weights_in_float16_are_refused_before_anything_is_written(
    training_flags, main, tmp_path
):
    flags = ["--output", tmp_path / "run", *training_flags, "--dtype", "float16"]
    with pytest.raises(SystemExit, match="mixed_bfloat16"):
        main([str(flag) for flag in flags])
    assert not (tmp_path / "run").exists()
