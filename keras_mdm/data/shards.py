"""Where the samples lie in tar shards: found by a scan, kept in the user's cache.

A tar file has no table of contents. `webdataset.py` reads by what is found here.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import tarfile

import numpy as np

from keras_mdm.checksums import read_arrays
from keras_mdm.data.file_walk import count_endings, name_some
from keras_mdm.data.limits import LIMITS
from keras_mdm.data.packed import unpacker_of
from keras_mdm.data.pictures import EXTENSIONS
from keras_mdm.files import whole_file
from keras_mdm.paths import cache_folder, leads_out, local_path
from keras_mdm.text_files import printable

PARTS = ("picture", "text", "json")
_ENDINGS = {ending: "picture" for endings in EXTENSIONS.values() for ending in endings}
_ENDINGS |= {".txt": "text", ".json": "json"}
_VERSION = 3
_BLOCK = 512
# Bytes of a member's name and attributes.
_MAX_HEADER = 2**20
_MAX_ATTRIBUTES = 1000  # Each member has a copy.
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
# Bytes at both ends that tell shards of one size apart; tar ends in 10 KB of zeros.
_SAMPLED = 16 * 1024

_PACKED = tuple(
    ".tar.gz .tar.bz2 .tar.xz .tar.zst .tar.lz4 .tar.lzma .tar.Z "
    ".tgz .tbz .tbz2 .txz .tzst .zip .7z .rar".split()
)


def find_shards(path):
    """The shards that a user named: a folder, a file, or a pattern of files.

    Returns a sorted list of paths, and a list of sentences about what is left out.
    """
    path = local_path(path, "The path in 'webdataset:PATH'")
    notes, packed = [], []
    if path.is_dir():
        entries = sorted(path.iterdir())
        outside = {e for e in entries if e.is_symlink() and leads_out(e, path)}
        if outside:
            notes.append(
                f"{len(outside)} link(s) lead out of {path}, and are not read: "
                f"{name_some(sorted(e.name for e in outside))}. A pattern, such as "
                f"'{path}/*.tar', follows them."
            )
        entries = [entry for entry in entries if entry not in outside]
        found = [entry for entry in entries if entry.suffix.lower() == ".tar"]
        packed = [entry for entry in entries if entry.name.endswith(_PACKED)]
    elif path.exists():
        # Not a pattern, though there may be brackets in its name.
        found = [path]
    else:
        found = [pathlib.Path(name) for name in sorted(glob.glob(str(path)))]
    others = [entry.name for entry in found if not entry.is_file()]
    if others:
        notes.append(f"{len(others)} path(s) are no files: {name_some(others)}.")
    shards = [e for e in found if e.is_file() and not e.name.startswith(".")]
    for shard in shards or packed:
        _refuse_packed(shard)
    if packed:
        notes.append(
            f"{len(packed)} compressed file(s) in {path} are not read; unpack them "
            f"first: {name_some([entry.name for entry in packed])}."
        )
    if not shards:
        raise FileNotFoundError(
            f"No .tar file in {printable(path)} (absolute: "
            f"{printable(path.absolute())}). Name a folder of "
            "shards, a file, or a pattern such as 'cc12m/*.tar'. "
            f"{printable(' '.join(notes))}".rstrip()
        )
    return shards, notes


def _refuse_packed(shard):
    """Raises a `ValueError` if a file is compressed: it can't be read at random."""
    with shard.open("rb") as file:
        start = file.read(8)
    tool = unpacker_of(start)
    if tool or shard.name.endswith(_PACKED):
        how = f", such as with `{tool}`" if tool else ""
        raise ValueError(
            f"'{printable(shard)}' is compressed, and its pictures can't be read at "
            f"random. Unpack it first{how}, to a plain .tar file."
        )


def read_index(shard, limits=LIMITS):
    """Where the members of the samples of a shard lie.

    Returns:
        A tuple: list of the names of the samples; int64 array `(samples, 6)` of offset
        and size of picture, text and json (-1 for none); list of pairs `(what, why)` of
        what can't be used; and a string that counts members of other kinds.
    """
    most = limits.shard_members, limits.picture_bytes
    stamp, size = f"{_stamp(shard)} {most}", shard.stat().st_size
    cache = index_path(shard)
    # The index is only a copy: whatever is wrong with it, the shard is scanned anew.
    with contextlib.suppress(Exception):
        found = _check_index(read_arrays(cache, 4 * size + 2**20), stamp, size)
        if found is not None:
            return found
    keys, members, flaws, ignored = _scan(shard, size, *most)
    texts = {"stamp": stamp, "keys": keys, "flaws": flaws, "ignored": ignored}
    # The folder may not be written: then the next run scans again.
    with contextlib.suppress(OSError), whole_file(cache) as temporary:
        np.savez(
            temporary,
            members=members,
            # Arrays of texts would take the room of the longest for each.
            texts=np.frombuffer(json.dumps(texts).encode(), "uint8"),
        )
    return keys, members, flaws, ignored


def index_path(shard):
    """Where the index of a shard is kept: beside it, it could be a stranger's."""
    name = os.fsencode(os.path.realpath(shard))
    return cache_folder("shards") / f"{hashlib.sha256(name).hexdigest()}.npz"


def _stamp(shard):
    """String that changes with a shard: a copied or renamed index has another."""
    status = shard.stat()
    with shard.open("rb") as file:
        start = file.read(_SAMPLED)
        file.seek(max(0, status.st_size - _SAMPLED))
        content = hashlib.sha256(start + file.read()).hexdigest()
    return f"{_VERSION} {status.st_size} {status.st_mtime_ns} {content}"


def _check_index(index, stamp, size):
    """What `read_index` returns, or `None` if it is no index of this shard."""
    texts, members = json.loads(index["texts"].tobytes()), index["members"]
    keys, flaws = texts["keys"], [tuple(flaw) for flaw in texts["flaws"]]
    fits = (
        texts["stamp"] == stamp
        and members.dtype == np.int64
        and members.shape == (len(keys), 2 * len(PARTS))
    )
    if not fits:
        return None
    starts, sizes = members[:, ::2], members[:, 1::2]
    inside = (starts >= 0) & (sizes >= 0) & (sizes <= size) & (starts <= size - sizes)
    absent = (starts == -1) & (sizes == -1)
    if not (inside | absent).all() or not inside[:, 0].all():
        return None
    return keys, members, flaws, texts["ignored"]


def _scan(shard, size, max_members, max_bytes):
    """What `read_index` returns, from the tar file itself."""
    samples, flaws, others = {}, [], []
    end, why = 0, ""
    try:
        with tarfile.open(shard, "r:", tarinfo=_Member) as file:
            for number, member in enumerate(file):
                if number == max_members:
                    raise ValueError(f"it has more than {max_members} members")
                if member.size < 0 or file.offset <= end:
                    # It would be read again and again.
                    raise ValueError(f"a member of {member.size} bytes")
                end = file.offset
                # It would keep all of them in memory.
                file.members.clear()
                if member.isfile():
                    _add(samples, flaws, others, shard, member)
    # Whatever a damaged file makes `tarfile` raise.
    except Exception as error:
        why = f" ({error})"
    lost = _lost_bytes(shard, min(end, size))
    flaw = None
    if not size:
        flaw = "is empty: 0 bytes"
    elif lost is not None:
        flaw = (
            f"damaged tar file{why}: the {size - lost} bytes from byte {lost} to the "
            "end are lost, and the samples in them"
        )
    elif why or end > size:
        flaw = f"damaged tar file, cut off at byte {size}{why}"
    elif end == size:
        flaw = "has no end mark, so it may have been cut off"
    elif not samples:
        flaw = "has no samples"
    if flaw:
        flaws.append((str(shard), flaw))
    keys, rows = [], []
    for key, places in samples.items():
        if "picture" not in places:
            flaws.append((f"{shard}/{key}", "has no picture"))
        elif len(places) == 1:
            flaws.append((f"{shard}/{key}", "has no caption"))
        elif any(length > max_bytes for _, length in places.values()):
            flaws.append((f"{shard}/{key}", f"has more than {max_bytes} bytes"))
        elif any(start + length > size for start, length in places.values()):
            flaws.append((f"{shard}/{key}", "cut off at the end of the shard"))
        else:
            keys.append(key)
            rows.append([n for part in PARTS for n in places.get(part, (-1, -1))])
    members = np.array(rows, "int64").reshape((-1, 2 * len(PARTS)))
    return keys, members, flaws, count_endings(others)


class _Member(tarfile.TarInfo):
    """A member whose long name and attributes are read if they are of sane size."""

    def _proc_member(self, tarfile_):
        special = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX)
        if self.type in special and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        found = super()._proc_member(tarfile_)
        if len(tarfile_.pax_headers) > _MAX_ATTRIBUTES:
            raise tarfile.ReadError("too many attributes of all members")
        return found


def _add(samples, flaws, others, shard, member):
    if os.path.basename(member.name).startswith("."):
        return  # As in folders: what Macs and caches leave.
    key, ending = os.path.splitext(member.name)
    part = _ENDINGS.get(ending.lower())
    if part is None:
        others.append(member.name)
    elif member.issparse():
        flaws.append((f"{shard}/{member.name}", "is stored with holes"))
    elif part in samples.setdefault(key, {}):
        what = f"{shard}/{member.name}@{member.offset_data}"
        flaws.append((what, f"is a second {part} of its sample; the first is used"))
    else:
        samples[key][part] = (member.offset_data, member.size)


def _lost_bytes(shard, end):
    """Start of the block of the first byte behind the last member that is not zero.

    `tarfile` ends without a word at a header that it can't read, and at zeros.
    """
    with shard.open("rb") as file:
        file.seek(end)
        while chunk := file.read(1 << 20):
            zeros = len(chunk) - len(chunk.lstrip(b"\0"))
            if zeros < len(chunk):
                return (end + zeros) // _BLOCK * _BLOCK
            end += len(chunk)
    return None
