"""The report side by side, what is measured on a JPEG, and the command `faceauth provenance`."""

import io
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from command_line import faceauth
from conftest import encoded, noise, picture
from faceauth.provenance import double_jpeg, jpeg
from faceauth.provenance.containers import read
from faceauth.provenance.report import NOTHING, examine
from metadata import IPTC, exif, png, source_type, with_segment, xmp
from metadata import jpeg as photo


def scene(size=(256, 256), seed=1):
    """A picture with edges and detail of every size, as photographs have: noise with a falling spectrum."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]))
    fall = 1 / np.maximum(np.hypot(across, down), 1 / max(size)) ** 1.3
    grey = np.fft.ifft2(np.fft.fft2(rng.standard_normal(size[::-1])) * fall).real
    grey = 128 + 45 * (grey - grey.mean()) / grey.std()
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


def saved(image, quality, **options):
    return encoded(image, "JPEG", quality=quality, **options)


def again(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def with_thumbnail(image, thumbnail, **options):
    """A JPEG whose EXIF has a thumbnail in its second directory, as cameras write it."""
    small = saved(thumbnail, 80)
    make = b"Camera\0\0"
    head = b"II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x07\0\0\0\x1a\0\0\0\x22\0\0\0" + make
    second = b"\2\0" + b"\1\2\4\0\1\0\0\0" + (0x40).to_bytes(4, "little")
    second += b"\2\2\4\0\1\0\0\0" + len(small).to_bytes(4, "little") + b"\0\0\0\0"
    return with_segment(saved(image, 90, **options), 0xE1, b"Exif\0\0" + head + second + small)


def lines(report, kind):
    return {f.where: f.text for f in report.findings if f.kind == kind}


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 92, 100])
def test_the_quality_of_standard_tables_is_read_off(quality):
    found = jpeg.quantisation(saved(noise(), quality))
    assert (found.family, found.quality, found.chrominance) == ("standard", quality, quality)
    grey = jpeg.quantisation(encoded(noise().convert("L"), "JPEG", quality=quality))
    assert (grey.family, grey.quality) == ("standard", quality)


def test_tables_of_photoshop_and_tables_of_nobody_are_told_apart():
    assert str(jpeg.quantisation(saved(noise(), "web_high"))) == "tables of Photoshop's setting 'web high'"
    near = [min(step + (n % 3), 255) for n, step in enumerate(jpeg.standard(80))]
    found = jpeg.quantisation(encoded(noise(), "JPEG", qtables=[near, near]))
    assert found.family == "custom"
    assert abs(found.quality - 80) < 8
    assert jpeg.quantisation(encoded(noise(), "JPEG", qtables=[[1, 255] * 32] * 2)).quality is None
    assert jpeg.quantisation(encoded(noise())) is None
    assert jpeg.quantisation(b"\xff\xd8\xff") is None


@pytest.mark.parametrize(("first", "last"), [(60, 75), (60, 90), (75, 85), (75, 90), (80, 95), (85, 95)])
def test_an_earlier_coarser_saving_is_found_with_its_quality(first, last):
    quality, _ = double_jpeg.first_quality(saved(again(saved(scene(), first)), last))
    assert abs(quality - first) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("quality", [60, 75, 85, 92, 98])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_single_saving_is_not_called_two(quality, seed):
    assert double_jpeg.first_quality(saved(scene(seed=seed), quality)) is None


def test_what_cannot_be_seen_is_not_claimed():
    """A finer first saving, another grid, another size, and pictures without detail."""
    once = again(saved(scene(), 75))
    assert double_jpeg.first_quality(saved(again(saved(scene(), 95)), 75)) is None
    assert double_jpeg.first_quality(saved(once.crop((3, 3, 256, 256)), 90)) is None
    assert double_jpeg.first_quality(saved(once.resize((200, 200)), 90)) is None
    assert double_jpeg.first_quality(saved(again(saved(picture(size=(256, 256)), 60)), 90)) is None
    assert double_jpeg.first_quality(saved(scene((32, 32)), 90)) is None
    assert double_jpeg.first_quality(saved(scene(), 75)[:900]) is None


@pytest.mark.parametrize("size", [(320, 240), (300, 200), (200, 300)])
def test_a_thumbnail_of_the_picture_fits_it(size):
    image = scene(size)
    small = image.resize((160, 120))
    barred = Image.new("RGB", (160, 120))
    barred.paste(image.resize((160, 160 * size[1] // size[0])), (0, (120 - 160 * size[1] // size[0]) // 2))
    for thumbnail in [small] + [barred] * (size[0] > size[1]):
        data = with_thumbnail(image, thumbnail)
        correlation, same = jpeg.thumbnail(data, read(data))
        assert same
        assert correlation > 0.9


def test_a_thumbnail_of_another_picture_is_said_on_top():
    report = examine(with_thumbnail(scene(seed=1), scene((160, 120), seed=2)))
    assert "another picture" in lines(report, "measured")["EXIF thumbnail"]
    assert any("thumbnail does not show the picture" in sentence for sentence in report.disagreements)
    assert examine(with_thumbnail(scene(seed=1), scene(seed=1).resize((160, 120)))).disagreements == ()


def test_flat_or_broken_thumbnails_say_nothing():
    for thumbnail in (picture(size=(160, 120)), scene((8, 8))):
        data = with_thumbnail(scene(), thumbnail)
        assert jpeg.thumbnail(data, read(data)) is None
    data = with_thumbnail(scene(), scene((160, 120)))
    assert jpeg.thumbnail(data[:3000], read(data[:3000])) is None


def test_every_line_says_what_kind_of_evidence_it_is():
    report = examine(photo({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "GIMP 3.0"}, quality=88))
    assert lines(report, "says") == {"EXIF Make": "Canon", "EXIF Model": "EOS R5", "EXIF Software": "GIMP 3.0"}
    assert lines(report, "measured")["JPEG tables"].startswith("standard tables (IJG) of quality 88")
    absent = lines(report, "absent")
    assert {"C2PA manifest", "XMP", "name of a generator", "EXIF thumbnail"} == set(absent)
    assert set(absent.values()) == {NOTHING}
    assert report.disagreements == ()
    assert report.format == "JPEG"


@pytest.mark.parametrize("data", [
    photo({0x010F: "Canon", 0x0131: "Midjourney"}),
    photo({0x010F: "Canon"}, xmp=source_type(IPTC + "trainedAlgorithmicMedia")),
    photo({0x0131: "Grok"}, xmp=source_type(IPTC + "digitalCapture")),
])  # fmt: skip
def test_a_generator_and_a_camera_in_one_file_disagree(data):
    (sentence,) = examine(data).disagreements
    assert "speaks of a generator" in sentence
    assert "of a camera" in sentence


def test_two_generators_in_one_file_disagree():
    assert examine(photo({0x0131: "Grok"}, xmp=xmp(attributes='xmp:CreatorTool="Midjourney"'))).disagreements == (
        "Different generators are named: grok, midjourney.",
    )


def test_a_generators_own_fields_do_not_disagree():
    assert examine(photo({0x010F: "Black Forest Labs", 0x0131: "AI generated;txt2img;flux"})).disagreements == ()


def test_what_is_no_image_is_an_error():
    assert "known format" in examine(b"hello").error
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 40  # not a HEIC, though its boxes are those of one
    assert ["a video" in examine(video).error, "a PDF" in examine(b"%PDF-1.7").error, examine(b"").error] == [
        True, True, "the file is empty",
    ]  # fmt: skip
    assert (examine(encoded(picture(), "BMP")).format, examine(encoded(picture(), "BMP")).error) == ("BMP", None)


def test_signed_lines_are_called_signed_and_broken_ones_are_not():
    pytest.importorskip("c2pa")
    from test_provenance_c2pa import signed

    data = bytearray(signed("digitalCapture", program="A Camera"))
    kinds = {f.where: f.kind for f in examine(bytes(data)).findings}
    for where in ("C2PA", "C2PA signer", "C2PA digitalSourceType", "C2PA actions", "C2PA certificate", "C2PA validity"):
        assert kinds[where] == "signed"
    assert "no time stamp" in lines(examine(bytes(data)), "signed")["C2PA validity"]
    data[-40] ^= 1
    broken = examine(bytes(data))
    assert not lines(broken, "signed")
    assert "does not hold" in broken.disagreements[0]


def test_a_signed_camera_and_a_named_generator_disagree():
    pytest.importorskip("c2pa")
    from test_provenance_c2pa import signed

    data = with_segment(
        signed("trainedAlgorithmicMedia", program="A Program"),
        0xE1,
        b"Exif\0\0" + exif({0x010F: "Canon"}).tobytes()[6:],
    )
    assert any("of a camera" in sentence for sentence in examine(data).disagreements)


def test_a_pipe_gets_json_lines_and_no_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(Software="NovelAI"))
    (tmp_path / "b.jpg").write_bytes(photo({0x010F: "Canon"}))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = faceauth("provenance", tmp_path)
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert first["findings"][0] == {
        "kind": "says", "where": "PNG text 'Software'", "text": "NovelAI", "generator": "novelai"
    }  # fmt: skip
    assert [Path(row["path"]).name for row in (first, second)] == ["a.png", "b.jpg"]
    assert first["version"]
    assert len(first["sha256"]) == 64


def test_standard_input_and_unreadable_files(tmp_path):
    code, out, err = faceauth("provenance", "-", stdin=png(Software="NovelAI"))
    assert (code, json.loads(out)["path"]) == (0, "-")
    (tmp_path / "text.png").write_bytes(b"hello")
    code, out, err = faceauth("provenance", tmp_path / "text.png", tmp_path / "none.png", "--max-bytes", 4)
    assert code == 3
    assert [json.loads(line)["error"] for line in out.splitlines()] == [
        "more than the limit of 4 bytes (raise --max-bytes, or save a smaller copy)", "no such file"
    ]  # fmt: skip
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
def test_what_a_file_is_written_of_is_said_with_the_unreadable_named(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png(Software="NovelAI"))
    target = tmp_path / name
    code, out, err = faceauth("provenance", tmp_path / "a.png", tmp_path / "none.png", "-o", target)
    assert (code, out) == (3, "")
    assert err.splitlines() == [
        f"{tmp_path / 'none.png'}: no such file", f"2 files; 1 unreadable; written to {target}"
    ]  # fmt: skip
    many = [tmp_path / f"{number}.png" for number in range(12)]
    code, _, err = faceauth("provenance", *many, "-o", target, "--overwrite")
    lines = err.splitlines()
    assert code == 3 and len(lines) == 12 and lines[10].startswith("and 2 more") and lines[11].startswith("12 files; ")


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
def test_an_output_is_written_whole_and_not_replaced_unasked(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png(Software="NovelAI"))
    target = tmp_path / name
    assert faceauth("provenance", tmp_path / "a.png", "-o", target)[:2] == (0, "")
    text = target.read_text()
    (row,) = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    assert row["findings"][0]["generator"] == "novelai"
    code, _, err = faceauth("provenance", tmp_path / "a.png", "-o", target)
    assert code == 2
    assert "--overwrite" in err
    assert faceauth("provenance", tmp_path / "a.png", "-o", target, "--overwrite")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", name]


def test_a_run_that_breaks_off_leaves_no_output(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    with mock.patch("json.dump", side_effect=OSError(28, "No space left on device")):
        code, _, err = faceauth("provenance", tmp_path / "a.png", "-o", tmp_path / "out.json")
    assert code == 1
    assert "No space left on device" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("arguments", [
    ["-o", "out.txt"], ["--trust-anchors", "none.pem"], ["--trust-usages", "a.cfg"], ["-o", "no/such/folder/a.json"],
])  # fmt: skip
def test_usage_errors_are_one_line_and_a_hint(tmp_path, arguments):
    (tmp_path / "a.png").write_bytes(png())
    code, out, err = faceauth("provenance", "a.png", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 2
    assert "hint: " in err


def test_a_terminal_gets_a_table_without_control_characters(tmp_path):
    (tmp_path / "a\x1b[31m.png").write_bytes(png(Software="Grok"))
    (tmp_path / "b.jpg").write_bytes(photo({0x010F: "Ca\x1b[31mnon", 0x0131: "Midjourney"}))
    with mock.patch.dict("os.environ", {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}):
        code, out, _ = faceauth("provenance", tmp_path, terminal=True)
    assert code == 0
    assert "\x1b[31m" not in out
    second = out[out.index("b.jpg") :]
    assert second.index("disagreement: ") < second.index("EXIF Software")
    assert NOTHING in out


def test_help_has_examples():
    code, out, _ = faceauth("provenance", "--help")
    assert code == 0
    assert "faceauth provenance photo.jpg" in out


def test_a_trust_list_reaches_the_report(tmp_path):
    pytest.importorskip("c2pa")
    from test_provenance_c2pa import authority, pem, signed

    (tmp_path / "list.pem").write_text(pem(authority()[0]))
    (tmp_path / "a.jpg").write_bytes(signed())
    rows = [
        json.loads(faceauth("provenance", tmp_path / "a.jpg", *options)[1])
        for options in ([], ["--trust-anchors", tmp_path / "list.pem"])
    ]
    said = [next(f["text"] for f in row["findings"] if f["where"] == "C2PA signer") for row in rows]
    assert said[0].endswith("trust not checked")
    assert said[1].endswith("on the trust list")
