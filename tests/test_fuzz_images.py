"""Damaged and hostile files of every format: a picture or one ImageError, no word on stderr, bounded time and memory.

Short here; longer by `FACEAUTH_FUZZ_SECONDS=600 FACEAUTH_FUZZ_FILES=500 pytest tests/test_fuzz_images.py`.
"""

import io
import os
import random
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from command_line import command, read_rows
from conftest import encoded, noise
from faceauth import lists
from faceauth.errors import FaceAuthError, ImageError
from faceauth.images import Limits, decode
from faceauth.images.formats import foreign, sniff
from faceauth.inputs import expand
from image_files import gamma_png, in_linear_light, multi_picture, planar_tiff, pq_png, preview_first

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("FACEAUTH_FUZZ_SECONDS", "0"))
FILES = int(os.environ.get("FACEAUTH_FUZZ_FILES", "5"))  # of every format, in a folder
LIMITS = Limits(max_pixels=2_000_000)  # a claimed size above is refused, so that what is decoded is bounded
SLOWEST = 20.0  # seconds for one file, on a machine that does other things too
MEMORY = 600  # MB that all files together may add to the largest size of the process


def _seeds():
    image = noise((40, 32))
    soft = image.resize((80, 64))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    yield "jpeg", encoded(soft, "JPEG", exif=exif)
    yield "jpeg progressive", encoded(soft, "JPEG", progressive=True)
    yield "jpeg cmyk", encoded(soft.convert("CMYK"), "JPEG")
    yield "mpo", multi_picture()
    yield "png", encoded(soft, exif=exif)
    yield "png palette", encoded(soft.quantize(16))
    yield "png 16", encoded(Image.fromarray(np.asarray(soft.convert("L"), np.uint16) * 257))
    yield "png profile", in_linear_light()
    yield "png gamma", gamma_png(1.0)
    yield "png pq", pq_png()
    yield "webp", encoded(soft, "WEBP")
    yield "webp lossless", encoded(soft.convert("RGBA"), "WEBP", lossless=True)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        yield (
            f"tiff {compression}",
            encoded(soft.convert("1") if compression == "group4" else soft, "TIFF", compression=compression),
        )
    yield "tiff preview", preview_first()
    yield "tiff planar", planar_tiff()
    yield "bmp", encoded(soft, "BMP")
    yield "gif", encoded(soft, "GIF")
    yield "avif", encoded(soft, "AVIF")
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
    yield "heic", encoded(soft, "HEIF")


SEEDS = dict(_seeds())


@st.composite
def damaged(draw):
    """A seed with a few changes: bytes replaced, cut out, doubled, numbers made extreme, the end cut off."""
    data = bytearray(draw(st.sampled_from(list(SEEDS.values()))))
    for _ in range(draw(st.integers(1, 6))):
        # most of what a decoder trusts stands at the start
        at = draw(st.one_of(st.integers(0, min(len(data), 400)), st.integers(0, len(data))))
        how = draw(st.sampled_from(["replace", "extreme", "cut", "double", "end", "flip", "zeros"]))
        if how == "replace":
            junk = draw(st.binary(min_size=1, max_size=24))
            data[at : at + len(junk)] = junk
        elif how == "extreme":
            number = draw(
                st.sampled_from(
                    [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\xff\xff\0\0", b"\0\1\0\0"]
                )
            )
            data[at : at + 4] = number
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 200))]
        elif how == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        elif how == "end":
            del data[max(at, 16) :]
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "zeros":
            data[at : at + 300] = bytes(300)
    return bytes(data)


def judge(data):
    """A picture, or one error of one line; returns the seconds it took."""
    start = time.process_time()
    try:
        image = decode(data, LIMITS)
    except ImageError as error:
        assert error.message and "\n" not in str(error) and str(error).isprintable()
    else:
        assert image.mode == "RGB" and min(image.size) >= 1 and image.width * image.height <= LIMITS.max_pixels
        np.asarray(image).sum()  # the pixels are there
    return time.process_time() - start


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_are_pictures(seed):
    assert decode(SEEDS[seed]).mode == "RGB"


@pytest.mark.parametrize("seed", SEEDS)
def test_cut_anywhere(seed, capfd):
    data = SEEDS[seed]
    for end in sorted({*range(0, min(64, len(data))), *range(0, len(data), max(len(data) // 40, 1))}):
        judge(data[:end])
    assert capfd.readouterr() == ("", "")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damage_never_escapes_as_another_error(data):
    assert judge(data) < SLOWEST


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=600), damaged()))
def test_any_bytes_on_standard_input_are_an_image_or_a_list(data):
    sniff(data), foreign(data), lists.is_list(data)
    try:
        assert expand(["-"], io.BytesIO(data)).references
    except FaceAuthError as error:
        assert "\n" not in error.message


WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def mutated(data, chance):
    """Bytes replaced, cut out, doubled or cut off, at one to five places."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        at, length = chance.randint(0, min(len(data), chance.choice((60, 400, 10**6)))), chance.randint(1, 60)
        match chance.choice(("replace", "extreme", "cut", "double", "end")):
            case "replace":
                data[at : at + length] = chance.randbytes(length)
            case "extreme":
                data[at : at + 4] = chance.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\xff\xff", bytes(4)))
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "end":
                del data[max(at, 16) :]
    return bytes(data)


def test_a_folder_of_mutated_files_of_every_format_gives_a_row_each(tmp_path, model_path):
    """By the command line, in worker processes, which none of the files may outlast or take down."""
    chance, folder = random.Random(18), tmp_path / "pictures"
    folder.mkdir()
    for name, data in SEEDS.items():
        for number in range(FILES):
            (folder / f"{name.replace(' ', '-')}-{number}.jpg").write_bytes(mutated(data, chance))
    limits = ("--timeout", SLOWEST, "--max-pixels", LIMITS.max_pixels, "--workers", 2)
    words = command("detect", folder, "--model", model_path, "--whole-image", *limits, "-o", tmp_path / "rows.jsonl")
    watched = [sys.executable, "-c", WATCH, *words]  # a process keeps the size of the one that it was started by
    done = subprocess.run(watched, capture_output=True, text=True, timeout=600)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert sorted({os.path.basename(r["path"]) for r in rows}) == sorted(os.listdir(folder))
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert all((r["error"] is None) == (r["label"] is not None) and len(r["image_sha256"]) == 64 for r in rows)
    assert [
        r["error"] for r in rows if "not judged: " in (r["error"] or "")
    ] == []  # none was given up, or took its process down
    assert max(r["ms"] for r in rows) < 1000 * SLOWEST
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2 * MEMORY << 20  # the largest of it and its workers


@pytest.mark.skipif(not SECONDS, reason="FACEAUTH_FUZZ_SECONDS is not set")
def test_for_as_long_as_asked(capfd):
    """Until the time is up; what fails is shown by hypothesis, made small."""
    unit = 1 if sys.platform == "darwin" else 1024
    before, end, count = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, time.monotonic() + SECONDS, 0

    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged())
    def more(data):
        nonlocal count
        count += 1
        if time.monotonic() < end:
            assert judge(data) < SLOWEST

    while time.monotonic() < end:
        more()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < MEMORY << 20
    assert capfd.readouterr() == ("", "")
