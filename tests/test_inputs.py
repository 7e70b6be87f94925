"""What arguments mean: folders, globs, lists, standard input, objects; and that nothing is passed over in silence."""

import io
import os
import sys

import numpy as np
import pytest

from conftest import encoded, picture
from faceauth import inputs
from faceauth.errors import FaceAuthError, ImageError, SourceTypeError, UsageError
from faceauth.images import EncodedImage, load, shown
from faceauth.inputs import AGAIN, COMPANION, EMPTY, LOOP, NO_PICTURE, expand, references

APPLE_DOUBLE = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + b"\0" * 60


def names(found):
    return [os.path.basename(f) for f in found.references]


def test_folder_is_walked_in_order_by_content_and_the_rest_is_counted(folder):
    (folder / "notes.txt").write_text("no image")
    (folder / "no_suffix").write_bytes(encoded(picture()))
    (folder / "photo.jpg_large").write_bytes(encoded(picture(), "JPEG"))
    (folder / "a.avif").write_bytes(encoded(picture(), "AVIF"))
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 40)
    (folder / "broken.jfif").write_bytes(b"")
    (folder / "scan.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40)
    found = expand([str(folder)])
    assert names(found) == [
        "a.avif", "bright.png", "broken.jfif", "dark.jpg", "no_suffix", "photo.jpg_large", "scan.jp2", "grey.webp",
    ]  # fmt: skip
    assert found.passed_over == {NO_PICTURE: 2}
    assert found.notes() == ["2 files that are no pictures passed over"]


def test_companions_of_a_mac_are_no_pictures(folder):
    (folder / "__MACOSX").mkdir()
    for name in ("._dark.jpg", "__MACOSX/._dark.jpg", "__MACOSX/dark.jpg"):
        (folder / name).write_bytes(APPLE_DOUBLE)
    (folder / "._really.jpg").write_bytes(encoded(picture(), "JPEG"))  # a name alone makes no companion
    found = expand([str(folder)])
    assert names(found) == ["._really.jpg", "bright.png", "dark.jpg", "grey.webp"]
    assert found.passed_over == {COMPANION: 3}


@pytest.mark.parametrize("argument", ["", "**/*", "**", "**/*.*"])
def test_links_are_followed_and_do_not_go_in_circles(folder, tmp_path_factory, argument):
    outside = tmp_path_factory.mktemp("outside")
    picture().save(outside / "elsewhere.png")
    (folder / "below" / "up").symlink_to(folder)
    (folder / "below" / "root").symlink_to("/")
    (folder / "more").symlink_to(outside)
    found = expand([os.path.join(folder, argument)])
    assert sorted(names(found)) == ["bright.png", "dark.jpg", "elsewhere.png", "grey.webp"]
    assert found.passed_over[LOOP] == 2


def test_glob_finds_below(folder):
    assert names(expand([f"{folder}/**/*.webp"])) == ["grey.webp"]
    assert names(expand([f"{folder}/*/*.webp"])) == ["grey.webp"]
    assert names(expand([f"{folder}/**/below/*"])) == ["grey.webp"]
    assert len(expand([f"{folder}/**"]).references) == 3


def test_glob_from_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert expand(["**/*.webp"]).references == [os.path.join("below", "grey.webp")]
    (folder / ".hidden").mkdir()
    picture().save(folder / ".hidden" / "x.webp")
    assert expand(["**/*.webp"]).references == [os.path.join("below", "grey.webp")]


def test_a_file_given_twice_is_judged_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "again.jpg").symlink_to("dark.jpg")
    found = expand(["dark.jpg", "./dark.jpg", str(folder / "dark.jpg"), str(folder)])
    assert found.references == ["dark.jpg", *(str(folder / n) for n in ("bright.png", "below/grey.webp"))]
    assert found.passed_over == {AGAIN: 4}
    assert "judged once" in found.notes()[0]


def test_missing_files_keep_their_rows(folder):
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    found = expand([str(folder / "missing.jpg"), str(folder)])
    assert names(found)[:1] == ["missing.jpg"] and "gone.jpg" in names(found)
    with pytest.raises(FaceAuthError, match="leads nowhere"):
        load(str(folder / "gone.jpg"))


def test_an_empty_folder_among_others_is_no_usage_error(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    found = expand([str(empty), str(folder)])
    assert len(found.references) == 3
    assert found.passed_over == {EMPTY: 1}
    (empty / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no images.*1 file that is no picture.*JPEG"):
        expand([str(empty)])


@pytest.mark.slow
def test_folders_a_thousand_deep(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # deeper than a path may be long, and than Python may recurse
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    picture().save(tmp_path / "z.png")
    found = expand([str(tmp_path)])
    assert "z.png" in names(found)
    os.system(f"rm -rf '{tmp_path}/deep'")


@pytest.mark.parametrize("argument", ["no/*.jpg", "@no-such-list", "-"])
def test_what_names_nothing_is_a_usage_error(argument):
    with pytest.raises(UsageError):
        expand([argument], io.BytesIO(b""))


def test_no_path_starts_like_a_formula(folder, monkeypatch):
    monkeypatch.chdir(folder)
    picture().save("=cmd.png")
    assert expand(["=cmd.png"]).references == [f".{os.sep}=cmd.png"]
    assert load(expand(["=cmd.png"]).references[0]).image.size == (96, 96)


def test_a_home_in_an_argument(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert expand(["~/dark.jpg"]).references == [str(folder / "dark.jpg")]


# ---------------------------------------------------------------- lists and standard input


def test_list_file_with_lines_or_nuls(folder):
    paths = [str(folder / "bright.png"), str(folder / "with\nnewline.png")]
    (folder / "lines").write_text(paths[0] + "\r\n\n")
    (folder / "nuls").write_bytes("\0".join(paths).encode())
    assert expand([f"@{folder}/lines"]).references == paths[:1]
    assert expand([f"@{folder}/nuls"]).references == paths


@pytest.mark.parametrize("how", ["file", "stdin"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "utf-16-le"])
def test_encodings_of_a_list(folder, encoding, how, monkeypatch):
    monkeypatch.chdir(folder)
    picture().save("Zoë 照片.png")
    text = "dark.jpg\r\nZoë 照片.png\r\n"
    data = ("\ufeff" + text).encode("utf-16-be") if encoding == "utf-16-be-bom" else text.encode(encoding)
    (folder / "list").write_bytes(data)
    found = expand(["@list"]) if how == "file" else expand(["-"], io.BytesIO(data))
    assert found.references == ["dark.jpg", "Zoë 照片.png"]


@pytest.mark.parametrize("line", [
    b'"dark.jpg"', b"'dark.jpg'", b"  dark.jpg  ", b"# a batch of today\ndark.jpg", b"~/dark.jpg", b"file://{}/dark.jpg",
    b"\n\n./dark.jpg\t\n",
])  # fmt: skip
def test_lines_that_people_write(folder, line, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "list.txt").write_bytes(line.replace(b"{}", os.fsencode(folder)))
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))  # relative paths may start from the list's folder
    found = expand([f"@{folder}/list.txt"]).references
    assert [os.path.normpath(f) for f in found] == [str(folder / "dark.jpg")]


def test_names_that_look_like_syntax_are_names_where_they_exist(folder, monkeypatch):
    monkeypatch.chdir(folder)
    odd = ['"a".png', "# 1.png", " blank .png", "[x]%20.png"]
    for name in odd:
        (folder / name).write_bytes(encoded(picture()))
    (folder / "list").write_text("\n".join(odd))
    assert expand(["@list"]).references == odd
    assert expand(odd).references == odd


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="names are text there")
def test_names_in_any_bytes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    name = b"caf\xe9 \xff.png"
    with open(name, "wb") as file:
        file.write(encoded(picture()))
    for data in (name + b"\n", name + b"\0"):
        found = expand(["-"], io.BytesIO(data)).references
        assert [os.fsencode(f) for f in found] == [name]
        assert load(found[0]).image.size == (96, 96)


def test_stdin_is_an_image_or_a_list():
    data = encoded(picture())
    assert expand(["-"], io.BytesIO(data)).references == [data]
    assert expand(["-"], io.BytesIO(b"a.jpg\nb.jpg\n")).references == ["a.jpg", "b.jpg"]
    for format in ("AVIF", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        data = encoded(picture(), format)
        assert expand(["-"], io.BytesIO(data)).references == [data]


def test_junk_on_stdin_is_no_list_of_paths():
    junk = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
    found = expand(["-"], io.BytesIO(junk)).references
    assert found == [junk]


def test_an_image_is_no_list(folder):
    with pytest.raises(UsageError, match="without the @"):
        expand([f"@{folder}/dark.jpg"])


# ---------------------------------------------------------------- objects of Python


def test_references_flatten_what_is_given(folder):
    array = np.zeros((4, 4, 3), np.uint8)
    assert len(list(references([folder, array, encoded(picture())]))) == 5


def test_an_open_file_is_an_image(folder):
    with open(folder / "dark.jpg", "rb") as file:
        (found,) = references(file)
    assert load(found).path == shown(found) == str(folder / "dark.jpg")
    (found,) = references(io.BytesIO(encoded(picture())))
    assert load(found).path == "-" and load(found).image.size == (96, 96)
    with open(folder / "dark.jpg", encoding="latin-1") as file, pytest.raises(SourceTypeError, match="'rb'"):
        list(references(file))


def test_the_datasets_library_form(folder):
    data = encoded(picture())
    (found,) = references({"bytes": data, "path": "set/1.png"})
    assert (load(found).path, load(found).data) == ("set/1.png", data)
    assert list(references({"bytes": None, "path": str(folder / "dark.jpg")})) == [str(folder / "dark.jpg")]
    assert [load(f).path for f in references([{"bytes": data, "path": None}] * 2)] == ["-", "-"]
    with pytest.raises(SourceTypeError, match="row"):
        list(references({"image": data}))


@pytest.mark.parametrize("given", [None, 5, [None], [5], object(), 1.5, np.array(5), np.array(None)])
def test_what_is_no_image_is_a_type_error_of_ours(given):
    with pytest.raises(TypeError) as caught:
        list(references(given))
    assert isinstance(caught.value, FaceAuthError) and "no image" in str(caught.value)
    with pytest.raises(TypeError, match="no image"):
        load(5)


def test_a_closed_file_is_a_type_error_of_ours(folder):
    with open(folder / "dark.jpg", "rb") as file:
        pass
    with pytest.raises(SourceTypeError, match="closed"):
        list(references(file))


def test_series_and_arrays_of_paths_are_walked(folder):
    paths = [str(folder / "dark.jpg"), str(folder / "bright.png")]
    assert list(references(np.array(paths))) == paths
    assert list(references(np.array(paths, object))) == paths

    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.array(paths, object)

        def __iter__(self):
            return iter(paths)

    assert list(references(Series())) == paths


def test_a_tensor_is_an_array():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.full((16, 16, 3), 7, np.uint8)

        def __iter__(self):
            raise AssertionError("a tensor's rows are no images")

    (found,) = references(Tensor())
    assert load(found).image.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(("array", "advice"), [
    (np.zeros((16, 16, 3)), "* 255"),
    (np.zeros((3, 16, 16), np.uint8), "transpose(1, 2, 0)"),
    (np.zeros((3, 16, 16), np.float32), "transpose(1, 2, 0); then (array * 255)"),
    (np.zeros((16, 16, 4), np.uint8), "array[..., :3]"),
    (np.zeros((16, 16, 3), np.uint16), "/ 257"),
    (np.zeros((2, 16, 16, 3), np.uint8), "list(array)"),
    (np.zeros((16, 16, 1), np.uint8), "array[..., 0]"),
    (np.zeros((16, 16), bool), "* 255"),
    (np.zeros((16, 16, 3), np.int64), "astype('uint8')"),
])  # fmt: skip
def test_arrays_of_another_kind_say_what_to_give(array, advice):
    with pytest.raises(FaceAuthError) as caught:
        load(array)
    assert advice in str(caught.value) and "RGB order" in str(caught.value)


def test_an_encoded_image_crosses_processes():
    import pickle

    image = EncodedImage(encoded(picture()), "a.png")
    assert pickle.loads(pickle.dumps(image)) == image
    assert inputs.harmless("-") == "-"


@pytest.mark.parametrize("given", ["{}", "{}/**/*.png"])
def test_a_folder_that_may_not_be_opened_is_a_row(folder, monkeypatch, given):
    (folder / "locked").mkdir()
    scandir, access = os.scandir, os.access

    def denied(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # root may open everything, so no mode would do
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("locked") and access(path, mode))
    found = expand([given.format(folder)])
    assert "locked" in names(found)
    with pytest.raises(ImageError, match="a folder that may not be opened"):
        load(str(folder / "locked"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes of this kind")
def test_a_pipe_given_by_name_is_met_with_what_to_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"not a regular file .*\| faceauth detect -"):
        load(str(tmp_path / "pipe"))


def test_a_glob_is_what_it_is_where_a_shell_expands_it(tmp_path):
    for name in ("trip-1", "trip-2", "trip-none"):
        (tmp_path / name).mkdir()
    for name in ("trip-1/a.png", "trip-2/b.png"):
        picture().save(tmp_path / name)
    found = expand([f"{tmp_path}/trip-*"])
    assert (names(found), found.passed_over) == (["a.png", "b.png"], {EMPTY: 1})
    (tmp_path / "list.txt").write_text("trip-none\n")
    for given in (f"{tmp_path}/*none", f"@{tmp_path}/list.txt"):
        with pytest.raises(UsageError, match="no images in"):
            expand([given])
