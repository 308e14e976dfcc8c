"""The reader of PyTorch files: what torch saves, and what must be refused."""

import argparse
import collections
import enum
import os
import pathlib
import pickle
import re
import sys
import types
import zipfile

import numpy as np
import pytest

from keras_mdm.convert.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.once

torch = pytest.importorskip("torch")


def _saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def test_tensors_of_every_kind(tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(10, 6)
    content = {
        "plain": base,
        "view": base[2:5].T,
        "parameter": torch.nn.Parameter(torch.randn(3, 2, 1, 1)),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(4).half(),
        "bfloat16": torch.randn(4).bfloat16(),
        "integers": torch.tensor([1, -2]),
    }
    found = read_checkpoint(_saved(tmp_path / "a.pth", {"state_dict": content}))
    assert set(found) == set(content)
    for name, tensor in content.items():
        expected = tensor.detach()
        expected = expected.float() if name == "bfloat16" else expected
        actual = found[name]
        if name == "bfloat16":
            actual = actual.astype("float32")
        np.testing.assert_array_equal(actual, expected.numpy(), err_msg=name)
        assert actual.dtype == expected.numpy().dtype


def _memory():
    """Bytes of this process that lie in no file."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="not Linux")
def test_tensors_stay_in_the_file(tmp_path):
    path = _saved(tmp_path / "a.pth", {"a": torch.ones(16_000_000)})  # 64 MB
    read_checkpoint(path)
    before = _memory()
    weights = read_checkpoint(path)
    assert weights["a"].sum() == 16_000_000
    assert _memory() - before < 20e6


def test_plain_and_ordered_state_dicts(tmp_path):
    tensors = collections.OrderedDict(a=torch.ones(2))
    for number, content in enumerate((tensors, dict(tensors), {"state_dict": tensors})):
        path = _saved(tmp_path / f"{number}.pth", content)
        np.testing.assert_array_equal(read_checkpoint(path)["a"], [1.0, 1.0])


class Kind(enum.Enum):
    CLIP = 1


Kind.__module__ = "samplers"  # an old module of the official code, not installed here


def test_options_beside_the_weights_become_nothing(tmp_path, monkeypatch):
    """The official code saves its options and losses in the same file."""
    module = types.ModuleType("samplers")
    module.Kind = Kind
    monkeypatch.setitem(sys.modules, "samplers", module)
    options = argparse.Namespace(lr=5e-5, kind=Kind.CLIP, device=torch.device("cpu"))
    content = {
        "state_dict": {"a": torch.ones(2)},
        "args": options,
        "losses": [np.float64(0.5), np.arange(3)],
        "seen": {1, 2},
        "counts": collections.defaultdict(set, a=1),
        "where": pathlib.Path("here"),
        "batch_num": 3,
    }
    path = _saved(tmp_path / "a.pth", content)
    monkeypatch.delitem(sys.modules, "samplers")
    assert list(read_checkpoint(path)) == ["a"]


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize("function", [os.system, eval, exec, open, __import__])
def test_calls_are_refused_and_not_made(tmp_path, function, where):
    trace = tmp_path / "trace"
    argument = {
        os.system: f"touch {trace}",
        open: str(trace),
        __import__: "this",
    }.get(function, f"open({str(trace)!r}, 'w')")
    arguments = (argument, "w") if function is open else (argument,)
    call = Call(function, *arguments)
    weights = {"a": torch.ones(2)}
    content = {"state_dict": weights, "args": call}
    if where == "inside":
        content = {"state_dict": {**weights, "b": call}}
    path = _saved(tmp_path / "a.pth", content)
    with pytest.raises(ValueError, match="is refused: it names .* Nothing of it was"):
        read_checkpoint(path)
    assert not trace.exists() and "this" not in sys.modules


def _archive(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")  # without which torch stops
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("configparser", "os.system"),
        ("builtins", "print"),
    ],
)
def test_other_names_are_refused(tmp_path, module, name, protocol):
    named = f"\x80\x02c{module}\n{name}\n."
    if protocol == 4:
        named = f"\x80\x04\x8c{chr(len(module))}{module}\x8c{chr(len(name))}{name}\x93."
    path = _archive(tmp_path / "a.pth", named.encode("latin-1"))
    words = "is refused: it names" if protocol == 2 else "is refused"
    with pytest.raises(ValueError, match=f"a.pth' {words}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"cargparse\nNamespace\n)\x81(K\x01e.",  # a list of a class of its own
        b"cargparse\nNamespace\n)\x81)R.",  # a call of what a placeholder made
        b"ctorch._utils\n_rebuild_parameter\n)\x81.",
        b"ccollections\nOrderedDict\n)R}X\x03\x00\x00\x00getK\x01sb}b.",
    ],
)
def test_what_is_done_to_allowed_names_is_checked_too(tmp_path, pickled):
    path = _archive(tmp_path / "a.pth", b"\x80\x02" + pickled)
    with pytest.raises(ValueError, match="is refused|holds no weights") as caught:
        read_checkpoint(path)
    # torch advises to switch its check off, which nobody should read.
    assert "weights_only" not in str(caught.value)


def test_the_reader_is_left_as_it_was(tmp_path):
    """A pickle may set attributes of what it is handed: of nothing that lasts."""
    pickled = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__code__Ns"
    )
    path = _archive(tmp_path / "a.pth", pickled + b"\x86b.")
    with pytest.raises(ValueError, match="is damaged|holds no weights"):
        read_checkpoint(path)
    good = _saved(tmp_path / "b.pth", {"a": torch.ones(2)})
    np.testing.assert_array_equal(read_checkpoint(good)["a"], [1.0, 1.0])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(tmp_path, share):
    path = _saved(tmp_path / "a.pth", {"a": torch.randn(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not a whole PyTorch checkpoint: it is trunc"):
        read_checkpoint(path)


def test_flipped_bits(tmp_path):
    path = _saved(tmp_path / "a.pth", {"a": torch.ones(1000)})
    content = bytearray(path.read_bytes())
    middle = content.index(np.float32(1).tobytes() * 10) + 400
    content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(path)


def test_storages_that_are_missing_or_too_short(tmp_path):
    source = _saved(tmp_path / "a.pth", {"a": torch.ones(10), "b": torch.ones(20)})
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for change, words in (
        (lambda name, data: None if name.endswith("data/0") else data, "data/0"),
        (
            lambda name, data: data[:8] if name.endswith("data/0") else data,
            "has 88 bytes of values, and its tensors need 120",
        ),
    ):
        path = tmp_path / "b.pth"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                if (changed := change(name, data)) is not None:
                    archive.writestr(name, changed)
        with pytest.raises(ValueError, match=f"is damaged.*{words}"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "described",
    [b"N", b"(K\x00K\x01K\x02", b"(X\x01\x00\x00\x00aJ\xff\xff\xff\xff)(t", b"()()"],
)
def test_tensors_that_are_described_wrongly(tmp_path, described):
    pickled = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
    path = _archive(tmp_path / "a.pth", pickled + described + b"tRs.")
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(path)


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="not a whole PyTorch checkpoint"):
        read_checkpoint(tmp_path / "text")
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="a.npz' is refused"):
        read_checkpoint(tmp_path / "a.npz")
    ones = torch.ones(2)
    for content in ([1], {}, {"a": 1.0}, {"state_dict": {"a": "b"}}, {1: ones}):
        path = _saved(tmp_path / "a.pth", content)
        with pytest.raises(ValueError, match="holds no weights"):
            read_checkpoint(path)
    for tensor in (torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta")):
        path = _saved(tmp_path / "a.pth", {"a": tensor})
        with pytest.raises(ValueError, match="is refused"):
            read_checkpoint(path)
    old = _saved(
        tmp_path / "old.pth", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False
    )
    with pytest.raises(ValueError, match="older than 1.6"):
        read_checkpoint(old)
    for pickled in (b"", b"garbage", pickle.dumps({"a": 1})[:-3], b"\x80\x02Q."):
        with pytest.raises(ValueError, match="is damaged"):
            read_checkpoint(_archive(tmp_path / "a.pth", pickled))


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_is_written(tmp_path, mmap):
    rng = np.random.default_rng(0)
    tensors = {
        "conv.weight": rng.normal(size=(3, 2, 3, 3)).astype("float32"),
        "conv.bias": rng.normal(size=300).astype("float32"),
        "scalar": np.float32(2.5),
        "transposed": rng.normal(size=(4, 5)).astype("float32").T,
        "empty": np.zeros((0, 3), "float32"),
    }
    path = tmp_path / "a.pth"
    write_checkpoint(path, tensors.items())
    found = torch.load(path, weights_only=True, mmap=mmap)["state_dict"]
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_array_equal(found[name].numpy(), array)
    assert set(read_checkpoint(path)) == set(tensors)


def test_torch_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for function in (read_checkpoint, lambda path: write_checkpoint(path, ())):
        with pytest.raises(ImportError, match=r"`pip install \"keras-mdm\[convert\]\""):
            function(tmp_path / "a.pth")
