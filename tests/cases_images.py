"""The reported cases of decoding, colour, orientation and input: one line each, with what is right.

The ids are those of the collection of cases. The files are made here; `base()` is a picture with detail whose colours
are known, so that "judged as without" is "has nearly the same pixels".
"""

import base64
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from command_line import faceauth
from conftest import encoded, picture
from faceauth.errors import ImageError
from faceauth.faces import FoundFace
from faceauth.images import FULL, Limits, decode, load
from faceauth.images.decoding import reduction
from faceauth.inputs import expand
from image_files import (
    BASE,
    GAMMA,
    JPEG,
    P3,
    PHOTO,
    PHOTO_PROGRESSIVE,
    PROGRESSIVE,
    SRGB,
    animated_webp,
    base,
    chrm,
    deep_tiff,
    far,
    gamma_png,
    heic,
    hlg_png,
    in_linear_light,
    multi_picture,
    planar_tiff,
    png_with,
    pq_png,
    preview_first,
    wide_png,
    with_preview,
)

# id, the file, and how far its pixels may lie from BASE (mean of 255 steps)
SHOWN = {
    "D01 JPEG with a second frame": (multi_picture, 4.5),
    "D03 AVIF": (lambda: encoded(BASE, "AVIF", quality=90), 4),
    "D06-minus2 JPEG without its last 2 bytes": (lambda: JPEG[:-2], 4.5),
    "D06 JPEG without its last 40 bytes": (lambda: JPEG[:-40], 4.8),
    "D06 progressive JPEG without its last 2 bytes": (lambda: PROGRESSIVE[:-2], 4.5),
    "D07 JPEG and a video behind it": (lambda: JPEG + b"\0\0\0\x18ftypmp42" + b"\xff\xd9\xff\xda" * 5000, 4.5),
    "D08 2 bytes before the start": (lambda: b"\r\n" + JPEG, 4.5),
    "D08 a byte-order mark before a PNG": (lambda: b"\xef\xbb\xbf" + encoded(BASE), 0),
    "D09 CMYK JPEG": (lambda: encoded(BASE.convert("CMYK"), "JPEG", quality=95), 5),
    "D10 16-bit RGB TIFF": (deep_tiff, 0),
    "D12 planar TIFF": (planar_tiff, 0),
    "D13 preview first, picture in a SubIFD": (preview_first, 0),
    "D13 preview first, picture second": (lambda: preview_first(sub=False), 0),
    "D13 preview that does not say so": (lambda: preview_first(flagged=False), 0),
    "D13 preview second that does not say so": (lambda: preview_first(sub=False, flagged=False), 0),
    "D15 HEIC": (lambda: heic(BASE), 4),
    "D17 HEIC whose second image is the primary": (
        lambda: heic(picture((0, 0, 255), (96, 96)), BASE, primary_index=1),
        4,
    ),
    "D20 animated WebP": (animated_webp, 4),
    "D22 PNG P": (lambda: encoded(BASE.quantize(256)), 7),
    "K01-LinearRec linear light": (in_linear_light, 2),
    "K01-sRGB linear light": (lambda: in_linear_light(name=b"sRGBlin"), 2),
    "K02 palette and a profile": (lambda: in_linear_light("P"), 10),
    "K03 gAMA 1.0": (lambda: gamma_png(1.0), 3),
    "K03 gAMA 1/1.8": (lambda: gamma_png(1 / 1.8), 3),
    "K03 gAMA 1/2.2": (lambda: png_with(BASE, GAMMA, SRGB), 0),
    "K03 sRGB before gAMA": (lambda: png_with(BASE, (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))), 0),
    "K03 cHRM of Display P3": (lambda: wide_png(GAMMA, P3), 2),
    "K03 cHRM of nonsense": (lambda: png_with(BASE, GAMMA, chrm(0, 0, 0, 0, 0, 0, 0, 0)), 0),
    "K04 cICP PQ": (pq_png, 8),
    "K04 cICP HLG": (hlg_png, 8),
    "K04 cICP Display P3": (lambda: wide_png((b"cICP", bytes((12, 13, 0, 1)))), 2),
    "K04 cICP sRGB": (lambda: png_with(BASE, (b"cICP", bytes((1, 13, 0, 1)))), 0),
}


@pytest.mark.parametrize("case", SHOWN)
def test_is_shown_as_it_is(case, capfd):
    make, most = SHOWN[case]
    assert far(decode(make()), BASE) <= most
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("missing", [1, 2, 3, 20])
@pytest.mark.parametrize("format", ["baseline", "progressive", "grey", "flat end"])
def test_d06_what_is_there_is_shown_as_before(format, missing):
    image = base((320, 256))
    if format == "flat end":  # a plain backdrop in the lower half tells nothing of what is missing
        image.paste((128, 128, 128), (0, 128, 320, 256))
    image = image.convert("L") if format == "grey" else image
    whole = encoded(image, "JPEG", quality=90, progressive=format in {"progressive", "flat end"})
    full, cut = (np.asarray(decode(d)) for d in (whole, whole[:-missing]))
    assert (full[:64] == cut[:64]).all()
    assert far(full, cut) < (0.01 if missing <= 2 else 3)


def test_what_is_told_matters():
    """The colour cases would fail on numbers taken as sRGB."""
    for make in (in_linear_light, pq_png, hlg_png, lambda: gamma_png(1.0), lambda: wide_png(GAMMA, P3)):
        raw = Image.open(io.BytesIO(make())).convert("RGB")
        assert far(raw, BASE) > 2.5


@pytest.mark.parametrize("mode", ["P", "LA", "1", "L", "RGBA", "I;16"])
def test_d22_modes_of_png(mode):
    grey = BASE.convert("L")
    image = {
        "P": lambda: BASE.quantize(64), "LA": lambda: grey.convert("LA"), "1": lambda: grey.convert("1"), "L": lambda: grey,
        "RGBA": lambda: BASE.convert("RGBA"), "I;16": lambda: Image.fromarray(np.asarray(grey, np.uint16) * 257),
    }[mode]()  # fmt: skip
    assert decode(encoded(image)).size == BASE.size


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "La", "RGBa", "PA", "RGBX", "I;16"],
)
def test_every_mode_of_pillow(mode):
    image = {
        "La": lambda: BASE.convert("LA").convert("La"), "RGBa": lambda: BASE.convert("RGBA").convert("RGBa"),
        "LAB": lambda: ImageCms.profileToProfile(BASE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"),
        "I;16": lambda: Image.fromarray(np.asarray(BASE.convert("L"), np.uint16) * 257),
        "PA": lambda: BASE.convert("P").convert("PA"),
        "F": lambda: BASE.convert("F"),
    }.get(mode, lambda: BASE.convert(mode))()  # fmt: skip
    assert image.mode == mode
    shown = load(image).image
    assert shown.mode == "RGB"
    coloured = mode in {"P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "RGBa", "PA", "RGBX"}
    if mode != "1":
        assert far(shown, BASE if coloured else BASE.convert("L").convert("RGB")) < (30 if mode in {"P", "PA"} else 4)


REFUSED = {
    "D06-minus30pct JPEG without a third": (lambda: PHOTO[: len(PHOTO) * 2 // 3], r"cut off.*\d\d%"),
    "D06 progressive JPEG without a third": (lambda: PHOTO_PROGRESSIVE[: len(PHOTO_PROGRESSIVE) * 2 // 3], "cut off"),
    "D06 half a download in a file of full length": (lambda: PHOTO[: len(PHOTO) // 2].ljust(len(PHOTO), b"\0"), "cut off"),
    "D06 the same with a preview in its EXIF": (
        lambda: with_preview(PHOTO)[: len(PHOTO) // 2].ljust(len(PHOTO), b"\0"), "cut off",
    ),
    "D06 header alone": (lambda: PHOTO[:300], "cut off|[Tt]runcated"),
    "D14 camera raw": (lambda: preview_first(photometric=32803), "camera raw.*develop"),
    "D14 camera raw (linear DNG)": (lambda: preview_first(photometric=34892), "camera raw.*develop"),
    "D14 camera raw (CR2)": (lambda: b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 90, "camera raw"),
    "D14 camera raw (CR3)": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0" * 90, "camera raw"),
    "D14 camera raw (RAF)": (lambda: b"FUJIFILMCCD-RAW 0201" + b"\0" * 90, "camera raw"),
    "E05 MP4": (lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 90, "video.*ffmpeg"),
    "E05 WebM": (lambda: b"\x1a\x45\xdf\xa3" + b"\0" * 90, "video.*ffmpeg"),
    "E06 PDF": (lambda: b"%PDF-1.4\n" + b"x" * 90, "PDF.*pdfimages"),
    "E07 ZIP": (lambda: b"PK\3\4" + b"x" * 90, "ZIP.*unpack"),
    "E08 data URL": (lambda: b"data:image/png;base64,iVBORw0KGgo=", "data URL.*base64 -d"),
    "E08 base64 without its head": (lambda: base64.b64encode(JPEG), "base64 text.*base64 -d"),
    "E09 JPEG XR": (lambda: b"II\xbc\x01" + b"\0" * 90, "format that is not read.*save it as JPEG or PNG"),
    "E09 DICOM": (lambda: b"\0" * 128 + b"DICM" + b"\0" * 90, "format that is not read.*save it as JPEG or PNG"),
    "E09 an icon": (lambda: b"\0\0\1\0\1\0\x10\x10" + b"\0" * 90, "an icon.*save it as"),
    "E09 an icon of macOS, whose PNG within is no picture": (lambda: encoded(BASE.resize((128, 128)), "ICNS"), "an icon"),
    "E09 JPEG 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 90, "not an image of a known format: JPEG 2000"),
    "E10 JPEG XL": (lambda: b"\xff\x0a" + b"\0" * 90, "JPEG XL"),
    "E11 a web page": (lambda: b"<!DOCTYPE html><html>404</html>", "web page"),
    "E12 music with a cover": (lambda: b"ID3\4\0\0\0\0\0\x20APIC\0\0image/jpeg\0\3\0" + JPEG, "sound"),
    "I07 companion": (lambda: b"\0\5\x16\7\0\2\0\0" + b"\0" * 90, "macOS companion"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_what_to_do(case):
    make, says = REFUSED[case]
    with pytest.raises(ImageError, match=says) as caught:
        decode(make())
    assert caught.value.hint and "\n" not in str(caught.value)
    (reference,) = expand(["-"], io.BytesIO(make())).references  # on standard input it is no list of paths
    assert isinstance(reference, bytes)


def test_e04_a_url_is_not_fetched():
    for url in ("https://example.org/a.jpg?size=[1]*", "HTTP://example.org/a.jpg", "s3://bucket/a.jpg"):
        (reference,) = expand([url]).references
        with pytest.raises(ImageError, match=r"nothing is fetched.*curl .* faceauth detect -"):
            load(reference)


def test_e08_a_data_url_as_an_argument_is_shortened():
    (reference,) = expand(["data:image/png;base64," + "A" * 100_000]).references
    assert len(reference) < 100
    with pytest.raises(ImageError, match="data URL"):
        load(reference)


def test_d13_the_orientation_of_the_file_holds_for_the_picture():
    assert decode(preview_first(orientation=6)).size == BASE.size[::-1]


def test_d16_ten_bit_heic():
    heif = pytest.importorskip("pillow_heif")
    deep = (np.asarray(BASE, np.uint16) * 257).tobytes()
    file = heif.from_bytes("RGB;16", BASE.size, deep)
    made = io.BytesIO()
    file.save(made, quality=90)
    assert far(decode(made.getvalue()), BASE) < 4


def test_d19_heic_named_png(tmp_path):
    (tmp_path / "a.png").write_bytes(heic(BASE))
    assert load(tmp_path / "a.png").image.size == BASE.size


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_o01_orientations(format, orientation):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes the turning, as Image.Transpose
    stored = BASE.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load(encoded(stored, format, exif=exif, quality=90))
    assert loaded.full_size == BASE.size
    assert far(loaded.image, BASE) < 8


def test_o02_the_orientation_in_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    assert decode(png_with(BASE, (b"iTXt", text))).size == BASE.size[::-1]


@pytest.mark.parametrize("size", [(1, 4), (4, 1), (30_000, 1), (1, 30_000), (1, 1), (7, 400)])
def test_pictures_of_a_few_pixels(size):
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]}: too small"):
        load(encoded(Image.new("RGB", size)))
    assert load(encoded(Image.new("RGB", (30_000, 8)))).image.size == (30_000, 8)


# ---------------------------------------------------------------- very large pictures


def in_a_process(code, *arguments):
    """Run code that prints; returns what it printed, and its largest memory in MB."""
    # not ru_maxrss, which a process inherits from the one that started it
    code += "\nprint(next(int(x.split()[1]) // 1024 for x in open('/proc/self/status') if x.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    *lines, memory = done.stdout.splitlines()
    return lines, int(memory) // (1024 if sys.platform == "darwin" else 1)


LOAD = (
    "import sys; from faceauth import images; l = images.load(sys.argv[1]); print(l.image.size, l.full_size, l.scale)"
)


def large_jpeg(width, height):
    """A grey baseline JPEG of any size, made of 16 lines of one that Pillow wrote: all its blocks are alike."""
    strip = encoded(Image.new("L", (width, 16), 128), "JPEG", quality=50)
    sof, sos = strip.index(b"\xff\xc0"), strip.index(b"\xff\xda")
    restart = b"\xff\xdd\0\4" + struct.pack(">H", width // 8)
    head = strip[: sof + 5] + struct.pack(">H", height) + strip[sof + 7 : sos] + restart + strip[sos : sos + 10]
    row = encoded(Image.new("L", (width, 8), 128), "JPEG", quality=50)
    row = row[row.index(b"\xff\xda") + 10 : -2]
    return head + b"".join(row + bytes((0xFF, 0xD0 + i % 8)) for i in range(height // 8))[:-2] + b"\xff\xd9"


@pytest.mark.slow
@pytest.mark.parametrize(("size", "step"), [((12_000, 9_000), 2), ((16_320, 12_240), 2)])
def test_d23_pictures_of_108_and_200_megapixels(tmp_path, size, step):
    (tmp_path / "large.jpg").write_bytes(large_jpeg(*size))
    (line,), memory = in_a_process(LOAD, str(tmp_path / "large.jpg"))
    assert line == f"{(size[0] // step, size[1] // step)} {size} {(float(step), float(step))}"
    assert memory < 600


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["1", "RGB"])
def test_a_bomb_of_100_megapixels_in_few_bytes(tmp_path, mode):
    chunk = zlib.compress(bytes((1 + (1250 if mode == "1" else 30_000)) * 10_000), 9)
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1 if mode == "1" else 8, 0 if mode == "1" else 2, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", chunk), (b"IEND", b""))
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in blocks)
    )
    (line,), memory = in_a_process(LOAD, str(tmp_path / "bomb.png"))
    assert line.startswith("(5000, 5000) (10000, 10000)")
    assert memory < 750


def test_nothing_is_reduced_up_to_the_limit():
    assert [reduction(s) for s in ((1, FULL), (10_000, 5_000), (8_660, 5_773), (10_000, 5_001))] == [1, 1, 1, 2]
    assert reduction((16_320, 12_240)) == 2 and reduction((20_000, 20_000)) == 4


def test_reduced_is_the_same_picture(monkeypatch):
    """Every format, with the threshold set low: a half of each side, near to the picture made smaller."""
    from faceauth.images import decoding

    monkeypatch.setattr(decoding, "FULL", 6_000)
    monkeypatch.setattr(decoding, "STRIP", 2_000)
    half = BASE.resize((80, 64), Image.Resampling.BOX)
    for data in (JPEG, encoded(BASE), encoded(BASE, "WEBP", quality=95), encoded(BASE, "TIFF"), encoded(BASE, "BMP"),
                 in_linear_light(), encoded(BASE.convert("RGBA"))):  # fmt: skip
        loaded = load(data)
        assert (loaded.full_size, loaded.scale) == (BASE.size, (2, 2))
        assert far(loaded.image, half) < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = load(encoded(BASE, "JPEG", exif=exif))
    assert (loaded.image.size, loaded.full_size) == ((64, 80), (128, 160))


def test_strips_give_the_pixels_of_the_whole(monkeypatch):
    from faceauth.images import decoding

    files = [
        in_linear_light(),
        pq_png(),
        encoded(BASE.convert("LA")),
        encoded(Image.fromarray(np.asarray(BASE.convert("F")) / 255), "TIFF"),
    ]
    whole = [decode(f).tobytes() for f in files]
    monkeypatch.setattr(decoding, "STRIP", 500)
    assert [decode(f).tobytes() for f in files] == whole


def test_limits_of_formats_that_cannot_be_reduced():
    assert (Limits().pixels("WEBP"), Limits().pixels("HEIF")) == (50_000_000, 65_000_000) and Limits(9_999).pixels(
        "AVIF"
    ) == 9_999
    assert Limits().pixels("JPEG", in_one_pass=True) == 400_000_000 and Limits().pixels("JPEG") == 100_000_000
    head = encoded(BASE, "WEBP", lossless=True)
    huge = head[:21] + struct.pack("<I", 16_382 | 16_382 << 14) + head[25:]
    with pytest.raises(ImageError, match="16383 x 16383"):
        decode(huge)


def test_d23b_the_limit_can_be_raised(folder, model_path):
    assert faceauth("detect", folder / "dark.jpg", "--model", model_path, "--max-pixels", "200000000")[0] == 0


def test_boxes_are_those_of_the_whole_picture(detector, monkeypatch):
    from faceauth.images import decoding

    monkeypatch.setattr(decoding, "FULL", 6_000)
    detector.find_faces = lambda image: [FoundFace((10, 8, 64, 60))]
    verdict = detector.judge(JPEG)
    assert (verdict.width, verdict.height) == BASE.size
    assert verdict.faces[0].box == (20, 16, 128, 120)


def test_what_was_passed_over_is_in_the_summary(folder, model_path):
    (folder / "notes.txt").write_text("x")
    (folder / "._dark.jpg").write_bytes(b"\0\5\x16\7" + bytes(60))
    code, _, err = faceauth("detect", folder, folder / "dark.jpg", "--model", model_path)
    assert code == 0
    assert (
        "1 file that is no picture passed over; 1 macOS companion file passed over; 1 file given more than once" in err
    )


def test_a_long_text_does_not_cost_the_picture():
    text = b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)
    assert far(decode(png_with(BASE, (b"zTXt", text))), BASE) == 0


def test_jpeg_of_ten_thousand_scans_is_refused():
    start = PROGRESSIVE.index(b"\xff\xda")
    scan = PROGRESSIVE[start : PROGRESSIVE.index(b"\xff", start + 20)]
    with pytest.raises(ImageError, match="scans"):
        decode(PROGRESSIVE[:-2] + scan * 10_000 + b"\xff\xd9")


def test_libtiff_is_silent(capfd):
    data = bytearray(encoded(BASE, "TIFF", compression="tiff_lzw"))
    data[40:400] = os.urandom(360)
    for cut in (bytes(data), bytes(data[: len(data) // 2])):
        with pytest.raises(ImageError):
            decode(cut)
    assert capfd.readouterr() == ("", "")


def test_bytes_are_read_once_and_kept(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    assert load(path).data == JPEG
    assert load(BASE).data is None
