"""Models of clips: trained, evaluated, drawn, with pictures inside them."""

import keras
import numpy as np
import pytest
from helpers import randomize, tiny_mdm, tiny_unet, trainer, values_of

import keras_mdm
from keras_mdm.diffusion.noise import sample_noise
from keras_mdm.sampling import run as sampling


def _nest():
    """4 pixels inside 4 frames of 4 pixels."""
    return keras_mdm.NestedUNet(
        tiny_unet(4), (8, 8, 8), 1, groups=8, temporal_resampling=True
    )


def _batch(size=4, frames=4, resolution=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (size, frames, resolution, resolution, 1)
    return {
        "videos": rng.integers(0, 256, shape, dtype="uint8"),
        "labels": np.arange(size, dtype="int32") % 3,
    }


@pytest.fixture(scope="module")
def trained():
    mdm = trainer(_nest(), keras.optimizers.SGD(0.05))
    before = values_of(mdm.trainable_variables)
    history = mdm.fit(_batch(8), batch_size=4, epochs=2, verbose=0).history
    return mdm, history, before


def test_fit_logs_every_level_and_trains_all(trained):
    mdm, history, before = trained
    assert {"loss", "loss_4x4", "loss_4"} <= set(history)
    assert np.all(np.isfinite(history["loss"]))
    total = np.array(history["loss_4x4"]) + np.array(history["loss_4"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    after = values_of(mdm.trainable_variables)
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    frames = [
        change
        for change, variable in zip(changed, mdm.trainable_variables, strict=True)
        if "upsample" in variable.path and "nested" in variable.path
    ]
    assert frames and all(frames)


def test_evaluations_agree(trained):
    mdm, *_ = trained
    first = mdm.evaluate(_batch(4), batch_size=4, return_dict=True, verbose=0)
    second = mdm.evaluate(_batch(4), batch_size=4, return_dict=True, verbose=0)
    assert first == second and "loss_4x4" in first


def test_generate_draws_clips_and_the_picture_inside(trained):
    mdm, *_ = trained
    drawn = mdm.generate(labels=[0, 1], num_steps=3, seed=5, return_pyramid=True)
    assert list(drawn) == ["4x4", 4]
    assert drawn["4x4"].shape == (2, 4, 4, 4, 1) and drawn[4].shape == (2, 4, 4, 1)
    assert drawn["4x4"].dtype == "uint8"
    alone = mdm.generate(labels=[1], num_steps=3, seed=6)
    difference = alone[0].astype(int) - drawn["4x4"][1].astype(int)
    assert np.abs(difference).max() <= 1  # its own seed, whatever the batch
    inner = mdm.generate(labels=[0, 1], num_steps=3, seed=5, resolution=4)
    assert inner.shape == (2, 4, 4, 1)


# Others: test_known_frames.
@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_known_frames_are_kept_and_change_the_others(trained, sampler):
    mdm, *_ = trained
    randomize(mdm.network, 0.3)
    mdm.reset_ema()
    options = {"labels": [0, 1], "num_steps": 3, "seed": 5, "sampler": sampler}
    first = np.arange(16, dtype="uint8").reshape(4, 4, 1) * 16
    last = 255 - first
    free = mdm.generate(**options)
    kept = mdm.generate(**options, known_frames={0: first, 3: last})
    for clip in kept:
        np.testing.assert_array_equal(clip[0], first)
        np.testing.assert_array_equal(clip[3], last)
    assert (kept[:, 1:3] != free[:, 1:3]).any()
    pyramid = mdm.generate(**options, known_frames={0: first}, return_pyramid=True)
    # The picture inside is the first frame, so it is known too.
    np.testing.assert_array_equal(pyramid[4][0], first)
    pyramid = mdm.generate(**options, known_frames={3: last}, return_pyramid=True)
    assert (pyramid[4][0] != last).any()


def test_fresh_video_model_draws_what_the_image_model_draws(monkeypatch):
    kinds = {"channels": (8, 8), "name": "net"}
    pictures = tiny_mdm(network=randomize(tiny_unet(8, **kinds)))
    clips = tiny_mdm(
        network=tiny_unet(8, **kinds, frames=4, num_temporal_attention_layers=1)
    )
    weights = {variable.path: variable for variable in pictures.network.variables}
    for variable in clips.network.variables:
        if variable.path in weights:
            variable.assign(weights[variable.path].value)

    def same_for_every_frame(seeds, stream, step, shape):
        noise = sample_noise(seeds, 8, step, shape[-3:])
        if len(shape) == 3:
            return noise
        return keras.ops.repeat(noise[:, None], shape[0], axis=1)

    monkeypatch.setattr(sampling, "sample_noise", same_for_every_frame)
    options = {
        "labels": [2, 1],
        "num_steps": 4,
        "seed": 3,
        "sampler": "ddim",
        "eta": 1.0,
    }
    expected = pictures.generate(**options, output="float")
    drawn = clips.generate(**options, output="float")
    assert expected.std() > 0.1
    for frame in range(4):
        np.testing.assert_allclose(drawn[:, frame], expected, atol=1e-3)


def test_joint_training_of_clips_and_pictures():
    """Three of four samples are pictures: the clips' loss is that of the first."""
    mdm = trainer(
        randomize(_nest()),
        compile_options={"mixed_resolution": {"4x4": 1, 4: 3}},
    )
    logs = mdm.train_on_batch(_batch(4), return_dict=True)
    assert np.isfinite(logs["loss_4x4"]) and np.isfinite(logs["loss_4"])


def test_frames_count_in_shift_and_weights_by_option():
    """4 frames are twice as large as one, where they count."""
    for count, ratio in ((True, 2.0), (False, 1.0)):
        schedule = keras_mdm.NoiseSchedule("log_snr_cosine", count_frames=count)
        mdm = tiny_mdm(network=_nest(), schedule=schedule)
        mdm.compile(keras.optimizers.SGD(), loss_weights="ratio")
        assert mdm.level_weights == {"4x4": ratio, 4: 1.0}
        tables = mdm.process.tables
        odds = [(t["alpha"] / t["sigma"]) ** 2 for t in (tables[4], tables["4x4"])]
        np.testing.assert_allclose(odds[0] / odds[1], ratio, rtol=1e-4)
    with pytest.raises(ValueError, match="'ratio' or None.*'size'"):
        mdm.compile(loss_weights="size")


def test_stages_over_frames(trained):
    mdm = tiny_mdm(network=_nest())
    seen = []

    def load(stage):
        seen.append(stage.resolution)
        batch = _batch(4)
        if stage.resolution == 4:
            batch["images"] = batch.pop("videos")[:, 0]
        return batch

    schedule = keras_mdm.ProgressiveSchedule(
        [
            keras_mdm.Stage(4, epochs=1, batch_size=4),
            keras_mdm.Stage("4x4", epochs=1, batch_size=4, freeze_inner=True),
        ]
    )
    logs = schedule.fit(mdm, load, verbose=0)
    assert seen == [4, "4x4"] and [log["resolution"] for log in logs] == seen
    assert mdm.resolution == "4x4"


def test_preset_of_a_video_model(trained, tmp_path):
    mdm, *_ = trained
    mdm.save_to_preset(tmp_path / "clips")
    loaded = keras_mdm.MDM.from_preset(str(tmp_path / "clips"))
    assert loaded.resolutions == ("4x4", 4)
    options = {"labels": [2], "num_steps": 2, "seed": 1}
    np.testing.assert_array_equal(loaded.generate(**options), mdm.generate(**options))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: {"images": b["videos"][:, 0]}, "key 'videos', and not 'images'"),
        (
            lambda b: {"videos": b["videos"][:, 0]},
            r"\(batch, 4, 4, 4, 1\).*\(4, 4, 4, 1\)",
        ),
        (
            lambda b: {"videos": b["videos"][:, :3]},
            r"Received: shape=\(4, 3, 4, 4, 1\)",
        ),
    ],
    ids=["pictures", "rank", "frames"],
)
def test_wrong_batches(trained, change, message):
    batch = {**change(_batch(4)), "labels": _batch(4)["labels"]}
    with pytest.raises(ValueError, match=message):
        trained[0].fit(batch, verbose=0)


@pytest.mark.parametrize(
    "known, message",
    [
        ({4: np.zeros((4, 4, 1), "uint8")}, "keys from 0 to 3. Received: 4"),
        ({1.0: np.zeros((4, 4, 1), "uint8")}, "keys from 0 to 3. Received: 1.0"),
        (np.zeros((1, 4, 4, 1), "uint8"), "must be a dict.*Received: ndarray"),
        ({0: np.zeros((8, 8, 1), "uint8")}, r"shape \(4, 4, 1\).*\(8, 8, 1\)"),
        ({0: np.full((4, 4, 1), 200.0)}, r"float in \[-1, 1\].*200"),
    ],
    ids=["number", "float", "array", "shape", "range"],
)
def test_wrong_known_frames(trained, known, message):
    with pytest.raises(ValueError, match=message):
        trained[0].generate(labels=0, known_frames=known)


def test_known_frames_of_a_picture(trained):
    with pytest.raises(ValueError, match="models of clips; this one draws pictures"):
        trained[0].generate(labels=0, resolution=4, known_frames={0: np.zeros(1)})
