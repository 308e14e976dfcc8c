"""Links in a set: what is outside of its folder is read only if the user asks."""

import tarfile

import pytest
from PIL import Image
from video_helpers import write_greys

from keras_mdm.data import open_source

pytestmark = pytest.mark.once


def _save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        write_greys(path, count=4, frame_rate=4)
    else:
        Image.new("RGB", (16, 16)).save(path)


@pytest.fixture(params=["folder", "clips"])
def kind(request):
    """Scheme of a source and the ending of its files."""
    return request.param, {"folder": ".png", "clips": ".mp4"}[request.param]


def _link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.fixture
def linked(tmp_path, kind):
    """A set of which some is elsewhere: its folder, and the ending of its files."""
    root, pool, ending = tmp_path / "root", tmp_path / "pool", kind[1]
    _save(root / "a" / f"own{ending}")
    _save(pool / f"1{ending}")
    _save(pool / "deep" / f"2{ending}")
    _link(root / "b" / f"1{ending}", pool / f"1{ending}")
    _link(root / "c", pool / "deep")
    _link(root / "a" / "deep", "../../pool/deep")
    _link(root / "b" / f"gone{ending}", tmp_path / "nothing")
    return root, ending


def test_links_out_of_the_folder_are_skipped_with_the_reason(linked, kind):
    root, ending = linked
    source = open_source(f"{kind[0]}:{root}", "all")
    assert [source.describe(i) for i in range(len(source))] == [f"{root}/a/own{ending}"]
    # Classes keep the numbers that they have with the links.
    assert source.class_names == ("a", "b", "c")
    names = ("a/deep", f"b/1{ending}", f"b/gone{ending}", "c")
    skipped = dict(source.skipped)
    assert skipped.keys() == {f"{root}/{name}" for name in names}
    assert all("a link out of the folder" in why for why in skipped.values())
    assert "4 of 1" in source.report() and "?links=1" in source.report()


def test_they_are_followed_on_request(linked, kind):
    root, ending = linked
    source = open_source(f"{kind[0]}:{root}?links=1", "all")
    assert [source.describe(i) for i in range(len(source))] == [
        f"{root}/{name}{ending}" for name in ("a/own", "b/1", "c/2")
    ]
    assert [source[i]["label"] for i in range(3)] == [0, 1, 2]
    assert f"gone{ending} (leads to no regular file)" in source.report()


def test_links_within_the_folder_and_the_folder_itself_may_be_links(tmp_path, kind):
    scheme, ending = kind
    _save(tmp_path / "root" / "a" / f"1{ending}")
    _link(tmp_path / "root" / "b", "a")
    _link(tmp_path / "set", tmp_path / "root")
    source = open_source(f"{scheme}:{tmp_path / 'set'}", "all")
    assert len(source) == 1 and not source.skipped
    assert "1 link(s) lead to what is read anyway" in source.report()


def test_a_set_of_links_alone_says_how_to_follow_them(tmp_path, kind):
    scheme, ending = kind
    _save(tmp_path / "pool" / f"1{ending}")
    _link(tmp_path / "root" / f"1{ending}", tmp_path / "pool" / f"1{ending}")
    with pytest.raises(ValueError, match=r"Skipped: .*'\?links=1' behind PATH"):
        open_source(f"{scheme}:{tmp_path / 'root'}", "all")


def test_captions_elsewhere_are_not_read(tmp_path):
    for name in ("root/1.png", "texts/1.png"):
        _save(tmp_path / name)
    (tmp_path / "texts" / "1.txt").write_text("secret")
    (tmp_path / "texts" / "metadata.csv").write_text("file_name,text\n1.png,secret")
    for name in ("1.txt", "metadata.csv"):
        link = tmp_path / "root" / name
        _link(link, tmp_path / "texts" / name)
        source = open_source(f"folder:{tmp_path / 'root'}", "all")
        assert not source.has_captions
        assert f"{name} (is a link out of" in source.report()
        assert open_source(f"folder:{tmp_path / 'root'}?links=1").has_captions
        link.unlink()


def test_a_folder_may_be_called_so(tmp_path):
    _save(tmp_path / "root?links=1" / "1.png")
    assert len(open_source(f"folder:{tmp_path}/root?links=1", "all")) == 1


def test_the_cache_of_the_hub_is_one_folder(tmp_path):
    """Its files are links to `blobs`, and nothing else of it is."""
    snapshot = tmp_path / "snapshots" / "abc" / "train"
    _save(tmp_path / "blobs" / "1.png")
    _save(tmp_path / "refs" / "2.png")
    _link(snapshot / "1.png", tmp_path / "blobs" / "1.png")
    _link(snapshot / "2.png", tmp_path / "refs" / "2.png")
    source = open_source(f"folder:{snapshot}", "all")
    assert [source.describe(0)] == [f"{snapshot}/1.png"] and len(source) == 1
    assert "2.png (is a link out of the folder" in source.report()


def test_shards_elsewhere_are_read_if_they_are_named(tmp_path):
    _save(tmp_path / "1.png")
    (tmp_path / "1.txt").write_text("a")
    for name in ("root/a.tar", "pool/b.tar"):
        path = tmp_path / name
        path.parent.mkdir()
        with tarfile.open(path, "w") as file:
            for member in ("1.png", "1.txt"):
                file.add(tmp_path / member, member)
    root = tmp_path / "root"
    _link(root / "b.tar", tmp_path / "pool" / "b.tar")
    source = open_source(f"webdataset:{root}", "all")
    assert len(source) == 1
    assert "1 link(s) lead out of" in source.report() and "b.tar" in source.report()
    assert len(open_source(f"webdataset:{root}/*.tar", "all")) == 2
    (root / "a.tar").unlink()
    with pytest.raises(FileNotFoundError, match="1 link.*A pattern"):
        open_source(f"webdataset:{root}", "all")


def test_libraries_do_not_follow_them_either(tmp_path, shapes_dir):
    from keras_mdm.data.descriptions import check_links

    pytest.importorskip("datasets")
    _save(tmp_path / "root" / "1.png")
    _save(tmp_path / "2.png")
    _link(tmp_path / "root" / "3.png", "1.png")
    check_links(tmp_path / "root")
    _link(tmp_path / "root" / "2.png", tmp_path / "2.png")
    with pytest.raises(ValueError, match="2.png' is a link out of the folder"):
        open_source(f"hf:{tmp_path / 'root'}")
    # A set of TFDS may lie elsewhere; parts of it may not.
    _link(tmp_path / "sets" / "shapes", shapes_dir / "shapes")
    assert len(open_source("shapes", data_dir=tmp_path / "sets")) == 24
    single = tmp_path / "others" / "shapes" / "single"
    _link(single, shapes_dir / "shapes" / "single")
    with pytest.raises(ValueError, match="single' is a link out of the folder"):
        open_source("shapes", data_dir=tmp_path / "others")
