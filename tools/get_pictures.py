"""Brings real pictures with captions, by the package clients that a machine has.

    python tools/get_pictures.py emoji --output pictures/emoji
    keras-mdm train-text --output runs/emoji --dataset folder:pictures/emoji

The folder gets the pictures; `metadata.jsonl` with a row for each (file_name, text,
class, group, split, source, license); `manifest.json` with the sha256 of all that was
fetched; `licenses/`, from the packages; `packages/`, which may be deleted in the end.

90 in a hundred pictures are for training, 5 for validation and 5 for testing: by a hash
of the name of what they show, so the split never changes. Variants of one emoji and
near-duplicates are of one group, and that is in one split.

An interrupted run goes on with the same command, and a finished one is checked. Mind
the licenses, and name the sources where you show pictures.
"""

import hashlib
import io
import json
import pathlib
import sys

import numpy as np
import picture_groups
import picture_packages
from picture_sets import SETS
from shared import errors_as_lines, make_parser

from keras_mdm.data.folders import split_of
from keras_mdm.data.pictures import open_picture, read_picture
from keras_mdm.data.source import UnusablePicture
from keras_mdm.files import whole_file, write_text
from keras_mdm.text_files import printable

MANIFEST, METADATA = "manifest.json", "metadata.jsonl"
# From this correlation on two pictures differ in a detail that 32 pixels hardly show.
NEAR = 0.97


def get_pictures(name, folder, all_variants=False):
    """Brings a set into a folder, or what of it is not there yet.

    Args:
        name: str. Key of `SETS`.
        folder: Path.
        all_variants: bool. Whether emoji come in all skin colors.

    Returns:
        The manifest, a dict.

    Raises:
        ValueError: If the folder holds anything else, or a package or picture is not
            what it should be.
        OSError: If a package can't be had.
    """
    if all_variants and name != "emoji":
        raise ValueError(f"--all-variants is for emoji. Received: {name}")
    manifest = _open_manifest(folder, {"set": name, "all_variants": all_variants})
    if "pictures" in manifest and _is_whole(folder, manifest):
        return manifest
    pictures_set = SETS[name]
    files = {}
    for package in pictures_set.PACKAGES:
        file = picture_packages.fetch(package, folder / "packages")
        digest = picture_packages.sha256(file)
        if manifest["packages"].setdefault(file.name, digest) != digest:
            raise ValueError(
                f"'{file}' is not the file that this set was made of, as '{MANIFEST}' "
                "has its checksum. Delete it, or give another --output."
            )
        files |= picture_packages.read(
            file, lambda path: _is_license(path) or pictures_set.wanted(path)
        )
    pictures, thumbnails = _decode(_read_set(pictures_set, files))
    _write_json(folder / MANIFEST, manifest)
    groups = picture_groups.find_groups(
        [picture.base for picture, _ in pictures],
        picture_groups.near_duplicates(thumbnails, NEAR),
    )
    for path, data in files.items():
        if _is_license(path):
            _write(folder, "licenses/" + "-".join(path.split("/")[-2:]), data)
    rows, digests, known = [], {}, manifest.get("pictures", {})
    for (picture, data), group in zip(_bar(pictures, "writing"), groups, strict=True):
        # They were grouped with the others: no flag changes the split of a picture.
        if picture.is_variant and not all_variants:
            continue
        file = picture.name
        digests[file] = _write(folder, file, data, known.get(file))
        row = {"file_name": file, "text": picture.text, "class": picture.kind}
        row |= {"group": group, "split": split_of(group)}
        rows.append(row | {"source": picture.source, "license": picture.license})
    if not (folder / METADATA).exists():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write(folder, METADATA, "".join(lines).encode())
    # Last: a manifest that names pictures tells that all of them are there.
    manifest["pictures"] = digests
    _write_json(folder / MANIFEST, manifest)
    return manifest


def _open_manifest(folder, about):
    """The manifest of a folder, which is made if there is none."""
    path = folder / MANIFEST
    if path.is_file():
        try:
            manifest = json.loads(path.read_text("utf-8"))
            found = {key: manifest[key] for key in about}
            manifest["packages"].items()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"'{path}' is damaged, or of another tool.") from error
        if found != about:
            raise ValueError(
                f"'{folder}' holds {found}, not {about}: give another --output."
            )
        return manifest
    if folder.is_dir():
        others = sorted({file.name for file in folder.iterdir()} - {"packages"})
        if others:
            raise ValueError(
                f"'{folder}' holds other files ({printable(', '.join(others[:5]))}): "
                "--output must be new, empty, or a folder of this tool."
            )
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {**about, "packages": {}}
    _write_json(path, manifest)
    return manifest


def _is_whole(folder, manifest):
    """Whether all pictures of a finished set are there; they are checked."""
    missing = 0
    for name, digest in _bar(manifest["pictures"].items(), "checking"):
        file = folder / name
        if not file.exists():
            missing += 1
        elif picture_packages.sha256(file) != digest:
            raise ValueError(_changed(file))
    return not missing and (folder / METADATA).exists()


def _changed(file):
    return (
        f"'{file}' is not what its package has: damaged, or changed since. It is left "
        "as it is; delete it to get it again."
    )


def _read_set(pictures_set, files):
    """The pictures of a set, if the packages still look as they did."""
    packages = " or ".join(f"{p.name} {p.version}" for p in pictures_set.PACKAGES)
    what = f"The layout is not that of {packages}"
    try:
        pictures = list(pictures_set.read(files))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{what}: {error!r}.") from error
    if len(pictures) < pictures_set.COUNT // 2:
        raise ValueError(
            f"{what}: {len(pictures)} pictures with a text were found, not about "
            f"{pictures_set.COUNT}."
        )
    return pictures


def _decode(pictures):
    """Pairs of picture and the bytes of its file, and their thumbnails."""
    readable, thumbnails = [], []
    for picture in _bar(pictures, "reading"):
        try:
            pixels = read_picture(io.BytesIO(picture.data), picture.name)
        except UnusablePicture as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        square = pixels.shape[0] == pixels.shape[1]
        readable.append((picture, picture.data if square else _squared(picture.data)))
        thumbnails.append(picture_groups.thumbnail(pixels))
    return readable, np.stack(thumbnails)


def _squared(data):
    """A picture in the middle of a transparent square: training cuts none of it off."""
    from PIL import Image

    picture = open_picture(io.BytesIO(data)).convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    left, top = (side - picture.width) // 2, (side - picture.height) // 2
    square.paste(picture, (left, top))
    file = io.BytesIO()
    square.save(file, "PNG")
    return file.getvalue()


def _is_license(path):
    name = path.rsplit("/", 1)[-1].lower()
    return name.startswith(("copyright", "license", "credits.txt"))


def _write(folder, name, data, known=None):
    """Writes a file unless it is there, whole or not at all; returns its sha256.

    One that is there may have the sha256 that is known: another version of Pillow
    writes the same picture differently.
    """
    if ".." in name.split("/") or name.startswith("/"):
        raise ValueError(f"A package has a picture outside its folder: '{name}'.")
    file = folder / name
    digest = hashlib.sha256(data).hexdigest()
    if file.exists():
        found = picture_packages.sha256(file)
        if found not in (digest, known):
            raise ValueError(_changed(file))
        return found
    with whole_file(file) as temporary:
        temporary.write_bytes(data)
    return digest


def _write_json(path, value):
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def _bar(items, doing):
    from tqdm import tqdm

    return tqdm(items, desc=doing, unit=" pictures", disable=None)


def main(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    about = "; ".join(f"{name}: {found.ABOUT}" for name, found in SETS.items())
    add("set", choices=SETS, help=about)
    add("--output", required=True, help="folder of the set")
    add(
        "--all-variants",
        action="store_true",
        help="emoji of people and hands in five more skin colors, 1,875 pictures",
    )
    given = parser.parse_args(arguments)
    folder = pathlib.Path(given.output).expanduser()
    with errors_as_lines():
        try:
            manifest = get_pictures(given.set, folder, given.all_variants)
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on.", file=sys.stderr)
            sys.exit(130)
    count = len(manifest["pictures"])
    print(f"{count} pictures with captions. Train with\n  --dataset folder:{folder}")


if __name__ == "__main__":
    main()
