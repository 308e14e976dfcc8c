"""Sizes of records in files of array_record, as its own library wrote them."""

import types

import numpy as np
import pytest

from keras_mdm.data.array_records import RecordSizes

pytestmark = pytest.mark.once

module = pytest.importorskip("array_record.python.array_record_module")


def sizes_of(path, count, most, skip=0):
    part = types.SimpleNamespace(filename=str(path), skip=skip, take=count)
    split = types.SimpleNamespace(file_instructions=[part])
    info = types.SimpleNamespace(splits={"train": split})
    return RecordSizes(types.SimpleNamespace(info=info), "train", most)


@pytest.mark.parametrize(
    "options",
    [
        "group_size:1",
        "group_size:1,uncompressed",
        "group_size:1,brotli:3",
        "group_size:1,pad_to_block_boundary:true",
    ],
)
def test_records_up_to_a_size(tmp_path, options):
    """Over many blocks of the file, and with those that are passed over."""
    path, rng = tmp_path / "a", np.random.default_rng(0)
    lengths = rng.integers(1, 200_000, 40)
    writer = module.ArrayRecordWriter(str(path), options)
    for length in lengths:
        writer.write(rng.bytes(length))
    writer.close()
    most = int(np.median(lengths)) + 8
    for skip in (0, 7):
        sizes = sizes_of(path, 40 - skip, most, skip)
        for index, length in enumerate(lengths[skip:]):
            if length + 8 <= most:
                sizes.check(index)
            else:
                with pytest.raises(ValueError, match=f"to {length + 8}, more than"):
                    sizes.check(index)


def test_groups_count_as_a_whole(tmp_path):
    writer = module.ArrayRecordWriter(str(tmp_path / "a"), "group_size:4")
    for _ in range(10):
        writer.write(bytes(1000))
    writer.close()
    sizes = sizes_of(tmp_path / "a", 10, 3000)
    sizes.check(9)  # The last has two.
    with pytest.raises(ValueError, match="to 4032, more than 3000"):
        sizes.check(7)


def test_any_changed_byte_is_an_error_or_means_nothing(tmp_path):
    path = tmp_path / "a"
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(5):
        writer.write(bytes(1000))
    writer.close()
    whole, refused = path.read_bytes(), 0
    written = [i for i in range(len(whole)) if any(whole[i - 40 : i + 40])]
    for at in written[::3]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            sizes_of(path, 5, 2**20).check(3)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 20
