"""What a run of somebody else names outside of it is opened only if named again."""

import json
import typing

import pytest
from keras_mdm_recipes import (
    command_line,
    evaluate,
    outside,
    settings,
    train_image,
    train_text_to_image,
)
from keras_mdm_recipes.values import Path

pytestmark = pytest.mark.once

# What a stranger's run may name, by key.
FOREIGN = {
    "run.cache_dir": "/programs",
    "run.tracker": "wandb",
    "devices.coordinator": "1.2.3.4:5",
    "data.dataset": "folder:/some where",
    "data.data_dir": "/sets",
    "data.limits": {"picture_pixels": 10**12},
    "data.embeddings": "/embeddings",
    "model.preset": "hf://a/b",
    "model.start_from": "mdm_flickr_64",  # Would be downloaded.
    "model.text_encoder": "/t5",
}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A user who has begun no run yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(folder, values, recipe=train_text_to_image):
    """A run's `config.json` with settings, by key, and the dict that it holds."""
    found = {}
    for key, value in values.items():
        section, name = key.split(".")
        found.setdefault(section, {})[name] = value
    config = {"recipe": recipe.NAME, "settings": found}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return config


def resume(folder, *flags, recipe=train_text_to_image):
    flags = ("--output", str(folder), *flags, "--resume")
    return command_line.parse(recipe, flags)[0]


@pytest.mark.parametrize("key", FOREIGN)
def test_each_must_be_named_again(key, tmp_path):
    write(tmp_path / "run", {key: FOREIGN[key], "run.seed": 3})
    with pytest.raises(ValueError, match="not of a run that you began") as error:
        resume(tmp_path / "run")
    value = FOREIGN[key]
    value = value if isinstance(value, str) else json.dumps(value)
    asked = f"{key}={value}"
    assert asked in str(error.value)
    # Also where settings are taken from the run to begin another.
    flags = ["--config", str(tmp_path / "run/config.json"), "--output", "/no/such"]
    with pytest.raises(ValueError, match="not of a run that you began"):
        command_line.parse(train_text_to_image, flags)
    found = resume(tmp_path / "run", "--set", asked)
    assert found.get(key) == FOREIGN[key] and found.run.seed == 3
    flags += ["--set", asked]
    assert command_line.parse(train_text_to_image, flags)[0].run.seed == 3


def test_all_that_is_named_is_listed_once_as_flags_that_may_be_copied(tmp_path):
    write(tmp_path / "run", FOREIGN)
    with pytest.raises(ValueError) as error:
        resume(tmp_path / "run")
    shown = str(error.value).partition("look at it first: ")[2]
    assert "'data.dataset=folder:/some where'" in shown
    assert len(shown.split("=")) == len(FOREIGN) + 1


def test_every_path_of_the_settings_is_among_them():
    paths = {
        key
        for key, (_, hint) in settings.FIELDS.items()
        if Path in (hint, *typing.get_args(hint))
    }
    marked = {k for k, (f, _) in settings.FIELDS.items() if f.metadata["outside"]}
    assert paths - {"run.output"} <= marked == set(FOREIGN)


def test_runs_that_this_user_began_are_known_wherever_they_are(tmp_path):
    config = write(tmp_path / "run", FOREIGN)
    outside.remember(config)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert resume(tmp_path / "moved").get("data.data_dir") == "/sets"
    write(tmp_path / "moved", FOREIGN | {"data.data_dir": "/other"})
    with pytest.raises(ValueError, match="data.data_dir=/other"):
        resume(tmp_path / "moved")


def test_what_the_package_has_itself_is_not_asked_for(tmp_path):
    values = {
        "data.dataset": "shapes/scenes",
        "model.preset": "mdm_shapes_64",
        "model.start_from": "mdm_shapes_64",
    }
    write(tmp_path / "run", values)
    assert resume(tmp_path / "run").get("data.dataset") == "shapes/scenes"
    write(tmp_path / "run", values | {"model.preset": "../mdm_shapes_64"})
    with pytest.raises(ValueError, match=r"model.preset=../mdm_shapes_64"):
        resume(tmp_path / "run")


def test_a_file_of_settings_is_the_users_own(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"data": {"dataset": "folder:/mine"}}))
    flags = ["--output", str(tmp_path / "run"), "--config", str(path)]
    assert command_line.parse(train_image, flags)[0].data.dataset == "folder:/mine"


def test_evaluate_asks_for_the_data_alone(tmp_path):
    config = write(tmp_path / "run", FOREIGN)
    args = evaluate.parse_arguments([str(tmp_path / "run")])
    with pytest.raises(
        ValueError, match="by --dataset, --data-dir and --limits"
    ) as error:
        evaluate.data_settings(args, config)
    assert "data.data_dir=/sets" in str(error.value)
    assert "model." not in str(error.value)
    flags = ["--dataset", "digits", "--data-dir", "/mine"]
    flags += ["--limits", "picture_pixels=1000"]
    args = evaluate.parse_arguments([str(tmp_path / "run"), *flags])
    found = evaluate.data_settings(args, config)
    assert (found["dataset"], found["data_dir"]) == ("digits", "/mine")
    assert found["limits"] == {"picture_pixels": 1000}
    assert found["split"] == "train"


def test_a_run_that_was_trained_is_known(finished, finished_config, monkeypatch):
    """And is not to another user."""
    with pytest.raises(ValueError, match="model.preset=.*small"):
        resume(finished[0], recipe=train_image)
    monkeypatch.undo()
    found = resume(finished[0], recipe=train_image)
    assert found.model.preset == finished_config["settings"]["model"]["preset"]
