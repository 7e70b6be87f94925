import os
import tarfile
import zipfile

import pytest

import lab_trees
from lab_corpus import write_corpus

pytest.importorskip("pydantic")
from faceauth.errors import DataError, ImageError, UsageError
from faceauth.lab.data import importers
from faceauth.lab.data.archives import listing
from faceauth.lab.data.importers import find


def names(found):
    return sorted(item.name for item in found.items)


def one(name, place, scratch):
    (found,) = find(name, str(place), scratch)
    return found


def test_celebahq_is_its_two_folders(tmp_path):
    root = lab_trees.celebahq(tmp_path / "celebahq256_imgs")
    lab_trees.put(root, "contact-sheet.jpg", b"no matter")
    found = one("celebahq256_imgs", root, tmp_path)
    assert (found.source, found.label, found.family, len(found.items)) == ("celebahq256_imgs", "real", "real", 6)
    assert found.dropped == {"outside train/ and valid/": 1}
    assert found.missing == []
    assert names(one("celebahq256_imgs", tmp_path, tmp_path)) == names(found), "the folder above does as well"


def test_celebahq_says_which_folder_is_missing(tmp_path):
    root = lab_trees.celebahq(tmp_path / "c")
    for path in (root / "valid").iterdir():
        path.unlink()
    found = one("celebahq256_imgs", root, tmp_path)
    assert len(found.items) == 4
    assert "missing the folder valid/" in found.line()


def test_wiki_drops_what_its_scores_say(tmp_path):
    root = lab_trees.wiki(tmp_path / "wiki", 8, faceless={1, 5}, several={2})
    lab_trees.put(root, "00/123_1950-01-01_1990.jpg", lab_trees.picture(1))
    (root / lab_trees.wiki_names(8)[7]).unlink()
    found = one("wiki", root, tmp_path)
    kept = [lab_trees.wiki_names(8)[i] for i in (0, 3, 4, 6)]
    assert names(found) == sorted(kept)
    assert +found.dropped == {"without a face": 2, "with several faces": 1, "not in wiki.mat": 1}
    assert found.missing == ["1 images that wiki.mat names"]


def test_wiki_without_its_scores_says_so(tmp_path):
    found = one("wiki", lab_trees.wiki(tmp_path / "wiki", 4, mat=False), tmp_path)
    assert len(found.items) == 4
    assert "wiki.mat" in found.line()


def test_a_wiki_archive_carries_its_scores(tmp_path):
    lab_trees.wiki_mat(tmp_path / "wiki.mat", lab_trees.wiki_names(4), faceless={0})
    files = {f"wiki_crop/{n}": lab_trees.picture(i) for i, n in enumerate(lab_trees.wiki_names(4))}
    files["wiki_crop/wiki.mat"] = (tmp_path / "wiki.mat").read_bytes()
    found = one("wiki", lab_trees.as_tar(tmp_path / "wiki_crop.tar", files), tmp_path)
    assert len(found.items) == 3
    assert found.dropped["without a face"] == 1


def test_a_broken_wiki_mat_is_one_line(tmp_path):
    root = lab_trees.wiki(tmp_path / "wiki", 2, mat=False)
    (root / "wiki.mat").write_bytes(b"MATLAB 5.0 or so")
    with pytest.raises(DataError, match=r"wiki\.mat is not the wiki\.mat"):
        find("wiki", str(root), tmp_path)


def test_a_photo_and_its_fakes_are_one_group(tmp_path):
    every = lab_trees.wiki_names(4)
    real = one("wiki", lab_trees.wiki(tmp_path / "wiki", 4), tmp_path)
    zipped = lab_trees.as_zip(tmp_path / "text2img.zip", {f"text2img/{n}": lab_trees.picture(9) for n in every})
    text2img = one("text2img", zipped, tmp_path)
    folder = tmp_path / "insight"
    for name in every:
        lab_trees.put(folder, name, lab_trees.picture(3))
    insight = one("insight", folder, tmp_path)
    groups = [{os.path.basename(i.name): i.group for i in found.items} for found in (real, text2img, insight)]
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[0].values())) == 2, "two photos of each person are tied too"
    assert [f.family for f in (real, text2img, insight)] == ["real", "diffusion", "swap"]


@pytest.mark.parametrize(
    ("name", "mode"), [("1m_faces_00.tar", "w"), ("1m_faces_00.tar.gz", "w:gz"), ("1m_faces_00.tar.xz", "w:xz")]
)
@pytest.mark.parametrize("spelling", ["lm_faces_00", "1m_faces_00"])
def test_fake_faces_in_a_tar_are_read_where_they_lie(tmp_path, name, mode, spelling):
    files = lab_trees.faces_of(3, 50, "1m_faces_00/")
    lab_trees.as_tar(tmp_path / name, files, mode)
    found = one(spelling, tmp_path, tmp_path / "scratch")
    assert found.source == "1m_faces_00"
    assert {item.name: item.read() for item in found.items} == files
    assert found.items[0].origin.startswith(f"{tmp_path / name}!/1m_faces_00/")


def test_other_archives_of_fake_faces_have_names_of_their_own(tmp_path):
    lab_trees.as_tar(tmp_path / "1m_faces_07.tar", lab_trees.faces_of(2, 50, "1m_faces_07/"))
    assert one("1m_faces_07", tmp_path / "1m_faces_07.tar", tmp_path).source == "1m_faces_07"


def test_ifakefacedb_is_laundered(tmp_path):
    files = lab_trees.faces_of(2, 5, "iFakeFaceDB/") | {"iFakeFaceDB/readme.txt": b"hello"}
    found = one("iFakeFaceDB", lab_trees.as_zip(tmp_path / "iFakeFaceDB.zip", files), tmp_path)
    assert (found.family, len(found.items)) == ("laundered", 2)
    assert found.licence


def test_a_folder_with_a_table_is_all_its_sources(tmp_path):
    found = find("corpus", str(write_corpus(tmp_path / "c", count=6)), tmp_path)
    assert {f.source: (f.label, f.family, len(f.items)) for f in found} == {
        "cam-a": ("real", "real", 6), "cam-b": ("real", "real", 6), "gan-a": ("fake", "gan", 6), "gan-b": ("fake", "gan", 6),
    }  # fmt: skip
    assert {i.group for i in found[0].items} == {"corpus:person-0", "corpus:person-1"}


def test_a_named_folder_needs_a_class(tmp_path):
    lab_trees.plain(tmp_path / "x", 2, 0)
    assert one("my-gan", f"{tmp_path / 'x'}:fake", tmp_path).label == "fake"
    with pytest.raises(UsageError, match="my-gan=.*:real or :fake"):
        find("my-gan", str(tmp_path / "x"), tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"), [("wikki", "wiki"), ("text2image", "text2img"), ("ifakefacedb", "iFakeFaceDB")]
)
def test_a_near_miss_is_suggested(tmp_path, typed, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        find(typed, str(tmp_path), tmp_path)


def test_a_known_source_cannot_change_its_class(tmp_path):
    with pytest.raises(UsageError, match="text2img is fake, not real"):
        find("text2img", f"{tmp_path}:real", tmp_path)


@pytest.mark.parametrize("name", ["a/b", "..", "a\\b", "", "a.", "-x", "a:b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    lab_trees.plain(tmp_path / "x", 1, 0)
    with pytest.raises(UsageError):
        find(name, f"{tmp_path / 'x'}:fake", tmp_path)


def test_an_empty_source_names_what_was_expected(tmp_path):
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match=r"0 images.*NN/<id>_<birth>_<year>"):
        find("insight", str(tmp_path / "e"), tmp_path)
    with pytest.raises(DataError, match="no such folder or archive"):
        find("insight", str(tmp_path / "nowhere"), tmp_path)


def test_a_broken_archive_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=r"cannot read .*a\.tar"):
        find("x", f"{tmp_path / 'a.tar'}:fake", tmp_path)


def test_members_that_lead_outside_are_never_taken(tmp_path):
    data = lab_trees.picture(1)
    bad = {"../evil.jpg": data, "/etc/evil.jpg": data, "a/../../evil.jpg": data, "C:\\evil.jpg": data}
    zipped = listing(lab_trees.as_zip(tmp_path / "a.zip", bad | {"ok.jpg": data}), tmp_path)
    tarred = listing(lab_trees.as_tar(tmp_path / "a.tar", bad | {"ok.jpg": data}), tmp_path)
    for found in (zipped, tarred):
        assert [i.name for i in found.items] == ["ok.jpg"]
        assert found.dropped == {"unsafe member names": 4}


def test_links_are_never_followed(tmp_path):
    root, outside = tmp_path / "in", lab_trees.plain(tmp_path / "out", 2, 0)
    lab_trees.plain(root, 1, 0)
    (root / "link.png").symlink_to(outside / "000.png")
    (root / "folder").symlink_to(outside)
    found = listing(root, tmp_path)
    assert [i.name for i in found.items] == ["000.png"]
    assert found.dropped == {"symbolic links": 1, "linked folders": 1}
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        info = tarfile.TarInfo("x.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert listing(tmp_path / "l.tar", tmp_path).dropped == {"symbolic links": 1}


def test_a_file_swapped_for_a_link_is_not_read(tmp_path):
    (item,) = listing(lab_trees.plain(tmp_path / "x", 1, 0), tmp_path).items
    (tmp_path / "x" / "000.png").unlink()
    (tmp_path / "x" / "000.png").symlink_to("/etc/passwd")
    with pytest.raises(ImageError, match="not a regular file"):
        item.read()


def test_a_member_larger_than_the_limit_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(3_000_000))
    (item,) = listing(tmp_path / "bomb.zip", tmp_path).items
    with pytest.raises(ImageError, match="more than the limit"):
        item.read(limit=1_000_000)


def test_a_damaged_member_is_an_unreadable_image(tmp_path):
    path = lab_trees.as_zip(tmp_path / "a.zip", {"a.jpg": lab_trees.picture(1)})
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    (item,) = listing(path, tmp_path).items
    with pytest.raises(ImageError):
        item.read()


def test_the_hub_is_asked_for_one_file(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        lab_trees.as_zip(tmp_path / "text2img.zip", {f"text2img/{lab_trees.wiki_names(1)[0]}": lab_trees.picture(1)})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert len(one("text2img", importers.download("text2img"), tmp_path).items) == 1
    assert asked == [("OpenRL/DeepFakeFace", {"repo_type": "dataset", "allow_patterns": ["text2img.zip"]})]
    with pytest.raises(DataError, match="holds no insight"):
        importers.download("insight")


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def snapshot_download(*_, **__):
        raise ConnectionError("[Errno -2] Name or service not known\nmore of it")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError) as caught:
        importers.download("wiki")
    assert "\n" not in caught.value.message
    assert "fetch it by hand" in caught.value.hint
    with pytest.raises(UsageError, match="on the hub are wiki, text2img, inpainting, insight"):
        importers.download("iFakeFaceDB")
