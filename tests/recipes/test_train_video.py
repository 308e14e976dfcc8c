"""`recipes/train_video.py` as users run it, on a tiny model and files of few frames."""

import keras
import numpy as np
import pytest
from keras_mdm_recipes import command_line, sample
from keras_mdm_recipes import train_video as recipe
from PIL import Image
from recipe_runs import run_recipe
from text_helpers import text_mdm

import keras_mdm


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six gifs of 4 frames with captions, and one that is broken."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for i in range(6):
        frames = rng.integers(0, 256, (4, 16, 16, 3), dtype="uint8")
        keras_mdm.write_video(folder / f"{i}.gif", frames)
        (folder / f"{i}.txt").write_text(f"a {['red', 'blue'][i % 2]} square")
    (folder / "broken.gif").write_bytes(b"no clip")
    (folder / "broken.txt").write_text("a red circle")
    return folder


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """8 pixels inside 2 frames inside 4 frames of 8 pixels."""
    inner = text_mdm(keras_mdm.TextEncoder(8, max_tokens=16, num_heads=2)).network
    for _ in range(2):
        inner = keras_mdm.NestedUNet(
            inner, (8, 8), 1, groups=8, temporal_resampling=True
        )
    folder = tmp_path_factory.mktemp("presets") / "clips"
    keras_mdm.MDM(inner, ema_momentum=None, sampling={"num_steps": 2}).save_to_preset(
        folder
    )
    return folder


def _flags(clips, preset, output, *more):
    return (
        *("--output", output, "--preset", preset, "--dataset", f"clips:{clips}"),
        *("--backend", keras.backend.backend(), "--steps", 2, "--batch-size", 2),
        *("--set", "data.split=all", "samples.num_samples=2", "data.num_frames=4"),
        *more,
    )


@pytest.fixture(scope="module")
def finished(clips, preset, tmp_path_factory):
    """A finished run of three stages, and what it printed. Do not write into it."""
    run = tmp_path_factory.mktemp("runs") / "clips"
    done = run_recipe(
        "train_video.py", *_flags(clips, preset, run, "--learning-rate", 1e-2)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run, done.stdout


def test_run_from_pictures_to_clips(finished, tmp_path):
    run, printed = finished
    assert "7 videos" in printed and "broken.gif" in printed
    names = sorted(entry.name for entry in (run / "samples").iterdir())
    # Every one moves: the truth does, beside the pictures of the first stage.
    assert names == [
        "stage1_8px.webp",
        "stage2_2x8px.webp",
        "stage3_4x8px.webp",
    ]
    with Image.open(run / "samples" / names[-1]) as animated:
        assert animated.n_frames == 4
    header = (run / "history.csv").read_text().splitlines()[0]
    assert {"loss_4x8", "loss_2x8", "loss_8"} <= set(header.split(","))
    assert (run / "losses.png").is_file()
    mdm = keras_mdm.MDM.from_preset(run)
    assert mdm.generate("a red square", seed=0).shape == (1, 4, 8, 8, 1)

    flags = [str(run), "--num-samples", "1", "--no-progress", "--prompts", "a square"]
    sample.main([*flags, "--output", str(tmp_path / "drawn"), "--pyramid"])
    found = sorted(entry.name for entry in (tmp_path / "drawn").iterdir())
    assert found == [
        "00000_a-square_2x8px.webp",
        "00000_a-square_4x8px.webp",
        "00000_a-square_8px.png",
    ]
    sample.main([*flags, "--grid", "--output", str(tmp_path / "grid.gif")])
    with Image.open(tmp_path / "grid.gif") as animated:
        assert animated.n_frames == 4
    with pytest.raises(SystemExit, match="must end in .webp or .gif or .mp4"):
        sample.main([*flags, "--grid", "--output", str(tmp_path / "grid.png")])


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "digits"], "digits.*has pictures, not clips"),
        (["data.num_frames=6"], "have 6 frames, which can't be divided into 4"),
        (["--preset", "mdm_shapes_64"], "'mdm_shapes_64' draws pictures, not clips"),
        (["--resolutions", "4x8", "8"], "--resolutions must rise"),
        (["--resolutions", "8x8"], r"one of the network's.*8x8"),
    ],
)
def test_bad_input_is_told_before_the_first_step(
    flags, message, clips, preset, tmp_path
):
    base = _flags(clips, preset, tmp_path / "run")
    with pytest.raises(SystemExit, match=message):
        recipe.main([*map(str, base), *flags])
    assert not (tmp_path / "run").exists()


class Begun(Exception):
    """Raised where the first stage would begin."""


def test_run_starts_from_the_weights_of_another(
    finished, clips, preset, tmp_path, monkeypatch
):
    def weights(network):
        values = [variable.value for variable in network.variables]
        return np.concatenate(
            [keras.ops.convert_to_numpy(value).ravel() for value in values]
        )

    found = []

    def fit(schedule, mdm, *args, **options):
        found.append(weights(mdm.network))
        raise Begun

    monkeypatch.setattr(keras_mdm.ProgressiveSchedule, "fit", fit)
    flags = _flags(clips, preset, tmp_path / "run", "--resolutions", "4x8")
    start = ("--set", f"model.start_from={finished[0]}")
    with pytest.raises(Begun):
        recipe.main([str(flag) for flag in (*flags, *start)])
    first, fresh = (
        weights(keras_mdm.MDM.from_preset(path).network)
        for path in (finished[0], preset)
    )
    assert np.abs(first - fresh).max() > 1e-4
    np.testing.assert_array_equal(found[0], first)


def test_the_default_run_starts_from_pictures():
    def begins(*flags):
        return recipe.starts_from_pictures(command_line.parse(recipe, flags)[0])

    assert begins("--output", "run")
    assert not begins("--output", "run", "--dataset", "ucf101")
    assert not begins("--output", "run", "--set", "model.tokens=bytes")
    assert not begins("--output", "run", "--preset", "mdm_s64v")
