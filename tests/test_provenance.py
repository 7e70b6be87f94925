import io
import sys

import pytest
from PIL import Image, PngImagePlugin

from conftest import encoded, picture
from faceauth import credentials
from faceauth.detector import Detector
from faceauth.provenance import LONGEST, claims
from test_cli import faceauth

PARAMETERS = "a portrait\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Model: dreamshaper_8"


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return encoded(picture(), pnginfo=info)


def jpeg(tags=None, sub=None, **options):
    exif = Image.Exif()
    exif.update(tags or {})
    if sub:
        exif.get_ifd(0x8769).update(sub)
    return encoded(picture(), "JPEG", exif=exif, **options)


@pytest.mark.parametrize(("data", "where", "generator"), [
    (png(parameters=PARAMETERS), "PNG text 'parameters'", "stable-diffusion"),
    (png(prompt='{"3": {"class_type": "KSampler", "inputs": {}}}'), "PNG text 'prompt'", None),
    (png(Software="NovelAI"), "PNG text 'Software'", "stable-diffusion"),
    (jpeg({0x010F: "flux"}), "EXIF Make", "flux"),
    (jpeg({0x0131: "Midjourney 6.1"}), "EXIF Software", "midjourney"),
    (jpeg(sub={0x9286: b'ASCII\0\0\0{"prompt": "a face", "model": "flux", "seed": 3}'}), "EXIF UserComment", "flux"),
    (jpeg({0x010E: PARAMETERS}), "EXIF ImageDescription", None),
    (jpeg(comment=PARAMETERS.encode()), "JPEG comment", None),
    (jpeg(xmp=b'<x Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'),
     "XMP DigitalSourceType", None),
    (jpeg(xmp=b'<rdf xmp:CreatorTool="Adobe Firefly 2"/>'), "XMP", "firefly"),
])  # fmt: skip
def test_a_file_that_says_what_made_it(data, where, generator):
    (found,) = claims(data)
    assert (found.where, found.generator) == (where, generator)
    assert found.says


@pytest.mark.parametrize("data", [
    png(), png(Software="GIMP 2.10", Comment="flux of light"), png(prompt="a person said: be prompt"),
    jpeg({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "Adobe Photoshop 25.0"}),
    jpeg({0x010E: "My midjourney through the fluxes of Openairport"}), jpeg({0x013B: "Reinhold Stylegangl"}),
    jpeg(comment=b"a comment"),
])  # fmt: skip
def test_what_says_nothing_of_a_generator_is_no_claim(data):
    assert claims(data) == ()


@pytest.mark.parametrize("data", [jpeg(comment=credentials.MARK), b"\0\0\0\x18ftypheic" + credentials.MARK])
def test_without_the_extra_a_manifest_is_named_and_not_believed(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setattr(credentials, "_library", credentials._library.__wrapped__)
    (found,) = claims(data)
    assert (found.where, found.generator) == ("C2PA", None)
    assert "not checked" in found.says
    assert found.says.endswith("(to verify it: pip install 'faceauth[c2pa]')")


def test_hostile_text_is_short_and_printable():
    (found,) = claims(png(Software="NovelAI \x1b[31m\u202e\n" + "x" * 5000))
    assert len(found.says) <= LONGEST
    assert found.says.isprintable()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, jpeg()[:60], png()[:40]])
def test_broken_headers_say_nothing(data):
    assert claims(data) == ()


def test_text_made_to_be_slow_is_not():
    hostile = "Steps: 1 " * 7000 + '"model' * 7000
    assert claims(png(parameters=hostile))


def test_it_stands_beside_the_score_and_changes_nothing(detector, tmp_path):
    marked, plain = (tmp_path / name for name in ("marked.png", "plain.png"))
    marked.write_bytes(png(parameters=PARAMETERS))
    plain.write_bytes(png())
    one, other = detector.detect([marked, plain])
    assert one.faces == other.faces
    assert one.evidence[0].generator == "stable-diffusion"
    assert detector.detect(marked.read_bytes())[0].evidence == one.evidence
    assert other.evidence == ()
    assert detector.detect(Image.open(io.BytesIO(png(parameters=PARAMETERS))))[0].evidence == ()


def test_it_is_in_the_output(model_path, tmp_path):
    (tmp_path / "a.png").write_bytes(png(Software="NovelAI"))
    _, out, _ = faceauth("detect", tmp_path / "a.png", "--model", model_path)
    assert '"says_itself": ["PNG text \'Software\': NovelAI"]' in out
    assert Detector(model_path).detect(tmp_path / "a.png")[0].evidence[0].generator == "stable-diffusion"
