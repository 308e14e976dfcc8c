"""`tools/get_pictures.py`, on small packages that are made here, without a network."""

import dataclasses
import hashlib
import importlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_mdm.data import open_source

pytestmark = pytest.mark.once

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb is missing"
)
# Code point, name in the `emoji` package, category.
EMOJI = [
    ("1F34E", ":red_apple:", "Food & Drink"),
    ("1F44B", ":waving_hand:", "People & Body"),
    ("1F44B-1F3FD", ":waving_hand_medium_skin_tone:", None),
    ("1F468-200D-1F3A4", ":man_singer:", "People & Body"),
    ("1F469-200D-1F3A4", ":woman_singer:", "People & Body"),
    ("1F1F9-1F1FF", ":Tanzania:", "Flags"),
    ("1F311", ":new_moon:", "Travel & Places"),
    ("26AB", ":black_circle:", "Symbols"),
    ("2764-FE0F", ":red_heart:", "Smileys & Emotion"),
    ("1F3FB", ":light_skin_tone:", "Component"),
]


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("get_pictures")
    sys.path.remove(str(TOOLS))


def _png(seed, size=(8, 8)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _tgz(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _deb(path, folder, files):
    control = {"DEBIAN/control": b"Package: x\nVersion: 1\nArchitecture: all\n"}
    control["DEBIAN/control"] += b"Maintainer: x <x@x.x>\nDescription: x\n"
    for name, data in {**files, **control}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    command = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", folder, path]
    subprocess.run(command, check=True, capture_output=True)


def _emoji_files():
    entries, files = [], {"package/LICENSE": b"MIT"}
    for i, (code, _, category) in enumerate(EMOJI):
        about = {"unified": code, "image": code.lower() + ".png"}
        # The new moon and the black circle are drawn alike, but for brightness.
        pixels = np.array(Image.open(io.BytesIO(_png(6 if code == "26AB" else i))))
        pixels = pixels // 2 if code == "26AB" else pixels
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files["package/img/google/64/" + about["image"]] = file.getvalue()
        if category is None:
            entries[-1]["skin_variations"] = {"1F3FD": about}
        else:
            entries.append({"name": "OLD NAME", "category": category, **about})
    files["package/emoji.json"] = json.dumps(entries).encode()
    return files


class Registry:
    """Packages of emoji that a stand-in of npm, first on the path, gives out."""

    def __init__(self, tool, folder, monkeypatch):
        self.sets = tool.SETS
        self.npm, self.pip = self.sets["emoji"].PACKAGES
        self.folder, self.patch = folder, monkeypatch
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        self.wheel = folder / "emoji-2.14.1-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            names = {}
            for code, name, _ in EMOJI:
                names["".join(chr(int(c, 16)) for c in code.split("-"))] = {"en": name}
            archive.writestr("emoji/unicode_codes/emoji.json", json.dumps(names))
        self.put(_emoji_files())

    def put(self, files):
        self.file = self.folder / "emoji-datasource-google-16.0.0.tgz"
        _tgz(self.file, files)
        self.npm_says(f"cp '{self.file}' . && echo called >> '{self.folder}/calls'")
        packages = [
            dataclasses.replace(package, sha256=_sha256(file))
            for package, file in ((self.npm, self.file), (self.pip, self.wheel))
        ]
        self.patch.setattr(self.sets["emoji"], "PACKAGES", packages)
        self.patch.setattr(self.sets["emoji"], "COUNT", len(EMOJI))

    def npm_says(self, script):
        npm = self.folder / "bin" / "npm"
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)

    @property
    def calls(self):
        path = self.folder / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def start(self, output):
        """An output folder into which a user put the wheel."""
        (output / "packages").mkdir(parents=True)
        shutil.copy(self.wheel, output / "packages")
        return output


@pytest.fixture
def registry(tool, tmp_path, monkeypatch):
    return Registry(tool, tmp_path, monkeypatch)


def _sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _rows(folder):
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    return {row["file_name"]: row for row in map(json.loads, lines)}


def _content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_emoji_become_a_folder_with_captions(tool, registry, tmp_path):
    folder = registry.start(tmp_path / "emoji")
    tool.main(["emoji", "--output", str(folder), "--all-variants"])
    rows = _rows(folder)
    texts = {row["text"]: row for row in rows.values()}
    assert set(texts) == {
        "red apple",
        "waving hand",
        "waving hand medium skin tone",
        "man singer",
        "woman singer",
        "flag of tanzania",
        "new moon",
        "black circle",
        "red heart",
    }
    apple = texts["red apple"]
    assert apple["class"] == "food_drink"
    assert apple["file_name"] == "food_drink/1f34e.png"
    assert "Google" in apple["source"]
    assert apple["license"] == "Apache-2.0"
    # Variants, and pictures that are the same but for brightness, are of one group.
    for one, other in (
        ("waving hand", "waving hand medium skin tone"),
        ("man singer", "woman singer"),
        ("new moon", "black circle"),
    ):
        assert texts[one]["group"] == texts[other]["group"]
    assert len({row["group"] for row in rows.values()}) == 6
    # The pictures are the package's, and the manifest has their checksums.
    files = _emoji_files()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["pictures"]) == set(rows)
    for name, digest in manifest["pictures"].items():
        data = (folder / name).read_bytes()
        assert data == files["package/img/google/64/" + name.split("/")[-1]]
        assert digest == hashlib.sha256(data).hexdigest()
    assert manifest["packages"][registry.file.name] == _sha256(registry.file)
    assert (folder / "licenses" / "package-LICENSE").read_text() == "MIT"
    # Training reads each picture in the split of its row.
    for split in ("train", "validation", "test"):
        meant = {name for name, row in rows.items() if row["split"] == split}
        if meant:
            source = open_source(f"folder:{folder}", split)
            assert {source[i]["caption"] for i in range(len(source))} == {
                rows[name]["text"] for name in meant
            }
    assert len(open_source(f"folder:{folder}", "all")) == len(rows)
    # Without the variants the others are where they were.
    tool.get_pictures("emoji", registry.start(tmp_path / "fewer"))
    fewer = _rows(tmp_path / "fewer")
    assert fewer == {n: r for n, r in rows.items() if "skin tone" not in r["text"]}


def test_starts_again_and_goes_on(tool, registry, tmp_path, capsys):
    folder = registry.start(tmp_path / "emoji")
    tool.get_pictures("emoji", folder)
    before = _content(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    tool.get_pictures("emoji", folder)
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    # As if it had been stopped in the middle, with the packages deleted.
    (folder / "food_drink" / "1f34e.png").unlink()
    (folder / "metadata.jsonl").unlink()
    (folder / "packages" / registry.file.name).unlink()
    tool.get_pictures("emoji", folder)
    assert _content(folder) == before
    assert registry.calls == 2
    # Captions that a user changed stay; a finished set needs no packages.
    (folder / "metadata.jsonl").write_text("{}")
    shutil.rmtree(folder / "packages")
    tool.get_pictures("emoji", folder)
    assert (folder / "metadata.jsonl").read_text() == "{}"
    assert registry.calls == 2


def _error(tool, folder, *flags):
    with pytest.raises(SystemExit) as end:
        tool.main(["emoji", "--output", str(folder), *flags])
    assert str(end.value).startswith("error: ")
    assert "\n" not in str(end.value)
    return str(end.value)


def test_nothing_of_the_user_is_overwritten(tool, registry, tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "holiday.png").write_bytes(_png(0))
    assert "holiday.png" in _error(tool, other)
    assert list(_content(other)) == ["holiday.png"]
    with pytest.raises(ValueError, match="for emoji"):
        tool.get_pictures("words", tmp_path / "words", all_variants=True)
    assert not (tmp_path / "words").exists()

    folder = registry.start(tmp_path / "emoji")
    tool.get_pictures("emoji", folder)
    assert "'all_variants': False" in _error(tool, folder, "--all-variants")
    apple = folder / "food_drink" / "1f34e.png"
    apple.write_bytes(b"painted over")
    assert "food_drink/1f34e.png" in _error(tool, folder)
    # Nor while a set is not finished yet.
    (folder / "people_body" / "1f44b.png").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["pictures"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "food_drink/1f34e.png" in _error(tool, folder)
    assert apple.read_bytes() == b"painted over"
    (folder / "manifest.json").write_text("{")
    assert "manifest.json" in _error(tool, folder)


def test_packages_that_cannot_be_had(tool, registry, tmp_path, monkeypatch):
    folder = registry.start(tmp_path / "emoji")
    registry.npm_says("echo 'npm ERR! code ENOTFOUND' >&2; touch half.tgz; exit 1")
    assert "ENOTFOUND" in _error(tool, folder)
    assert os.listdir(folder / "packages") == [registry.wheel.name]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    message = _error(tool, folder)
    assert "apt-get install npm" in message and f"{folder}/packages" in message
    # A file that was fetched elsewhere needs no client.
    shutil.copy(registry.file, folder / "packages")
    tool.get_pictures("emoji", folder)
    assert len(_rows(folder)) == len(EMOJI) - 2


def test_packages_that_are_damaged_or_new(tool, registry, tmp_path):
    folder = registry.start(tmp_path / "emoji")
    half = folder / "packages" / registry.file.name
    half.write_bytes(registry.file.read_bytes()[:300])
    message = _error(tool, folder)
    assert "damaged" in message and half.name in message
    assert half.stat().st_size == 300
    half.unlink()

    files = _emoji_files()
    for change, word in (
        ({"package/emoji.json": b"{"}, "JSON"),
        ({"package/emoji.json": b'[{"code": 1}]'}, "category"),
        ({"package/emoji.json": b"[]"}, "0 pictures"),
    ):
        registry.put(files | change)
        message = _error(tool, folder)
        assert "layout" in message and "16.0.0" in message and word in message
        half.unlink()
    del files["package/emoji.json"]
    registry.put(files)
    assert "package/emoji.json" in _error(tool, folder)
    half.unlink()
    # One picture that can't be read does not hold up the others.
    registry.put(_emoji_files() | {"package/img/google/64/1f34e.png": b"no picture"})
    tool.get_pictures("emoji", folder)
    assert len(_rows(folder)) == len(EMOJI) - 3
    # A file that was exchanged is not mixed with what is there.
    half.unlink()
    registry.put(_emoji_files() | {"package/img/google/64/1f34e.png": _png(0)})
    (folder / "people_body" / "1f44b.png").unlink()
    assert "not the file" in _error(tool, folder)


def _get_deb(tool, name, tmp_path, monkeypatch, files):
    packages = tmp_path / name / "packages"
    packages.mkdir(parents=True)
    package = tool.SETS[name].PACKAGES[0]
    # Another version than the tool was written for, whose checksum can't be known.
    _deb(packages / f"{package.name}_0.1_all.deb", tmp_path / f"{name}_tree", files)
    monkeypatch.setattr(tool.SETS[name], "COUNT", 2)
    tool.get_pictures(name, tmp_path / name)
    return _rows(tmp_path / name)


@needs_dpkg
def test_stamps(tool, tmp_path, monkeypatch, capsys):
    root = "usr/share/tuxpaint/stamps/"
    files = {
        root + "food/pear.png": _png(0, (6, 10)),
        root + "food/pear.txt": b"A yellow pear.\nfr.utf8=Une poire.\n",
        root + "food/cartoon/pear.png": _png(1),
        root + "food/cartoon/pear.txt": b"A yellow pear.\n",
        root + "food/silent.png": _png(2),
        root + "symbols/a.png": _png(3),
        root + "symbols/a.txt": b"The letter a.\n",
        "usr/share/doc/x/copyright": b"GPL",
    }
    rows = _get_deb(tool, "stamps", tmp_path, monkeypatch, files)
    assert "another version" in capsys.readouterr().out
    assert {name: row["text"] for name, row in rows.items()} == {
        "food/pear.png": "a yellow pear",
        "food/cartoon/pear.png": "a yellow pear, drawn",
    }
    assert len({row["group"] for row in rows.values()}) == 1
    # None of the picture is cut off when training cuts out a square.
    pear = open_source(f"folder:{tmp_path / 'stamps'}", "all")
    image = next(
        item["image"]
        for item in (pear[i] for i in range(2))
        if item["caption"] == "a yellow pear"
    )
    assert image.shape == (10, 10, 3)
    real = np.asarray(Image.open(io.BytesIO(_png(0, (6, 10)))))
    np.testing.assert_array_equal(image[:, 2:8], real)
    assert (image[:, :2] == 255).all() and (image[:, 8:] == 255).all()
    # Another Pillow wrote that square: it stays when another picture is fetched again.
    folder = tmp_path / "stamps"
    pear = folder / "food" / "pear.png"
    Image.open(pear).save(pear, compress_level=0)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["pictures"]["food/pear.png"] = _sha256(pear)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "food" / "cartoon" / "pear.png").unlink()
    assert tool.get_pictures("stamps", folder) == manifest
    assert (folder / "food" / "cartoon" / "pear.png").exists()


@needs_dpkg
def test_words_and_nebulae(tool, tmp_path, monkeypatch):
    root = "usr/share/games/pysiogame/res/images/art4apps/"
    files = {root + "food/ice_cream.jpg": _png(0), root + "food/pie.jpg": _png(1)}
    rows = _get_deb(tool, "words", tmp_path, monkeypatch, files)
    assert rows["food/ice_cream.jpg"]["text"] == "ice cream"
    assert rows["food/ice_cream.jpg"]["class"] == "food"

    root = "usr/share/stellarium/nebulae/default/"
    textures = """{"subTiles": [{"imageCredits" : {"Short": "Ann", "infoUrl": "x"},
        "imageUrl" : "n7635-vasey.png", "worldCoords" : [[[-.5, 1]]]}]}"""
    files = {
        root + "n7635-vasey.png": _png(0),
        root + "n7635.png": _png(1),
        root + "m31.png": _png(2),
        root + "sh2-106.png": _png(3),
        root + "names.dat": b'NGC  7635   _("Bubble Nebula") # SIMBAD\n',
        root + "textures.json": textures.encode(),
    }
    rows = _get_deb(tool, "nebulae", tmp_path, monkeypatch, files)
    bubble = rows["n7635-vasey.png"]
    assert bubble["text"] == "bubble nebula" and bubble["class"] == "nebula"
    assert bubble["source"].endswith("Ann")
    assert rows["m31.png"]["text"] == "messier 31"
    assert rows["sh2-106.png"]["text"] == "sh2 106"
    # Two photographs of one object are of one group.
    assert len({row["group"] for row in rows.values()}) == 3


def test_names_stay_in_the_folder(tool, tmp_path):
    with pytest.raises(ValueError, match="outside"):
        tool._write(tmp_path / "set", "../stolen.png", b"")
    assert not (tmp_path / "stolen.png").exists()


def test_groups_are_connected_components(tool):
    groups = importlib.import_module("picture_groups")
    random = np.random.default_rng(0)
    bases = [f"b{i:02}" for i in random.integers(0, 30, 40)]
    pairs = [tuple(sorted(pair)) for pair in random.integers(0, 40, (12, 2))]
    alike = np.eye(40, dtype=bool)
    for i, j in pairs:
        alike[i, j] = alike[j, i] = True
    alike |= np.equal.outer(bases, bases)
    reached = np.linalg.matrix_power(alike.astype(float), 40) > 0
    first = [min(np.array(bases)[row]) for row in reached]
    assert groups.find_groups(bases, pairs) == first

    vectors = random.normal(size=(50, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    brute = [
        (i, j)
        for i in range(50)
        for j in range(i + 1, 50)
        if vectors[i] @ vectors[j] >= 0.8
    ]
    assert sorted(groups.near_duplicates(vectors, 0.8, rows=7)) == brute
