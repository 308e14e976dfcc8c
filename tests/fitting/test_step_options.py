"""Options of a step: accumulated gradients, clipping, precision, remat, stages."""

import keras
import numpy as np
import pytest
from helpers import (
    LeanNetwork,
    batch_of,
    equal_values,
    lean_nest,
    randomize,
    tiny_unet,
    trainer,
    uncompiled,
    values_of,
)

import keras_mdm
from keras_mdm.diffusion.noise import sample_noise

EAGER = uncompiled()


def _norm(before, after):
    moves = [b - a for a, b in zip(before, after, strict=True)]
    return np.sqrt(sum(np.square(move).sum() for move in moves))


def _fixed_noise(mdm):
    """Noise and timesteps that follow from the batch entry `place`."""

    def training_data(data):
        batch, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        place = batch["place"]
        shape = (*batch["images"].shape[1:3], 1)
        noises = [sample_noise(place, 4, 0, shape)]
        inputs, targets = mdm.diffuse(batch, noises, place * 100 + 50)
        return inputs, targets, weight

    mdm._training_data = training_data
    return mdm


def test_accumulated_gradients_equal_one_large_batch():
    """Two batches of two move weights and average as one batch of four does."""
    whole = {
        **batch_of(4, 4, classes=0),
        "place": np.array([1, 8, 3, 5], "int32"),
    }
    halves = [{k: v[i : i + 2] for k, v in whole.items()} for i in (0, 2)]
    start, found = None, []
    for every, batches in ((None, [whole]), (2, halves)):
        optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=every)
        network = tiny_unet(4, classes=0)
        start = start or randomize(network).get_weights()
        network.set_weights(start)
        mdm = _fixed_noise(trainer(network, optimizer, EAGER))
        mdm.train_on_batch(batches[0])
        if every:
            # Within the accumulation neither the weights nor the average move.
            assert equal_values(start, network.get_weights())
            assert values_of([mdm.ema.num_updates])[0].tolist() == [0]
            assert equal_values(start, values_of(mdm.ema.averages))
            mdm.train_on_batch(batches[1])
        assert values_of([mdm.ema.num_updates])[0].tolist() == [1]
        found.append((network.get_weights(), values_of(mdm.ema.averages)))
    assert _norm(start, found[0][0]) > 1e-3
    for one, other in zip(found[0], found[1], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_gradient_clipping():
    network = randomize(tiny_unet(4))
    before = network.get_weights()
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1e-2)
    trainer(network, optimizer, EAGER).train_on_batch(batch_of(4, 4))
    assert _norm(before, network.get_weights()) == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize("options", [{"remat": True}, {"dtype": "mixed_bfloat16"}])
def test_network_options_train(options):
    """As the plain network, up to rounding: all weights move, and to the same place."""
    plain, other = tiny_unet(4), tiny_unet(4, **options)
    start = randomize(plain).get_weights()
    other.set_weights(start)
    assert all(v.dtype == "float32" for v in other.variables)
    losses = []
    for network in (plain, other):
        mdm = trainer(network, keras.optimizers.SGD(0.5), EAGER)
        logs = mdm.train_on_batch(batch_of(4, 4), return_dict=True)
        losses.append(float(logs["loss"]))
    tolerance = 0.05 if "dtype" in options else 1e-4
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    moves = [
        np.concatenate([(b - a).ravel() for a, b in zip(start, end, strict=True)])
        for end in (plain.get_weights(), other.get_weights())
    ]
    assert np.linalg.norm(moves[0]) > 1e-3
    assert np.linalg.norm(moves[1] - moves[0]) < tolerance * np.linalg.norm(moves[0])


def _doll_weights(mdm):
    """Values of the outer network's own weights and of those inside."""
    inner = {id(v) for v in mdm.network.inner.variables}
    outer = [v for v in mdm.network.variables if id(v) not in inner]
    return values_of(outer), values_of(mdm.network.inner.variables)


def test_frozen_inner_doll():
    mdm = trainer(randomize(lean_nest(2, resolution=4)))
    mdm.set_active(8, freeze_inner=True)
    outer, inner = _doll_weights(mdm)
    mdm.train_on_batch(batch_of(4, 8))
    new_outer, new_inner = _doll_weights(mdm)
    assert equal_values(inner, new_inner)
    # But for biases that a normalization takes out again.
    moved = [not np.array_equal(a, b) for a, b in zip(outer, new_outer, strict=True)]
    assert np.mean(moved) > 0.8
    mdm.set_active(8)
    mdm.train_on_batch(batch_of(4, 8))
    newest_outer, newest_inner = _doll_weights(mdm)
    assert not equal_values(new_inner, newest_inner)
    assert not equal_values(new_outer, newest_outer)


def test_inner_stage():
    """At the inner resolution only that network is trained, logged and averaged."""
    mdm = trainer(randomize(lean_nest(2, resolution=4)))
    for average in mdm.ema.averages:  # something else than the weights
        average.assign(keras.ops.ones(average.shape))
    count = len(mdm.trainable_variables)
    outer, inner = _doll_weights(mdm)
    mdm.resolution = 4
    assert mdm.resolutions == (4,) and len(mdm.trainable_variables) < count
    history = mdm.fit(batch_of(4, 4), batch_size=4, verbose=0).history
    assert set(history) == {"loss", "loss_4"}
    assert history["loss"] == pytest.approx(history["loss_4"])
    new_outer, new_inner = _doll_weights(mdm)
    assert equal_values(outer, new_outer) and not equal_values(inner, new_inner)
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4, 1\)"):
        mdm.train_on_batch(batch_of(4, 8))
    mdm.resolution = 8
    assert len(mdm.trainable_variables) == count
    assert int(mdm.optimizer.iterations) == 0
    # The average of the outer network must not have moved with the inner stage.
    inner_ids = {id(v) for v in mdm.network.inner.variables}
    averages = values_of(mdm.ema.averages)
    for source, average in zip(mdm.ema.sources, averages, strict=True):
        assert (average == 1).all() == (id(source) not in inner_ids)


def test_setting_the_resolution_it_has_changes_nothing():
    mdm = trainer(compile_options={"loss_weights": {8: 2.0, 4: 0.5}})
    optimizer, frozen = mdm.optimizer, mdm.network.inner.conv_in
    frozen.trainable = False
    for change in (
        lambda: setattr(mdm, "resolution", 8),
        lambda: mdm.set_active(8),
    ):
        change()
        assert mdm.optimizer is optimizer and not frozen.trainable
        assert mdm.level_weights == {8: 2.0, 4: 0.5}


def test_layers_that_were_frozen_by_hand_stay_frozen_over_stages():
    mdm = trainer(LeanNetwork(8, inner=tiny_unet(4, embedding_size=8)))
    block = mdm.network.inner.down_blocks[0].residuals[0]
    block.conv_1.trainable = False
    mdm.network.conv_in.bias.trainable = False
    wanted = [v.path for v in mdm.trainable_variables]
    assert len(wanted) == len(mdm.network.variables) - 3
    mdm.resolution = 4
    assert not block.conv_1.trainable and block.conv_2.trainable
    mdm.resolution = 8
    assert [v.path for v in mdm.trainable_variables] == wanted
    mdm.set_active(8, freeze_inner=True)
    assert not block.conv_2.trainable
    mdm.set_active(8)
    assert [v.path for v in mdm.trainable_variables] == wanted
    stages = [keras_mdm.Stage(r, steps=1, batch_size=4) for r in (4, 8)]
    schedule = keras_mdm.ProgressiveSchedule(stages)
    before = values_of(block.conv_1.variables)
    schedule.fit(mdm, lambda stage: batch_of(4, stage.resolution), verbose=0)
    assert [v.path for v in mdm.trainable_variables] == wanted
    assert equal_values(before, values_of(block.conv_1.variables))


def test_freezing_needs_an_inner_doll():
    mdm = trainer()
    with pytest.raises(ValueError, match="`freeze_inner` needs a network inside"):
        mdm.set_active(4, freeze_inner=True)
    with pytest.raises(ValueError, match=r"resolutions \(8, 4\).*resolution=16"):
        mdm.resolution = 16


def test_mixed_resolution():
    """Samples that only the inner network sees give the outer network no gradient."""
    start = randomize(lean_nest(2, resolution=4)).get_weights()
    first = batch_of(4, 8)
    second = {k: v.copy() for k, v in first.items()}
    second["images"][1:] = 255 - second["images"][1:]
    found = []
    for batch in (first, second):
        network = lean_nest(2, resolution=4)
        network.set_weights(start)
        options = {"mixed_resolution": {8: 1, 4: 3}, **EAGER}
        mdm = trainer(network, compile_options=options)
        mdm.train_on_batch(batch)
        found.append(_doll_weights(mdm))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    moved = [np.abs(a - b).max() for a, b in zip(found[0][1], found[1][1], strict=True)]
    assert max(moved) > 1e-4
