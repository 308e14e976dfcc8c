"""Batches: order, skipping, flips, sharding, resuming, and `fit`."""

import itertools
import json

import keras
import numpy as np
import pytest

from keras_mdm import backend
from keras_mdm.data import make_dataset, open_source, pipeline, steps_per_epoch, workers


def labels_of(dataset):
    return [batch["labels"].tolist() for batch in dataset]


def take(dataset, count):
    return list(itertools.islice(iter(dataset), count))


def test_batches_hold_each_picture_once_with_its_label(numbered):
    source = numbered(20)
    batches = list(make_dataset(source, 8, 6))
    assert len(batches) == steps_per_epoch(source, 6) == 3
    for batch in batches:
        assert batch["images"].shape == (6, 8, 8, 1)
        assert batch["images"].dtype == np.uint8
        assert batch["labels"].dtype == np.int32
        np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], batch["labels"])
    seen = np.concatenate([batch["labels"] for batch in batches])
    assert len(set(seen.tolist())) == 18


def test_passes_differ_and_seeds_repeat(numbered):
    def passes(seed):
        dataset = make_dataset(numbered(32), 8, 8, seed=seed)
        return [labels_of(dataset) for _ in range(3)]

    one = passes(5)
    assert one == passes(5)
    assert one != passes(6)
    assert one[0] != one[1] != one[2]
    for order in one:
        assert sorted(sum(order, [])) == list(range(32))


def test_looking_at_the_first_batch_uses_up_no_pass(numbered):
    dataset = make_dataset(numbered(32), 8, 8)
    first = take(dataset, 1)[0]["labels"].tolist()
    assert labels_of(dataset)[0] == first
    assert dataset.epoch == 1


def test_taking_exactly_the_batches_of_a_pass_uses_it_up(numbered):
    dataset = make_dataset(numbered(35, broken=(2,)), 8, 8)
    first, second = take(dataset, 4), take(dataset, 4)
    assert dataset.epoch == 2
    assert labels_of(first) != labels_of(second)


def test_pass_can_be_chosen(numbered):
    dataset = make_dataset(numbered(16), 8, 4, flip=True)
    passes = [labels_of(dataset) for _ in range(3)]
    dataset.epoch = 1
    assert labels_of(dataset) == passes[1]


def test_second_fit_on_repeating_data_goes_on(numbered):
    dataset = make_dataset(numbered(16), 8, 4, repeat=True)
    both = [batch["labels"].tolist() for batch in take(dataset, 8)]
    dataset.epoch = 0
    first = [batch["labels"].tolist() for batch in take(dataset, 4)]
    second = [batch["labels"].tolist() for batch in take(dataset, 4)]
    assert first + second == both


def test_without_shuffling_the_order_is_that_of_the_source(numbered):
    dataset = make_dataset(numbered(10), 8, 5, shuffle=False)
    expected = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert labels_of(dataset) == labels_of(dataset) == expected


def test_repeat_goes_on_and_shuffles_anew(numbered):
    dataset = make_dataset(numbered(8), 8, 4, repeat=True)
    labels = [batch["labels"].tolist() for batch in take(dataset, 6)]
    passes = [labels[i] + labels[i + 1] for i in (0, 2, 4)]
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize("crop", ["center", "random"])
def test_flips_are_random_whole_and_repeatable(numbered, crop):
    def flipped(dataset):
        flips = {}
        for batch in dataset:
            left, right = batch["images"][:, 0, 0, 0], batch["images"][:, 0, -1, 0]
            # Brighter by 100 on the right, unless mirrored.
            assert (np.abs(left.astype(int) - right) == 100).all()
            for label, mirrored in zip(batch["labels"], left > right, strict=True):
                flips[int(label)] = bool(mirrored)
        return [flips[label] for label in range(100)]

    def make():
        return make_dataset(numbered(100), 8, 10, flip=True, crop=crop, seed=1)

    dataset = make()
    first, second = flipped(dataset), flipped(dataset)
    again = make()
    assert [first, second] == [flipped(again), flipped(again)]
    assert first != second
    assert 25 < sum(first) < 75 and 25 < sum(second) < 75


def test_broken_pictures_leave_batches_full(numbered):
    source = numbered(30, broken=(0, 7, 8, 21, 29))
    dataset = make_dataset(source, 8, 5)
    for _ in range(2):
        batches = labels_of(dataset)
        assert [len(labels) for labels in batches] == [5] * 5
        assert sorted(sum(batches, [])) == sorted(set(range(30)) - set(source.broken))
    assert len(source.skipped) == 5
    assert "numbered[7] (corrupt)" in source.report()


def test_small_pictures_are_counted_with_the_reason(numbered):
    class Mixed(numbered):
        def _read(self, index):
            item = super()._read(index)
            return item | {"image": item["image"][: 4 if index == 2 else 8]}

    source = Mixed(9)
    assert len(labels_of(make_dataset(source, 8, 4))) == 2
    assert source.skipped == (
        ("numbered[2]", "too small: 8x4 pixels for resolution 8"),
    )


def test_clips_of_another_length_are_counted_with_the_reason(numbered):
    class Clips(numbered):
        def __init__(self):
            super().__init__(9)
            self.is_video, self.num_frames = True, 3

        def _read(self, index):
            item = super()._read(index)
            video = np.stack([item["image"]] * {2: 2, 5: 4}.get(index, 3))
            return {"video": video, "label": item["label"]}

    source = Clips()
    batches = list(make_dataset(source, 8, 7, flip=True))
    assert [batch["videos"].shape for batch in batches] == [(7, 3, 8, 8, 1)]
    assert dict(source.skipped) == {
        "numbered[2]": "has 2 frames, not 3",
        "numbered[5]": "has 4 frames, not 3",
    }


@pytest.mark.parametrize("repeat", [False, True])
def test_only_unusable_pictures_end_in_an_error(numbered, repeat):
    source = numbered(12, broken=range(12))
    with pytest.raises(ValueError, match="corrupt"):
        next(iter(make_dataset(source, 8, 4, repeat=repeat)))
    with pytest.raises(ValueError, match="too small: 8x8"):
        next(iter(make_dataset(numbered(12), 16, 4, repeat=repeat)))


def test_fewer_usable_pictures_than_a_batch(numbered):
    source = numbered(6, broken=(0, 1, 2))
    with pytest.raises(ValueError, match="At most 3 .* one batch of 4"):
        list(make_dataset(source, 8, 4, repeat=True))
    with pytest.raises(ValueError, match="6 pictures .*Received: batch_size=7"):
        make_dataset(source, 8, 7)


@pytest.mark.parametrize("repeat", [False, True])
def test_shards_together_are_the_batches_of_one_process(numbered, repeat):
    options = dict(flip=True, crop="random", seed=3, repeat=repeat)
    # 47 pictures are 3 batches of 12 and 11 pictures that are left over.
    whole = make_dataset(numbered(47, side=16), 8, 12, **options)
    parts = [
        make_dataset(numbered(47, side=16), 8, 4, shard=(i, 3), **options)
        for i in range(3)
    ]
    assert steps_per_epoch(numbered(47), 4, shard=(2, 3)) == 3
    for _ in range(2):  # Two passes, or two looks at data without end.
        expected, *found = (take(dataset, 9) for dataset in (whole, *parts))
        assert len(expected) == (9 if repeat else 3)
        for batch, *shards in zip(expected, *found, strict=True):
            for key in batch:
                rows = np.concatenate([shard[key] for shard in shards])
                np.testing.assert_array_equal(rows, batch[key])
        seen = np.concatenate([batch["labels"] for batch in expected[:3]])
        assert len(set(seen.tolist())) == 36
    assert {dataset.epoch for dataset in parts} == {whole.epoch}


def test_shards_go_on_where_pictures_are_unusable(numbered):
    parts = [
        make_dataset(numbered(24, broken=(3, 5)), 8, 2, shard=(i, 2), repeat=True)
        for i in range(2)
    ]
    seen = []
    for dataset in parts:
        batches = labels_of(take(dataset, 11))
        assert all(len(labels) == 2 for labels in batches)
        seen.append(sum(batches, []))
    assert set(seen[0] + seen[1]) == set(range(24)) - {3, 5}
    with pytest.raises(ValueError, match="At most 3 .* one batch of 4"):
        take(make_dataset(numbered(4, (1,)), 8, 2, shard=(0, 2), repeat=True), 9)


@pytest.mark.parametrize("repeat", [False, True])
def test_resuming_an_iterator_is_exact(numbered, repeat):
    def make():
        source = numbered(40, broken=(3, 14, 15))
        return make_dataset(source, 8, 6, flip=True, crop="random", repeat=repeat)

    dataset = make()
    if not repeat:
        list(dataset)  # so that the state has to hold the number of the pass
    iterator = iter(dataset)
    next(iterator), next(iterator)
    # Survives a file.
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(3)]
    resumed = iter(make())
    resumed.set_state(state)
    for batch in expected:
        found = next(resumed)
        for key in batch:
            np.testing.assert_array_equal(found[key], batch[key])


def test_cached_passes_equal_fresh_ones(numbered, monkeypatch):
    reads = []

    class Counting(numbered):
        def _read(self, index):
            reads.append(index)
            return super()._read(index)

    def passes():
        dataset = make_dataset(Counting(20), 8, 5, flip=True)
        return [list(dataset) for _ in range(2)]

    cached = passes()
    assert len(reads) == 20
    monkeypatch.setattr(pipeline, "CACHE_LIMIT", 20 * 64 - 1)
    fresh = passes()
    assert len(reads) == 60
    for one, other in zip(sum(cached, []), sum(fresh, []), strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])
        np.testing.assert_array_equal(one["labels"], other["labels"])


def test_channels_and_captions(shapes_dir):
    source = open_source("shapes", data_dir=shapes_dir)
    keep = ("images", "captions")
    batch = next(
        iter(make_dataset(source, 16, 4, channels=1, keep=keep, shuffle=False))
    )
    assert set(batch) == {"images", "captions"}
    assert batch["images"].shape == (4, 16, 16, 1)
    assert batch["captions"].tolist() == [source[i]["caption"] for i in range(4)]


def test_worker_processes_give_the_same_batches_and_report(picture_folder, monkeypatch):
    (picture_folder / "cats" / "bad.png").write_bytes(b"no picture")
    options = dict(flip=True, crop="random", shard=(1, 2), repeat=True)

    def run(workers):
        source = open_source(f"folder:{picture_folder}", split="all")
        dataset = make_dataset(source, 16, 3, num_workers=workers, **options)
        return take(dataset, 6), source.skipped

    (expected, skipped), (found, skipped_by_workers) = run(0), run(3)
    assert skipped == skipped_by_workers and len(skipped) == 1
    assert len(expected) == len(found) == 6
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])


def test_how_many_workers_there_are_by_default(numbered, monkeypatch):
    def count(repeat=True, crop="random", **options):
        dataset = make_dataset(numbered(9), 8, 4, repeat=repeat, crop=crop, **options)
        return dataset.num_workers

    for cores, expected in ((1, 0), (2, 0), (3, 1), (8, 4), (64, 8)):
        monkeypatch.setattr(backend, "cores", lambda cores=cores: cores)
        assert count() == expected
    assert count(num_workers=0) == 0 and count(num_workers=3) == 3
    # They would start anew at each pass, or have nothing to do after the first.
    assert count(repeat=False) == count(crop="center") == 0
    monkeypatch.setattr(pipeline, "CACHE_LIMIT", 0)
    assert count(crop="center") == 8

    def refuse():
        raise RuntimeError("no file")

    monkeypatch.setattr(workers, "check_can_start_workers", refuse)
    assert count() == 0


class Reader(keras.Model):
    """Predicts nothing useful from a batch dict and counts what it was given."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, batch):
        pixels = keras.ops.cast(batch["images"], "float32") / 255
        features = self.dense(keras.ops.mean(pixels, axis=(1, 2)))
        return features - keras.ops.cast(batch["labels"][:, None], "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_):
        return keras.ops.mean(keras.ops.square(y_pred))


@pytest.mark.parametrize("repeat", [False, True])
def test_fit_takes_the_batches(numbered, repeat):
    seen = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model = Reader()
    model.compile(optimizer=keras.optimizers.SGD(1e-4))
    dataset = make_dataset(numbered(22, broken=(4,)), 8, 5, repeat=repeat)
    history = model.fit(
        dataset,
        epochs=3,
        steps_per_epoch=4 if repeat else None,
        verbose=0,
        callbacks=[Count()],
    )
    assert seen == [0, 1, 2, 3] * 3
    assert np.isfinite(history.history["loss"]).all()
    if not repeat:
        assert dataset.epoch == 3


@pytest.mark.parametrize(
    "argument",
    [
        {"resolution": 0},
        {"batch_size": -1},
        {"crop": "left"},
        {"crop_scale": (0.5, 2)},
        {"seed": -1},
        {"num_workers": -2},
        {"channels": 4},
        {"shard": (2, 2)},
        {"shard": (0.0, 2)},
        {"shard": 1},
        {"keep": ("labels",)},
        {"keep": ("images", "text")},
        {"keep": ("images", "captions")},
    ],
)
def test_wrong_arguments_are_named(numbered, argument):
    ((name, value),) = argument.items()
    arguments = {"resolution": 8, "batch_size": 4} | argument
    with pytest.raises(ValueError, match=f"Received: .*{name}") as error:
        make_dataset(numbered(8), **arguments)
    assert f"{name}={value!r}" in str(error.value)


def test_endless_batches_of_one(numbered):
    dataset = make_dataset(numbered(3), 8, 1, repeat=True, shuffle=False)
    found = [int(b["labels"][0]) for b in itertools.islice(iter(dataset), 7)]
    assert found == [0, 1, 2, 0, 1, 2, 0]
