"""Odd folders: pictures, tables, shards and run folders as people have them."""

import contextlib
import io
import json
import os
import shutil
import tarfile

import numpy as np
from fuzz_prompts import TEXTS
from PIL import Image

import keras_mdm
from keras_mdm.data.source import UnusablePicture
from keras_mdm.text_files import printable

NAMES = (
    *"a größe é e\u0301 صورة \u202egnp 😀 -rf '\" %s{0} * [a] ~ $HOME a.b a:b".split(),
    *"\udcff\udcfe \\ nul. ..a train test 0 # \x7f __MACOSX .hidden lost+found".split(),
    *("B b", " lead", "trail ", "x\ny", "\x1b[31m", "\u2028", "&<", "a" * 200),
    *("preset", "state", "metadata"),
)
# Modes, and endings of formats that keep them.
KINDS = [
    tuple(kind.split())
    for kind in (
        "RGB .png, L .png, RGBA .png, LA .png, P .png, I;16 .png, I .tif, RGB .jpg, "
        "L .JPEG, CMYK .jpg, YCbCr .jpg, RGB .bmp, L .gif, RGB .webp, RGBA .webp, "
        "CMYK .tif, L .tiff, F .tif, RGB .ppm"
    ).split(", ")
]
# Grays of pictures, by which they are known.
LEVELS = range(20, 240, 30)


def draw(level, mode):
    """A picture of one gray."""
    size = (9, 8)
    if mode.startswith("I"):
        wide = np.full(size[::-1], level * 257, "uint16" if ";" in mode else "int32")
        return Image.fromarray(wide)
    if mode == "F":
        return Image.new("F", size, level / 255)
    gray = Image.new("L", size, level)
    return gray if mode == "L" else gray.convert("RGB").convert(mode)


def snapshot(folder):
    """What there is: of every path its kind, its size and when it was written."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[path] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


class Folders:
    """Calls with odd folders."""

    def prepare_folders(self):
        self.tree = self.folder / "tree"

    def name(self):
        return self.rng.choice(NAMES)

    def on_tree(self, call, written=()):
        """A callable that looks whether a call left the tree as it was; it removes it.

        Args:
            call: Callable without arguments.
            written: Names of files that the call may write.
        """

        def checked():
            before = snapshot(self.tree)
            try:
                call()
            finally:
                after = snapshot(self.tree)
                shutil.rmtree(self.tree)
            changed = {p for p, was in before.items() if after.get(p) != was}
            changed |= set(after) - set(before)
            changed = {path.name for path in changed if not path.is_dir()}
            assert changed <= set(written), f"written: {changed}"

        return checked

    def place(self, depth=2):
        """A folder in the tree, made."""
        folder = self.tree
        for _ in range(self.rng.randint(0, depth)):
            folder = folder / self.name()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):  # A picture of that name.
            return self.tree
        return folder

    def plant_pictures(self):
        """Draws some pictures; dict from the gray level of each to its path."""
        planted, rng = {}, self.rng
        for level in rng.sample(LEVELS, rng.randint(0, 5)):
            mode, ending = rng.choice(KINDS)
            path = self.place() / (self.name() + ending)
            if path.exists():
                continue
            draw(level, mode).save(path)
            if mode != "F":
                planted[level] = path
        return planted

    def plant_odd(self):
        """Something that no picture is, or that looks like one; returns its name."""
        rng = self.rng
        path = self.place() / (self.name() + rng.choice([".png", ".jpg", ".txt", ""]))
        if os.path.lexists(path):
            return None
        data = io.BytesIO()
        draw(100, "RGB").save(data, "png")
        data = data.getvalue()
        kinds = {
            "empty": lambda: path.write_bytes(b""),
            "cut": lambda: path.write_bytes(data[: rng.randrange(50)]),
            "noise": lambda: path.write_bytes(rng.randbytes(300)),
            "text": lambda: path.write_text("no picture", encoding="utf-8"),
            "huge": lambda: path.write_bytes(data[:16] + b"\x7f\xff" * 4 + data[24:]),
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "device": lambda: path.symlink_to("/dev/zero"),
            "loop": lambda: path.symlink_to(path),
            "up": lambda: path.symlink_to(self.tree, target_is_directory=True),
            "broken": lambda: path.symlink_to("nowhere"),
            "locked": lambda: (path.write_bytes(data[:50]), path.chmod(0)),
        }
        kind = rng.choice(sorted(kinds))
        kinds[kind]()
        return kind

    def plant_table(self, planted):
        """Captions; returns a dict of those that are well formed, by level."""
        rng, captions = self.rng, {}
        rows = []
        for level, path in planted.items():
            if rng.random() < 0.8:
                text = rng.choice(TEXTS)
                name = os.path.relpath(path, self.tree)
                rows.append({"file_name": name, "text": text})
                captions[level] = text
        if rng.random() < 0.5:
            captions = {}  # Something odd is among them.
            odd = [
                None,
                3,
                [],
                ["a", 1],
                {},
                "",
                "nowhere.png",
                "../../x",
                "\0",
                "/",
                1e99,
            ]
            for _ in range(rng.randint(1, 3)):
                key = rng.choice(["file_name", "text", "caption", "class", "split", ""])
                row = dict(rng.choice(rows)) if rows else {}
                rows.insert(rng.randint(0, len(rows)), row | {key: rng.choice(odd)})
        lines = [json.dumps(row) for row in rows]
        if not captions and rng.random() < 0.5:
            broken = ["{", "[1]", "[" * 9999, "NaN", '{"a": 1}', "x", '"\\ud83d"', "\0"]
            lines.insert(rng.randint(0, len(lines)), rng.choice(broken))
        text = rng.choice(["\n", "\r\n"]).join(lines)
        (self.tree / "metadata.jsonl").write_text(
            text, encoding=rng.choice(["utf-8", "utf-8-sig", "utf-16"]), newline=""
        )
        return captions

    def try_pictures(self):
        rng = self.rng
        self.tree.mkdir()
        planted = self.plant_pictures()
        odd = [self.plant_odd() for _ in range(rng.randint(0, 3))]
        captions = self.plant_table(planted) if rng.random() < 0.4 else None
        given = {
            "split": "all" if rng.random() < 0.85 else rng.choice([1, "train", None])
        }
        held = {path.name: level for level, path in planted.items()}
        told = {"pictures": held, "odd": odd, "captions": captions, **given}
        return self.on_tree(lambda: self.read(planted, captions, **given)), told

    def read(self, planted, captions, split):
        """Reads the tree, and compares it with what was planted."""
        source = keras_mdm.data.open_source(f"folder:{self.tree}", split)
        seen = {}
        for index in range(len(source)):
            try:
                item = source[index]
            except UnusablePicture:
                continue
            level = min(LEVELS, key=lambda one: abs(one - item["image"].mean()))
            assert level in planted, f"no picture: {source.describe(index)!r}"
            assert level not in seen, f"twice: {source.describe(index)!r}"
            assert abs(item["image"].mean() - level) < 3, "of another gray"
            seen[level] = item
        report = source.report()
        json.dumps(source.contents()).encode()
        report.encode()
        assert source.class_names is None or "".join(source.class_names).isprintable()
        for level, item in seen.items():
            parts = planted[level].relative_to(self.tree).parts
            if "label" in item and captions is None:
                assert source.class_names[item["label"]] == printable(parts[0])
            if captions:
                whole = captions[level].encode("utf-16", "surrogatepass")
                whole = whole.decode("utf-16", "replace").strip("\ufeff").strip()
                same = item["caption"].replace("\ufffd", "")
                assert same == whole.replace("\ufffd", ""), "another caption"
        skipped = {what for what, _ in source.skipped}
        for level, path in planted.items():
            parts = path.relative_to(self.tree).parts
            left = any(
                p.startswith(".") or p in ("__MACOSX", "lost+found") for p in parts
            )
            found = level in seen or printable(path) in skipped
            assert found or left or split != "all", f"silently left out: {path}"
        if len(seen) > 1:
            dataset = keras_mdm.data.make_dataset(source, 8, 2, num_workers=0)
            assert next(iter(dataset))["images"].shape == (2, 8, 8, 3)

    def try_shards(self):
        rng = self.rng
        self.tree.mkdir()
        path = self.tree / (self.name() + ".tar")
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for level in rng.sample(LEVELS, rng.randint(0, 4)):
                mode, ending = rng.choice(KINDS)
                picture = io.BytesIO()
                draw(level, mode).save(
                    picture, Image.registered_extensions()[ending.lower()]
                )
                parts = {
                    ending: picture.getvalue(),
                    ".txt": rng.choice(TEXTS).encode("utf-8", "replace"),
                }
                if rng.random() < 0.3:
                    parts[".json"] = rng.choice(
                        [b"{", b"[]", b"", b'{"caption": 1}', b"1"]
                    )
                if rng.random() < 0.3:
                    parts[rng.choice(list(parts))] = rng.randbytes(40)
                stem = rng.choice(
                    [self.name(), f"{self.name()}/{self.name()}", "../../up", "/abs"]
                )
                for ending, data in parts.items():
                    member = tarfile.TarInfo(stem + ending)
                    member.size = len(data)
                    if rng.random() < 0.1:
                        member.type = rng.choice([tarfile.SYMTYPE, tarfile.FIFOTYPE])
                        member.linkname, member.size, data = "/etc/passwd", 0, b""
                    tar.addfile(member, io.BytesIO(data))
        if rng.random() < 0.3:
            data = path.read_bytes()
            path.write_bytes(data[: rng.randrange(len(data))])

        def call():
            source = keras_mdm.data.open_source(f"webdataset:{self.tree}", "all")
            for index in range(len(source)):
                with contextlib.suppress(UnusablePicture):
                    assert source[index]["image"].ndim == 3
            source.report().encode()

        return self.on_tree(call), {"shard": path.name}
