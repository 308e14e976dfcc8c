"""Bounds of what parquet files are decoded to, against what pyarrow makes of them."""

import pytest

pytestmark = pytest.mark.once

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from keras_mdm.data.parquet import unpacked_size  # noqa: E402

CODECS = ("none", "snappy", "gzip", "zstd", "brotli", "lz4")
MEGABYTE = b"x" * 2**20


def table(rows=500):
    """Pictures, captions that differ and that do not, numbers, lists, nothing."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pictures = [{"bytes": bytes([i % 256]) * 2000, "path": None} for i in range(rows)]
    columns = {
        "image": pyarrow.array(pictures, kind),
        "text": [f"the caption of {i} " + "long " * (i % 17) for i in range(rows)],
        "class": [("even", "odd")[i % 2] for i in range(rows)],
        "number": pyarrow.array(range(rows), pyarrow.int64()),
        "list": [["a"] * (i % 5) for i in range(rows)],
        "none": pyarrow.nulls(rows, pyarrow.float64()),
    }
    return pyarrow.table(columns)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", CODECS)
def test_honest_tables_are_told_as_they_are(tmp_path, codec, version):
    path = tmp_path / "a.parquet"
    options = {"compression": codec, "data_page_version": version}
    parquet.write_table(table(), path, row_group_size=100, **options)
    size = parquet.read_table(path).nbytes
    assert size <= unpacked_size(path) < 4 * size


@pytest.mark.parametrize("codec", CODECS)
def test_repeated_values_count_each_time(tmp_path, codec):
    path = tmp_path / "a.parquet"
    values = pyarrow.DictionaryArray.from_arrays([0] * 50 + [1] * 9, [b"a", MEGABYTE])
    parquet.write_table(
        pyarrow.table({"a": values}), path, compression=codec, store_schema=False
    )
    assert path.stat().st_size < 2**21
    assert unpacked_size(path) >= parquet.read_table(path).nbytes > 9 * 2**20


def test_shared_beginnings_count_each_time(tmp_path):
    path = tmp_path / "a.parquet"
    values = pyarrow.table({"a": [MEGABYTE + str(i).encode() for i in range(20)]})
    encoding = {"a": "DELTA_BYTE_ARRAY"}
    parquet.write_table(values, path, use_dictionary=False, column_encoding=encoding)
    assert path.stat().st_size < 2**22
    assert unpacked_size(path) >= values.nbytes > 20 * 2**20


def test_values_of_a_fixed_size(tmp_path):
    path = tmp_path / "a.parquet"
    values = pyarrow.table({"a": pyarrow.nulls(1000, pyarrow.binary(10_000))})
    parquet.write_table(values, path)
    assert path.stat().st_size < 10_000
    assert unpacked_size(path) >= parquet.read_table(path).nbytes >= 10**7


def test_damaged_headers_are_errors_and_end(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(table(50), path)
    whole = path.read_bytes()
    found = set()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            found.add(type(unpacked_size(path)))
        except Exception as error:
            found.add(type(error))
    assert int in found and ValueError in found or OSError in found
