"""Forged shards, and data sets of Hugging Face."""

import io
import json
import tarfile

import numpy as np

from hostile import forge
from hostile.forge import case, picture_source, png, read_all, sparse, write
from hostile.pictures import POSTSCRIPT


# Tar shards.
def read_shards(folder):
    return read_all(f"webdataset:{folder}")


GOOD = png(8, 8, bytes(range(64)))


def shard(*members, tail=b""):
    """Makes a shard of a good sample and members `(name, data, changes)`."""

    def make(folder, outside):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            good = [("g.png", GOOD, {}), ("g.txt", b"good", {})]
            for name, data, changes in (*good, *members):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                for key, value in changes.items():
                    if value == "{outside}":
                        value = str(outside / "secret.txt")
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(data))
        data = file.getvalue()
        if tail:  # Behind the members, where the next would be.
            data = data.rstrip(b"\0")
            data += bytes(-len(data) % 512) + tail + bytes(1024)
        write(folder / "a.tar", data)

    return make


def sample(picture=GOOD, text=b"a", about=None, key="s"):
    found = [(f"{key}.png", picture, {})]
    if text is not None:
        found.append((f"{key}.txt", text, {}))
    if about is not None:
        found.append((f"{key}.json", about, {}))
    return found


def header(name, size, kind=b"0", data=b""):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + data


LINK = {"type": tarfile.SYMTYPE, "linkname": "{outside}"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "{outside}"}
SPARSE = {"pax_headers": {"GNU.sparse.map": "0,9,9999,9", "GNU.sparse.size": "99999"}}
for _name, _made in {
    "parent": shard(
        ("../../outside/x.png", GOOD, {}),
        ("../../outside/x.txt", b"a", {}),
        ("odd.png", b"", {}),
    ),
    "link": shard(("l.png", b"", LINK), ("l.txt", b"a", {})),
    "hard-link": shard(("l.png", GOOD, {}), ("l.txt", b"", HARD)),
    "fifo": shard(("l.png", b"", {"type": tarfile.FIFOTYPE}), ("l.txt", b"a", {})),
    "device": shard(("l.png", b"", {"type": tarfile.CHRTYPE}), ("l.txt", b"a", {})),
    "sparse": shard(("s.png", GOOD, SPARSE), ("s.txt", b"a", {})),
    "postscript": shard(*sample(POSTSCRIPT)),
    "flat": shard(*sample(png(100_000_000, 1, b""))),
    "deep": shard(*sample(about=b"[" * 100_000)),
    "deep-object": shard(*sample(about=b'{"a":' * 100_000)),
    "digits": shard(
        *sample(text=None, about=b'{"caption": "a", "x": ' + b"9" * 400 + b"}")
    ),
    "more-digits": shard(*sample(about=b'{"x": ' + b"9" * 5000 + b"}")),
    "caption-object": shard(*sample(text=None, about=b'{"caption": {}}')),
    "long-caption": shard(*sample(text=b"x" * 200_000)),
    "binary-caption": shard(*sample(text=b"\xff\xfe\0\xd8")),
    "beyond": shard(tail=header("b.png", 10**12)),
    "negative": shard(tail=header("b.png", -512)),
    "negative-byte": shard(tail=header("b.png", -1)),
    "pax-back": shard(
        ("s.png", GOOD, {"pax_headers": {"size": "-1024"}}), ("s.txt", b"a", {})
    ),
    "long-name": shard(tail=header("@", 8**10, tarfile.GNUTYPE_LONGNAME)),
    "pax": shard(tail=header("@", 8**10, tarfile.XHDTYPE)),
    "pax-size": shard(
        ("s.png", GOOD, {"pax_headers": {"size": "-1"}}), ("s.txt", b"a", {})
    ),
    "pax-text": shard(
        ("s.png", GOOD, {"pax_headers": {"size": "evil"}}), ("s.txt", b"a", {})
    ),
    "garbage": shard(tail=b"\xff" * 1024),
}.items():
    case("shard", _name, _made, read_shards)


def _sparse_shard(folder, outside):
    shard(("s.txt", b"a", {}))(folder, outside)
    start = header("s.png", 2**33)
    data = (folder / "a.tar").read_bytes().rstrip(b"\0")
    sparse(folder / "a.tar", 2**33 + 2**20, data + b"\0" * (-len(data) % 512) + start)


case("shard", "hole", _sparse_shard, read_shards)


def _pax_hole(folder, outside):
    shard()(folder, outside)
    data = (folder / "a.tar").read_bytes().rstrip(b"\0")
    start = header("@", 2**32, tarfile.XHDTYPE)
    sparse(folder / "a.tar", 2**33, data + b"\0" * (-len(data) % 512) + start)


case("shard", "pax-hole", _pax_hole, read_shards)


LONG = "x" * 10**6
case(
    "shard",
    "long-key",
    shard(
        *(part for i in range(3000) for part in sample(key=f"s{i}")),
        *sample(b"odd", key=LONG),
    ),
    read_shards,
)


def _attributes(folder, outside):
    """Attributes that each of many members has a copy of."""
    keys = {f"k{i}": "v" for i in range(60_000)}
    data = b"".join(
        tarfile.TarInfo(f"{i}.{ending}").tobuf(tarfile.GNU_FORMAT)
        for i in range(3000)
        for ending in ("png", "txt")
    )
    head = tarfile.TarInfo.create_pax_global_header(keys)
    write(folder / "a.tar", head + data + bytes(1024))


case("shard", "attributes", _attributes, read_shards)


def _hidden_index(folder, outside):
    """An index beside the shard, as they were kept once."""
    shard(*sample(b"odd"))(folder, outside)
    np.savez(folder / ".a.tar.index.npz", members=np.zeros(2**24, "int64"))


case("shard", "hidden-index", _hidden_index, read_shards)


# Data sets of Hugging Face.
def read_hf(folder):
    return read_all(f"hf:{folder}", "train")


def parquet(path):
    def make(folder, outside):
        import pyarrow
        import pyarrow.parquet

        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        place = path.replace("{outside}", str(outside)).replace(
            "{port}", str(forge.PORT)
        )
        rows = [{"bytes": GOOD, "path": None}, {"bytes": None, "path": place}]
        rows = pyarrow.array(rows, kind)
        features = {"info": {"features": {"image": {"_type": "Image"}}}}
        schema = pyarrow.schema(
            [pyarrow.field("image", kind)],
            {b"huggingface": json.dumps(features).encode()},
        )
        table = pyarrow.Table.from_arrays([rows], schema=schema)
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, folder / "train-00000.parquet")

    return make


for _name, _path in {
    "outside": "{outside}/secret.png",
    "parent": "../outside/secret.png",
    "url": "http://127.0.0.1:{port}/x.png",
    "file-url": "file://{outside}/secret.png",
    "chained": "zip://secret.png::{outside}/secret.png",
    "hub": "hf://datasets/x/y/z.png",
}.items():
    case("hf", _name, parquet(_path), read_hf)


def labels(*found, names=("a", "b")):
    """Rows whose labels are of no class, or whose classes have odd names."""

    def make(folder, outside):
        import pyarrow
        import pyarrow.parquet

        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        label = {"_type": "ClassLabel", "names": list(names)}
        features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        rows = pyarrow.array([{"bytes": GOOD, "path": None}] * len(found), kind)
        columns = {"image": rows, "label": pyarrow.array(found, pyarrow.int64())}
        table = pyarrow.table(columns).replace_schema_metadata(
            {"huggingface": json.dumps(features)}
        )
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, folder / "train-00000.parquet")

    return make


for _name, _made in {
    "label-beyond": labels(0, 2),
    "label-huge": labels(0, 2**62),
    "label-negative": labels(0, -2),
    "label-none": labels(0, None),
    "label-twice": labels(0, 1, names=("a", "a")),
}.items():
    case("hf", _name, _made, read_hf)


LAUGHS = "  a0: &a0 [x]\n" + "".join(
    f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def card(files, name="README.md", before=""):
    def make(folder, outside):
        picture_source(folder)
        text = f"{before}configs:\n- config_name: default\n  data_files: {files}\n"
        text = text.replace("{outside}", str(outside))
        write(folder / name, f"---\n{text}---\n" if name == "README.md" else text)

    return make


for _name, _made in {
    "card": card("'{outside}/*'"),
    "card-parent": card("'../outside/*'"),
    "card-url": card("'http://127.0.0.1:{port}/x.parquet'"),
    "card-yaml": card("[{split: train, path: '{outside}/*'}]", ".huggingface.yaml"),
    "card-laughs": card("[*a11]", before=f"x:\n{LAUGHS}"),
    "card-recursive": card("&a [*a]"),
    "card-long": card(f"[{'a,' * 10**6}a]"),
    "card-object": card("!!python/name:evil_package.x ''"),
}.items():
    case("hf", _name, _made, read_hf)
