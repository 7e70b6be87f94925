import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from conftest import encoded, noise, picture
from faceauth.errors import ImageError
from faceauth.images import Limits, decode, load
from image_files import heic, linear_profile, preview_first


@pytest.mark.parametrize(("format", "options"), [
    ("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {}), ("GIF", {}),
])  # fmt: skip
def test_every_format_gives_the_same_pixels(format, options):
    pixels = np.asarray(decode(encoded(picture((10, 200, 90)), format, **options)), int)
    assert pixels.shape == (96, 96, 3)
    assert np.abs(pixels - (10, 200, 90)).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_a_file_of_several_pictures_says_that_the_first_was_judged(format):
    expected = "several pages: the first was judged" if format == "TIFF" else "an animation: its first frame was judged"
    one = load(encoded(picture((200, 0, 0)), format, **({"lossless": True} if format == "WEBP" else {})))
    several = load(encoded(picture((200, 0, 0)), format, save_all=True, append_images=[picture((0, 0, 200))]))
    assert (one.note, several.note) == (None, expected)
    assert np.abs(np.asarray(one.image, int) - np.asarray(several.image)).max() < 8


def test_a_heic_of_several_pictures_says_that_the_primary_one_was_judged():
    one, two = heic(picture()), heic(picture((9, 9, 9)), picture(), primary_index=1)
    assert (load(one).note, load(two).note) == (None, "several pictures: the primary one was judged")
    assert np.asarray(load(two).image)[0, 0].max() > 100


def test_what_is_no_further_picture_is_no_note():
    """A gain map behind a JPEG, a preview before the picture, a mask, a second frame that is broken."""
    assert load(encoded(picture(), "MPO", save_all=True, append_images=[picture((9, 9, 9))])).note is None
    assert load(preview_first()).note is None
    two = encoded(picture(), "TIFF", save_all=True, append_images=[Image.new("1", (96, 96))])
    mask = encoded(picture(), "TIFF", save_all=True, append_images=[masked(Image.new("1", (96, 96)))])
    assert (load(two).note, load(mask).note) == ("several pages: the first was judged", None)
    moving = encoded(picture(), "GIF", save_all=True, append_images=[picture((0, 0, 0))])
    assert load(moving[: moving.rindex(b"\x21\xf9")]).note is None


def masked(image):
    image.encoderinfo = {"tiffinfo": {254: 4}}
    return image


def test_a_jpeg_that_lacks_a_little_says_how_much():
    data = encoded(noise((400, 400)), "JPEG")
    assert load(data).note is load(data[:-2]).note is None
    assert re.fullmatch(
        r"cut off: the last [1-9]\.\d% of the picture are missing", load(data[: len(data) * 96 // 100]).note
    )


def test_exif_orientation_is_obeyed():
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 40, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: what was the top is now the right
    turned = np.asarray(decode(encoded(image, "PNG", exif=exif)))
    assert turned.shape == (40, 20, 3)
    assert turned[20, 18].tolist() == [255] * 3
    assert turned[20, 2].tolist() == [0] * 3


def test_alpha_lies_over_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(decode(encoded(image)))[4, 4].tolist() == [255, 255, 255]
    palette = Image.new("P", (8, 8), 0)
    assert np.asarray(decode(encoded(palette, transparency=0)))[4, 4].tolist() == [255, 255, 255]


def test_sixteen_bit_and_grey_and_float():
    deep = Image.fromarray(np.full((8, 8), 32896, np.uint16))
    assert np.asarray(decode(encoded(deep)))[0, 0].tolist() == [128] * 3
    assert np.asarray(decode(encoded(Image.new("L", (8, 8), 77))))[0, 0].tolist() == [77] * 3
    float_ = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    assert np.asarray(decode(encoded(float_, "TIFF")))[0, 0].tolist() == [128] * 3
    assert np.asarray(decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")))[0, 0].max() < 10


def test_icc_profile_is_converted(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    data = encoded(picture((120, 60, 30)), icc_profile=b"not a profile")
    assert np.asarray(decode(data))[0, 0].tolist() == [120, 60, 30]  # unusable: shown as it is
    assert np.asarray(decode(encoded(picture((120, 60, 30)), icc_profile=lab.tobytes()))).shape == (96, 96, 3)


def test_wide_gamut_profile_moves_colours():
    data = encoded(picture((120, 60, 30)), icc_profile=linear_profile())
    moved = np.asarray(decode(data))[0, 0]
    assert moved.tolist() > [150, 100, 80]  # linear light is darker to the eye: sRGB needs larger numbers


def test_animation_gives_its_first_frame():
    frames = [picture((255, 0, 0)), picture((0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data))[0, 0].tolist() == [255, 0, 0]


def test_heic_is_read_where_its_library_is():
    pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = np.asarray(decode(encoded(picture((10, 200, 90)), "HEIF", quality=95)), int)
    assert np.abs(pixels - (10, 200, 90)).max() <= 6


def test_heic_without_its_library_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"faceauth\[heic\]"):
        decode(b"\0\0\0\x18ftypheic" + b"\0" * 40)


def _bomb():
    """A PNG of 60,000 x 60,000 in a few bytes."""

    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("data", "says"), [
    (b"", "empty"),
    (b"<html>not found</html>", "known format"),
    (encoded(noise(), "JPEG")[:900], "cut off: the last .*%"),
    (encoded(noise())[:900], "truncated"),
    (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "truncated|known format"),
    (_bomb(), "limit"),
    (b"%PDF-1.4 nothing", "known format"),
    (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC|truncated|known format"),
])  # fmt: skip
def test_bad_bytes_give_one_clear_error(data, says):
    with pytest.raises(ImageError, match=says):
        decode(data)


def test_limits_are_kept(tmp_path):
    path = tmp_path / "large.png"
    noise((100, 100)).save(path)
    with pytest.raises(ImageError, match="100 x 100"):
        load(path, Limits(max_pixels=9_999))
    with pytest.raises(ImageError, match="bytes"):
        load(path, Limits(max_bytes=1000))
    assert load(path, Limits(max_pixels=10_000)).image.size == (100, 100)


@pytest.mark.parametrize("path", ["missing.jpg", ".", "nul\0byte.jpg"])
def test_paths_that_are_no_files(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError):
        load(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="regular file"):
        load(tmp_path / "pipe.jpg")


def test_a_name_does_not_decide_the_format(tmp_path):
    (tmp_path / "really-a-png.jpg").write_bytes(encoded(picture()))
    assert load(tmp_path / "really-a-png.jpg").image.size == (96, 96)


def test_sha256_is_that_of_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    import hashlib

    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(picture()).sha256 is None


def test_arrays_are_checked():
    assert load(np.zeros((15, 16, 3), np.uint8)).image.size == (16, 15)
    assert load(np.zeros((15, 16), np.uint8)).image.mode == "RGB"
    for bad in (np.zeros((5, 6, 3)), np.zeros((5, 6, 4), np.uint8), np.zeros((0, 6), np.uint8)):
        with pytest.raises(ImageError, match="RGB order"):
            load(bad)


def test_decoding_loads_no_plugin_outside_the_list():
    code = (
        "import io; from PIL import Image; f=io.BytesIO(); Image.new('L',(4,4)).save(f,'PPM');"
        "from faceauth.images import decode\ntry: decode(f.getvalue())\nexcept Exception as e: print(type(e).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ImageError"


def test_a_file_that_grows_while_it_is_read_is_read_to_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()) + bytes(100_000))
    small = os.stat(path)
    monkeypatch.setattr(os, "stat", lambda *_: os.stat_result((*small[:6], 10, *small[7:])))
    with pytest.raises(ImageError, match="limit of 50,000 bytes"):
        load(path, Limits(max_bytes=50_000))
    assert load(path).image.size == (96, 96)
