"""The sets of `get_pictures.py`: their packages, and where pictures and texts lie.

A set is a class with `PACKAGES`; `ABOUT`, a line of help; `COUNT`, how many pictures
the versions named there have; `wanted(path)`, which files of its packages it reads; and
`read(files)`, which makes `Picture`s of them.
"""

import dataclasses
import json
import pathlib
import re

from picture_packages import Package


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of a set, as its package has it.

    Attributes:
        name: str. Path of its file in the set's folder.
        text: str. The caption.
        kind: str. The class.
        base: str. What it has in common with its variants, which share its split.
        source: str. Where it is from: package, and file or author.
        license: str.
        data: bytes. The file.
        is_variant: bool. Whether it is one in another color, for `--all-variants`.
    """

    name: str
    text: str
    kind: str
    base: str
    source: str
    license: str
    data: bytes
    is_variant: bool = False


class Emoji:
    """Emoji by Google, at 64 pixels."""

    ABOUT = "emoji drawn by Google, 64 pixels"
    COUNT = 3781
    PACKAGES = (
        Package(
            "npm",
            "emoji-datasource-google",
            "16.0.0",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            74,
        ),
        # Names as people say them: the other package has Unicode's of 1993, where a red
        # heart is called black.
        Package(
            "pip",
            "emoji",
            "2.14.1",
            "35a8a486c1460addb1499e3bf7929d3889b2e2841a57401903699fef595e942b",
            1,
        ),
    )
    _LIST = "package/emoji.json"
    _NAMES = "emoji/unicode_codes/emoji.json"
    _FOLDER = "package/img/google/64/"

    @classmethod
    def wanted(cls, path):
        return path in (cls._LIST, cls._NAMES) or path.startswith(cls._FOLDER)

    @classmethod
    def read(cls, files):
        names = {_plain(text): about["en"] for text, about in _json(files, cls._NAMES)}
        for entry in _json(files, cls._LIST):
            if entry["category"] == "Component":
                continue  # Patches of skin color.
            for variant in (entry, *entry.get("skin_variations", {}).values()):
                code, path = variant["unified"], cls._FOLDER + variant["image"]
                if path not in files:
                    continue
                name = names.get(
                    _plain("".join(chr(int(c, 16)) for c in code.split("-")))
                )
                text = (name or variant.get("name") or entry["name"]).strip(":")
                text = text.replace("_", " ").lower()
                if entry["category"] == "Flags" and "flag" not in text:
                    text = f"flag of {text}"
                kind = _slug(entry["category"])
                yield Picture(
                    f"{kind}/{variant['image']}",
                    text,
                    kind,
                    cls._base(code),
                    f"npm emoji-datasource-google, {variant['image']}: Noto Emoji by "
                    "Google",
                    "Apache-2.0",
                    files[path],
                    is_variant=variant is not entry,
                )

    @staticmethod
    def _base(code):
        """The code points without skin color and gender."""
        code = re.sub(r"-(1F3F[B-F]|FE0F|200D-264[02])", "", code)
        return "emoji " + re.sub("1F46[89]", "1F9D1", code)


class Stamps:
    """Cut-out photographs and drawings of Tux Paint."""

    ABOUT = "photographs and drawings of things, cut out, about 130 pixels"
    COUNT = 538
    PACKAGES = (
        Package(
            "apt",
            "tuxpaint-stamps-default",
            "2022.06.04-1",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            161,
        ),
    )
    _FOLDER = "usr/share/tuxpaint/stamps/"

    @classmethod
    def wanted(cls, path):
        return path.startswith(cls._FOLDER) and path.endswith((".png", ".txt"))

    @classmethod
    def read(cls, files):
        for path, data in files.items():
            if not path.endswith(".png"):
                continue
            place = pathlib.PurePosixPath(path.removeprefix(cls._FOLDER))
            # Letters and signs say nothing about a language of things.
            caption = files.get(path.removesuffix(".png") + ".txt")
            if place.parts[0] == "symbols" or caption is None:
                continue
            # The first line is English; the others are translations.
            text = caption.decode("utf-8", "replace").split("\n")[0].strip(" .").lower()
            if not text:
                continue
            base = f"stamp {text}"
            if "cartoon" in place.parts:
                text += ", drawn"
            yield Picture(
                place.as_posix(),
                text,
                place.parts[0],
                base,
                f"Debian tuxpaint-stamps-default, {place}: Tux Paint stamps",
                "GPL-2.0",
                data,
            )


class Words:
    """Drawings of words for children."""

    ABOUT = "drawings of words for children, 200 pixels"
    COUNT = 585
    PACKAGES = (
        Package(
            "apt",
            "pysiogame",
            "4.20.01-1",
            "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
            16,
        ),
    )
    _FOLDER = "usr/share/games/pysiogame/res/images/art4apps/"

    @classmethod
    def wanted(cls, path):
        return path.startswith(cls._FOLDER) and path.endswith(".jpg")

    @classmethod
    def read(cls, files):
        for path, data in files.items():
            if not path.endswith(".jpg"):
                continue
            place = pathlib.PurePosixPath(path.removeprefix(cls._FOLDER))
            text = place.stem.replace("_", " ")
            yield Picture(
                place.as_posix(),
                text,
                place.parts[0],
                f"word {text}",
                f"Debian pysiogame, {place}: Art4Apps by Smart4Kids, art4apps.org",
                # As CREDITS.txt of the package says.
                "CC-BY-SA",
                data,
            )


class Nebulae:
    """Photographs of the sky that Stellarium shows."""

    ABOUT = "photographs of nebulae, galaxies and star clusters, 128 to 2048 pixels"
    COUNT = 555
    PACKAGES = (
        Package(
            "apt",
            "stellarium-data",
            "0.22.2-1",
            "45aaebf39a814acbd6dcccea058c2f5651bcb5635599da03a215feeb51f4d5a5",
            246,
        ),
    )
    _FOLDER = "usr/share/stellarium/nebulae/default/"
    # How file names begin, and the catalog as names.dat calls it.
    _CATALOGS = {
        "n": "NGC",
        "m": "M",
        "ic": "IC",
        "sh2-": "SH2",
        "u": "UGC",
        "p": "PGC",
        "barnard": "B",
        "rcw": "RCW",
        "abell": "ACO",
        "ldn": "LDN",
        "lbn": "LBN",
        "vdb": "VDB",
    }

    @classmethod
    def wanted(cls, path):
        return path.startswith(cls._FOLDER) and path.endswith(
            (".png", "/names.dat", "/textures.json")
        )

    @classmethod
    def read(cls, files):
        names, credits = cls._read_names(files), cls._read_credits(files)
        for path, data in files.items():
            if not path.endswith(".png"):
                continue
            file = path.removeprefix(cls._FOLDER)
            stem = file.removesuffix(".png")
            found = re.match(r"(sh2-|[a-z]+)(\d+)", stem)
            key = (cls._CATALOGS.get(found[1]), found[2]) if found else None
            text = re.sub(r"[-_]+", " ", stem).lower()
            if key and key[0]:
                text = names.get(key) or " ".join(key).lower().replace("m ", "messier ")
            kinds = ("galaxy", "nebula", "cluster")
            author = credits.get(file, "no credit given")
            yield Picture(
                file,
                text,
                next((kind for kind in kinds if kind in text), "other"),
                "sky " + (found[0] if found else stem),
                f"Debian stellarium-data, {file}: {author}",
                "differs by author: licenses/stellarium-data",
                data,
            )

    @classmethod
    def _read_names(cls, files):
        """The first name of each object in names.dat, by catalog and number."""
        names = {}
        text = _text(files, cls._FOLDER + "names.dat")
        for found in re.finditer(
            r'^(\w+)\s+(\w+)\s+_\("([^"]+)"\)', text, re.MULTILINE
        ):
            names.setdefault((found[1], found[2]), found[3].lower())
        return names

    @classmethod
    def _read_credits(cls, files):
        """Authors by file; textures.json has numbers that JSON does not allow."""
        text = _text(files, cls._FOLDER + "textures.json")
        pairs = re.finditer(
            r'"imageCredits"\s*:\s*\{\s*"[Ss]hort"\s*:\s*"([^"]*)"[^}]*\}\s*,\s*'
            r'"imageUrl"\s*:\s*"([^"]+)"',
            text,
        )
        return {found[2]: found[1] for found in pairs}


SETS = {"emoji": Emoji, "stamps": Stamps, "words": Words, "nebulae": Nebulae}


def _slug(text):
    return "_".join(re.findall(r"[a-z]+", text.lower()))


def _plain(text):
    """Without the mark that asks for a picture, which is left out at times."""
    return text.replace("\ufe0f", "")


def _text(files, path):
    return files[path].decode("utf-8")


def _json(files, path):
    """Items of a JSON object, or elements of a list."""
    value = json.loads(_text(files, path))
    return value.items() if isinstance(value, dict) else value
