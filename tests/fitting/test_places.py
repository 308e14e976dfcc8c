"""Places in the data: what was stopped goes on with the batch that comes next."""

import itertools
import json

import keras
import numpy as np
import pytest
from helpers import batch_of, lean_nest
from PIL import Image

from keras_mdm.data import make_dataset, open_source
from keras_mdm.fitting.batches import BatchSpec
from keras_mdm.fitting.places import START
from keras_mdm.fitting.streams import ArrayBatches, PreparedData

pytestmark = pytest.mark.usefixtures("eager_functions")

SPEC = BatchSpec.of(lean_nest(1))
BATCHES = [batch_of(3, 8, seed=number) for number in range(5)]


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, index):
        return BATCHES[index]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """26 good pictures, each of one brightness, and 3 that can't be read."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(29):
        path = folder / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (9, 8), number * 8).save(path)
        if number in (4, 5, 17):
            path.write_bytes(b"no picture")
    return folder


def pictures(folder, batch_size=3, **options):
    source = open_source(f"folder:{folder}", split="all")
    options = {"repeat": True, "crop": "random", "flip": True, "seed": 7, **options}
    return make_dataset(source, 8, batch_size, channels=1, **options)


def stream(folder, **options):
    """Rows in an order of their own in each pass, one behind the other."""
    source = open_source(f"folder:{folder}", split="all")

    def rows(seed, epoch, shard):
        order = np.random.default_rng((seed or 0, epoch)).permutation(len(source))
        return map(int, order[shard[0] :: shard[1]])

    source.stream = rows
    return make_dataset(source, 8, 3, channels=1, repeat=True, seed=7, **options)


def tf_data(folder):
    tf = pytest.importorskip("tensorflow")
    stacked = {key: np.concatenate([b[key] for b in BATCHES]) for key in BATCHES[0]}
    return tf.data.Dataset.from_tensor_slices(stacked).batch(3).repeat()


def arrays(folder):
    return ArrayBatches(batch_of(16, 8), None, 3, shuffle=True, drop_remainder=True)


KINDS = {
    "threads": pictures,
    "workers": lambda folder: pictures(folder, num_workers=1),
    "shard": lambda folder: pictures(folder, shard=(1, 2)),
    "one pass": lambda folder: pictures(folder, repeat=False),
    "stream": stream,
    "list": lambda folder: BATCHES,
    "generator": lambda folder: itertools.cycle(BATCHES),
    "PyDataset": lambda folder: Sequence(),
    "tf.data": tf_data,
    "arrays": arrays,
}


def read(data, place, anew, count, ahead=1):
    """Reads as `fit` does, `ahead` batches too many; a new pass follows each pass.

    Returns:
        List of batches, and the place after them as a file has it.
    """
    prepared = PreparedData(data, SPEC, "training data")
    prepared.places.begin(place, anew)
    passes = itertools.chain.from_iterable(itertools.repeat(prepared))
    batches = [batch for batch, *_ in itertools.islice(passes, count + ahead)]
    for number in range(count):
        prepared.places.after(number)
    return batches[:count], json.loads(json.dumps(prepared.places.after(count)))


def check(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for key in other:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_stopped_reading_goes_on(kind, folder):
    make = KINDS[kind]
    data, place = make(folder), START
    if kind == "arrays":  # Each process draws another seed.
        place = {**START, "epoch": data.epoch}
    # In a pass, at its end, over several of them, and twice.
    counts = (4, 1, 9, 11)
    if kind == "workers":  # They give what threads do, and are slow to start.
        counts, data = (4, 2), pictures(folder)
    whole, _ = read(data, place, False, sum(counts))
    found = []
    for count in counts:
        batches, place = read(make(folder), place, True, count)
        found += batches
    check(found, whole)


def test_the_next_fit_goes_on_with_an_iterator():
    data = itertools.cycle(BATCHES)
    first, place = read(data, START, False, 2, ahead=0)
    second, place = read(data, place, False, 2, ahead=0)
    check(first + second, BATCHES[:4])
    assert place["taken"] == 4


def test_places_of_another_number_of_workers_or_processes(folder):
    """Without unusable pictures, none of which is before them here, it is exact."""
    clean = {"shuffle": False}
    whole, _ = read(pictures(folder, 2, **clean), START, False, 5)
    _, place = read(pictures(folder, 2, **clean), START, False, 2)
    place["state"]["workers"] = 3
    check(read(pictures(folder, 2, **clean), place, True, 3)[0], whole[2:])
    place["state"] = None
    parts = [
        read(pictures(folder, 1, shard=(i, 2), **clean), place, True, 3)[0]
        for i in range(2)
    ]
    for one, other, both in zip(*parts, whole[2:], strict=True):
        check(
            [one, other], [{k: v[i : i + 1] for k, v in both.items()} for i in (0, 1)]
        )


def test_data_that_end_before_their_place():
    place = {**START, "taken": 7}
    with pytest.raises(ValueError, match="ended after 5 batches, and 7 were taken"):
        read(iter(BATCHES), place, True, 1)
