import html
import io
import json
import struct
import sys
import time
import zlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from command_line import faceauth
from conftest import encoded, picture
from faceauth.detector import Detector
from faceauth.provenance import LONGEST, MOST, c2pa, claims, containers, generators
from metadata import (
    AIGC,
    IPTC,
    PARAMETERS,
    chunk,
    comment,
    exif,
    extended_xmp,
    heif,
    iptc,
    jpeg,
    png,
    raw_profile,
    source_type,
    stealth,
    with_chunk,
    with_segment,
    xmp,
)

SIGNATURE = "Signature: " + "A" * 80
UUID = "123e4567-e89b-12d3-a456-426614174000"
INVOKE = '{"app_version": "5.0", "positive_prompt": "flux", "model": {"name": "sdxl-base"}, "steps": 30, "seed": 1}'
FOOOCUS = '{"adm_guidance": "(1.5, 0.8)", "prompt": "midjourney", "base_model": "juggernautXL", "seed": "1"}'
DRAW_THINGS = (
    '{"c": "a face", "sampler": "DPM++", "scale": 7, "seed": 1, "model": "flux_1_dev_q8p.ckpt", "v2": {"steps": 20}}'
)
TRAINED = IPTC + "trainedAlgorithmicMedia"
PACKET = source_type(TRAINED)
LONG = xmp(
    f"<dc:title>{'x' * 70_000}</dc:title><Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>"
)
SAMSUNG = b'PhotoEditor_Re_Edit_Data{"originalPath":"x",%s"isBlending":true}SEFT'


@pytest.mark.parametrize(("data", "where", "generator"), [
    (png(parameters=PARAMETERS), "PNG text 'parameters'", "stable-diffusion"),
    (png(parameters="anything at all"), "PNG text 'parameters'", "stable-diffusion"),
    (png(parameters=PARAMETERS.replace("dreamshaper_8", "flux1-dev-fp8")), "PNG text 'parameters'", "flux"),
    (png(prompt='{"3": {"class_type": "KSampler", "inputs": {}}}'), "PNG text 'prompt'", "comfyui"),
    (png(prompt='{"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "qwen_image_fp8.safetensors"}}}'), "PNG text 'prompt'", "qwen-image"),
    (png(workflow='{"last_node_id": 9, "nodes": [{"type": "KSampler"}]}'), "PNG text 'workflow'", "comfyui"),
    (png(invokeai_metadata=INVOKE), "PNG text 'invokeai_metadata'", "stable-diffusion"),
    (png(Software="NovelAI"), "PNG text 'Software'", "novelai"),
    (png(AIGC=AIGC % 2), "PNG text 'AIGC'", None),
    (png(**{"hf-job-id": UUID}), "PNG text 'hf-job-id'", None),
    (with_chunk(png(), b"zTXt", b"parameters\0\0" + zlib.compress(PARAMETERS.encode())), "PNG text 'parameters'", "stable-diffusion"),
    (with_chunk(png(), b"tEXt", b"parameters\0" + PARAMETERS.encode(), last=True), "PNG text 'parameters'", "stable-diffusion"),
    (with_chunk(png(), b"eXIf", exif({0x0131: "Grok"}).tobytes()), "EXIF Software", "grok"),
    (with_chunk(png(), b"tEXt", b"Raw profile type exif\0\nexif\n      99\n" + exif({0x0131: "Grok"}).tobytes().hex().encode()), "EXIF Software", "grok"),
    (jpeg({0x010F: "flux"}), "EXIF Make", "flux"),
    (jpeg({0x010F: "Black Forest Labs", 0x0110: "flux.1-dev"}), "EXIF Make", "flux"),
    (jpeg({0x0131: "AI generated;txt2img;flux"}), "EXIF Software", "flux"),
    (jpeg({0x0131: "Midjourney 6.1"}), "EXIF Software", "midjourney"),
    (jpeg(sub={0x9286: b'ASCII\0\0\0{"prompt": "a face", "model": "flux", "seed": 3}'}), "EXIF UserComment", "flux"),
    (jpeg(sub={0x9286: b"ASCII\0\0\0" + FOOOCUS.encode()}), "EXIF UserComment", "stable-diffusion"),
    (jpeg({0x010E: PARAMETERS}), "EXIF ImageDescription", "stable-diffusion"),
    (jpeg({0x010E: SIGNATURE, 0x013B: UUID}), "EXIF ImageDescription", "grok"),
    (jpeg({0x010E: '{"AIGC":' + AIGC % 1 + "}"}), "EXIF ImageDescription", None),
    (jpeg({0x010E: '{"aigc_info":{"aigc_label_type":0,"source_info":"dreamina"}}'}), "EXIF ImageDescription", "doubao"),
    (jpeg(comment=PARAMETERS.encode()), "JPEG comment", "stable-diffusion"),
    (jpeg() + SAMSUNG % b'"genImageVersion":1,', "Samsung trailer", "samsung-galaxy-ai"),
    (with_segment(jpeg(), 0xED, iptc(_110="Made with Google AI")), "IPTC Credit", "google-ai"),
    (with_segment(jpeg(), 0xED, iptc(_65="Adobe Firefly 3")), "IPTC Originating Program", "firefly"),
    (jpeg(xmp=b'<x Iptc4xmpExt:DigitalSourceType="' + IPTC.encode() + b'trainedAlgorithmicMedia"/>'), "XMP DigitalSourceType", None),
    (jpeg(xmp=xmp(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{IPTC}trainedAlgorithmicMedia"/>')), "XMP DigitalSourceType", None),
    (jpeg(xmp=source_type("digsrctype:trainedAlgorithmicMedia")), "XMP DigitalSourceType", None),
    (jpeg(xmp=b'<rdf xmp:CreatorTool="Adobe Firefly 2"/>'), "XMP CreatorTool", "firefly"),
    (jpeg(xmp=xmp("<Iptc4xmpExt:AISystemUsed>Some new thing</Iptc4xmpExt:AISystemUsed>")), "XMP AISystemUsed", None),
    (jpeg(xmp=xmp("<Iptc4xmpExt:AISystemUsed>DALL-E 3</Iptc4xmpExt:AISystemUsed>")), "XMP AISystemUsed", "dall-e"),
    (jpeg(xmp=xmp(f"<exif:UserComment><rdf:Alt><rdf:li xml:lang='x-default'>{DRAW_THINGS}</rdf:li></rdf:Alt></exif:UserComment>")), "XMP UserComment", "flux"),
    (jpeg(xmp=xmp('<xmp:CreatorTool>Draw Things</xmp:CreatorTool>')), "XMP CreatorTool", "draw-things"),
    (jpeg(xmp=xmp(attributes="TC260:AIGC='" + (AIGC % 1).replace('"', "&quot;") + "'")), "XMP AIGC", None),
    (encoded(picture(), "WEBP", exif=exif({0x0131: "Grok"})), "EXIF Software", "grok"),
    (encoded(picture(), "GIF", comment=PARAMETERS.encode()), "GIF comment", "stable-diffusion"),
    (encoded(picture(), "TIFF", tiffinfo={0x0131: "Midjourney"}), "EXIF Software", "midjourney"),
    (stealth(PARAMETERS, b"stealth_pnginfo"), "alpha channel", "stable-diffusion"),
    (stealth(PARAMETERS, format="WEBP"), "alpha channel", "stable-diffusion"),
    (stealth(PARAMETERS, b"stealth_pngcomp", (90, 200)), "alpha channel", "stable-diffusion"),
    (stealth(PARAMETERS, b"stealth_rgbcomp", (90, 200)), "colour channels", "stable-diffusion"),
    (stealth(PARAMETERS, b"stealth_rgbinfo"), "colour channels", "stable-diffusion"),
])  # fmt: skip
def test_a_file_that_says_what_made_it(data, where, generator):
    found = claims(data)
    assert (where, generator) in [(e.where, e.generator) for e in found], found
    assert all(e.says for e in found)


@pytest.mark.parametrize("data", [
    png(), png(Software="GIMP 2.10", Comment="flux of light"), png(prompt="a person said: be prompt"),
    png(Comment="a street, flux, gemini"), png(Author="Gemini", Title="Flux"), png(Source="Gemini"),
    jpeg({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "Adobe Photoshop 25.0"}), jpeg({0x010F: "Planet", 0x0110: "Gemini"}),
    jpeg({0x010E: "My midjourney through the fluxes of Openairport"}), jpeg({0x013B: "Reinhold Stylegangl"}),
    jpeg({0x0131: "Fluxbox 1.3"}), jpeg({0x0131: "Imagenomic Portraiture 4"}), jpeg({0x013B: "Flux"}),
    jpeg({0x010E: "Steps: 5 to the garden. Model: Anna"}), jpeg({0x010E: SIGNATURE}), jpeg({0x013B: UUID}),
    jpeg({0x010E: '{"model": "SM-G991B", "iso": 100}'}), jpeg(sub={0x9286: b"ASCII\0\0\0{}"}),
    jpeg(xmp=xmp("<photoshop:Credit>Gemini Picture Agency</photoshop:Credit>")),
    jpeg(xmp=xmp("<photoshop:Credit>Gemini</photoshop:Credit><xmp:CreatorTool>f.lux</xmp:CreatorTool>")),
    jpeg(xmp=xmp("<dc:creator>Midjourney</dc:creator>")), jpeg(xmp=xmp(attributes='dcterms:provenance="self#jumbf=c2pa"')),
    jpeg(xmp=source_type("a photograph")), jpeg(comment=b"a comment"), jpeg() + SAMSUNG % b"", jpeg() + SAMSUNG % b'"genAIType":0,',
    encoded(Image.effect_noise((64, 64), 90).convert("RGBA")), png(Label='{"Label": "1"}'),
])  # fmt: skip
def test_what_says_nothing_of_a_generator_is_no_claim(data):
    assert claims(data) == ()


@pytest.mark.parametrize("value", ["1", "2", "3", "9"])
def test_the_values_of_chinas_label_are_told_apart(value):
    (found,) = claims(jpeg(xmp=xmp(f"<TC260:AIGC>{AIGC % value}</TC260:AIGC>")))
    words = {"1": "labelled AI-generated", "2": "labelled possibly", "3": "labelled suspected"}
    assert found.says.startswith(words.get(value, "labelled with a value that the standard does not have"))
    assert f"Label {value}" in found.says


@pytest.mark.parametrize("kind", [
    "digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print", "humanEdits", "compositeCapture",
    "composite", "algorithmicallyEnhanced", "dataDrivenMedia", "digitalArt", "digitalCreation", "virtualRecording",
    "compositeSynthetic", "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia", "algorithmicMedia", "screenCapture",
    "minorHumanEdits", "multiFrameComputationalCapture", "softwareImage",
])  # fmt: skip
@pytest.mark.parametrize("prefix", [IPTC, IPTC.replace("http:", "https:"), "digsrctype:", ""])
def test_every_digital_source_type_is_shown(kind, prefix):
    (found,) = claims(jpeg(xmp=source_type(prefix + kind)))
    assert found.says.startswith(f"{kind}: ")
    assert not found.says.endswith("another origin")


@pytest.mark.parametrize("data", [
    jpeg(xmp=PACKET.decode().encode("utf-16-le")), jpeg(xmp=PACKET.decode().encode("utf-16-be")),
    jpeg(xmp=b"\xff\xfe" + PACKET.decode().encode("utf-16-le")), jpeg(xmp=b"\xef\xbb\xbf" + PACKET),
    jpeg(xmp=PACKET.replace(b"<Iptc4xmpExt", b"<dc:title>caf\xe9</dc:title><Iptc4xmpExt", 1)),
    jpeg(xmp=xmp(f"<Iptc4xmpExt:DigitalSourceType><rdf:Bag><rdf:li rdf:resource='{TRAINED}'/></rdf:Bag></Iptc4xmpExt:DigitalSourceType>")),
    jpeg(xmp=xmp(f"<Iptc4xmpExt:DigitalSourceType><rdf:Description rdf:value='{TRAINED}'/></Iptc4xmpExt:DigitalSourceType>")),
    jpeg(xmp=source_type(TRAINED + "?lang=en")), jpeg(xmp=source_type(TRAINED + "/#")),
    jpeg(xmp=source_type("DigSrcType:trainedAlgorithmicMedia")), jpeg(xmp=source_type("Trained Algorithmic Media")),
    with_chunk(png(), b"zTXt", raw_profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + PACKET)),
    extended_xmp(LONG, (0, 40_000), (40_000, 80_000)), extended_xmp(LONG, (40_000, 80_000), (0, 40_000)),
    with_segment(jpeg(), 0xED, b"Photoshop 3.0\x008BIM\x04\x24\0\0" + len(PACKET).to_bytes(4, "big") + PACKET),
    b"\r\n" * 100 + jpeg(xmp=PACKET), b"\n" + encoded(picture(), "WEBP", xmp=PACKET),
    b"\n" + with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET),
])  # fmt: skip
def test_a_digital_source_type_however_it_is_written_and_wherever_it_lies(data):
    assert [e.says for e in claims(data)] == ["trainedAlgorithmicMedia: made by a generator"]


@pytest.mark.parametrize(("code", "encoding"), [
    (b"\0" * 8, "utf-16-le"), (b"ASCII\0\0\0", "utf-16-be"), (b"Unicode\0", "utf-16-le"), (b"UNICODE\0", "utf-32-le"),
    (b"unicode ", "utf-16-be"), (b"", "utf-16-le"), (b"UNICODE\0", "utf-8"), (b"JIS\0\0\0\0\0", "utf-8"),
])  # fmt: skip
def test_a_comment_whose_character_code_is_not_its_encoding(code, encoding):
    (found,) = claims(jpeg(sub={0x9286: code + PARAMETERS.encode(encoding)}))
    assert found.says == "settings of a generator, model dreamshaper_8"


SENTENCES = {
    "Created with DALL·E 3": "dall-e", "Generated by Midjourney": "midjourney", "AI-generated by ChatGPT": "openai",
    "This image was created with the assistance of DALL-E": "dall-e", "Made with Imagine from Meta AI": "meta-ai",
    "Image generated by AI": None, "AI-generated content": None, "Created using generative AI": None,
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("make", [
    lambda text: jpeg({0x010E: text.encode()}), lambda text: png(Description=text), lambda text: png(Comment=text),
    lambda text: jpeg(comment=text.encode()), lambda text: jpeg(xmp=xmp(f"<dc:description>{text}</dc:description>")),
    lambda text: jpeg(xmp=xmp(f"<dc:subject><rdf:Bag><rdf:li>face</rdf:li><rdf:li>{text}</rdf:li></rdf:Bag></dc:subject>")),
    lambda text: with_segment(jpeg(), 0xED, iptc(_25=text)), lambda text: jpeg(xmp=source_type(text)),
    lambda text: jpeg({0x8298: text.encode()}), lambda text: jpeg(xmp=xmp(attributes=f"photoshop:Headline='{text}'")),
])  # fmt: skip
def test_a_sentence_that_says_what_made_it_is_a_claim_in_any_field(make, sentence):
    assert [(e.says, e.generator) for e in claims(make(sentence))] == [(sentence, SENTENCES[sentence])]


@pytest.mark.parametrize("text", [
    "Made by Sora", "Photo by Gemini", "Made with love", "Created by Reve Johnson", "A talk on generative AI",
    "artificial intelligence", "Edited with Photoshop, for Gemini", "Generated traffic", "made in Firefly, Alaska",
])  # fmt: skip
def test_a_sentence_that_may_mean_a_person_or_a_subject_is_none(text):
    assert claims(jpeg({0x010E: text.encode()})) == claims(png(Comment=text)) == ()


def test_settings_that_were_encoded_twice_are_read():
    twice = json.dumps(json.dumps({"prompt": "1girl", "steps": 28, "uc": "lowres"}))
    assert claims(png(Comment=twice))[0].generator == "novelai"
    escaped = html.escape(html.escape(DRAW_THINGS))
    assert claims(jpeg(xmp=xmp(f"<exif:UserComment>{escaped}</exif:UserComment>")))[0].generator == "flux"
    for name in ("AIGC", "aigc"):
        assert claims(jpeg(xmp=xmp(f"<TC260:{name}>{(AIGC % 1).replace(chr(34), chr(39))}</TC260:{name}>")))


def test_a_bigtiff_says_the_same_as_a_tiff():
    texts = {0x010E: PARAMETERS, 0x0131: "Midjourney v6"}
    small, big = (encoded(picture(), "TIFF", tiffinfo=texts, big_tiff=big) for big in (False, True))
    assert big[:4] == b"II+\0"
    assert len(claims(small)) == 2
    assert claims(small) == claims(big)


def test_a_source_type_of_the_future_is_shown_by_its_url_alone():
    assert claims(jpeg(xmp=source_type(IPTC + "dreamtMedia")))[0].says == "dreamtMedia: another origin"
    assert claims(jpeg(xmp=source_type("dreamtMedia"))) == ()


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_comment_of_signs_alone_is_read_in_either_order(order):
    """Hardly an ASCII letter in it: the order follows from those few."""
    prompt = "肖像" * 2000 + ", Steps: 20, Sampler: 欧拉, Model: 麦橘写实"
    (found,) = claims(comment(prompt, order))
    assert found.says == "settings of a generator, model 麦橘写实"


@pytest.mark.parametrize("data", [jpeg(comment=c2pa.MARK), b"\0\0\0\x18ftypheic" + c2pa.MARK])
def test_without_the_extra_a_manifest_is_named_and_not_believed(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setattr(c2pa, "_library", c2pa._library.__wrapped__)
    (found,) = claims(data)
    assert (found.where, found.generator) == ("C2PA", None)
    assert "not checked" in found.says
    assert found.says.endswith("(to verify it: pip install 'faceauth[c2pa]')")


def test_hostile_text_is_short_and_printable():
    model = "\x1b[31m\u202e\u0000" + "x" * 5000
    for data in (png(parameters=f"Steps: 1, Sampler: a, Model: {model}"), jpeg({0x0131: "Grok\x1b[31m"}),
                 with_chunk(png(), b"tEXt", b"hf-job-id\0\x1b]0;title\x07" + b"y" * 999)):  # fmt: skip
        for found in claims(data):
            assert len(found.says) <= LONGEST
            assert found.says.isprintable()
            assert found.where.isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        jpeg()[:60],
        png()[:40],
        b"II*\0",
        b"MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_broken_headers_say_nothing(data):
    assert claims(data) == ()


def test_what_stands_before_a_broken_part_is_still_read():
    packet = source_type(IPTC + "trainedAlgorithmicMedia")
    assert claims(jpeg(xmp=packet[:-50])) == claims(jpeg(xmp=packet)) != ()
    data = with_chunk(png(), b"tEXt", b"parameters\0" + PARAMETERS.encode())
    assert claims(data[:300]) == claims(data) != ()


BILLION = b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'">' + b"".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">'.encode() for n in range(9)
) + b"]><x xmp:CreatorTool='&j;'/>"  # fmt: skip
ENTRIES = b"II*\0\x08\0\0\0\xff\xff" + b"\x0e\x01\x02\0\xff\xff\xff\0\0\0\0\0" * 65535
HOSTILE = {
    "50 MB of text in a chunk": lambda: with_chunk(png(), b"tEXt", b"parameters\0" + b"Steps: 1 " * 5_500_000),
    "50 MB of text in XMP": lambda: with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x>" + b"<y>a</y>" * 6_000_000),
    "a zlib bomb in iTXt": lambda: with_chunk(png(), b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(bytes(30_000_000), 1)),
    "a zlib bomb in zTXt": lambda: with_chunk(png(), b"zTXt", b"parameters\0\0" + zlib.compress(bytes(30_000_000), 1)),
    "bombs by the hundred": lambda: png()[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10_000_000), 1)) * 400 + png()[33:],
    "a million chunks": lambda: png()[:33] + chunk(b"tEXt", b"parameters\0x") * 1_000_000 + png()[33:],
    "halves of settings": lambda: png(parameters='{"c":' * 50_000 + '"imageWidth":' * 20_000),
    "settings upon settings": lambda: png(parameters="Steps: 1 " * 30_000 + '"model' * 7000 + "-s1 " * 9000),
    "XMP nested without end": lambda: jpeg(xmp=b"<rdf:a>" * 9000),
    "XMP of one deep chain": lambda: with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<rdf:a>" * 500_000),
    "a billion laughs": lambda: jpeg(xmp=BILLION),
    "EXIF with every entry the same": lambda: with_chunk(png(), b"eXIf", ENTRIES + bytes(3_000_000)),
    "EXIF that points at itself": lambda: jpeg()[:2] + b"\xff\xe1\0\x1eExif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\4\0\1\0\0\0\x08\0\0\0" + jpeg()[2:],
    "spaces": lambda: png(parameters='{"prompt"' + " " * 250_000 + '"steps"' + " " * 9),
    "markup": lambda: png(parameters="<script>alert(1)</script>" * 9000),
    "NUL and control characters": lambda: png(Software="\x01\x02\x7f" * 9000, parameters="\x1b[2J" * 9000),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in HOSTILE.items()])
def test_hostile_metadata_take_bounded_time(make):
    """Up to four seconds on a slow and busy machine; the quadratic forms of the same would take minutes."""
    data = make()
    start = time.process_time()
    found = claims(data)
    assert time.process_time() - start < 12
    assert len(found) <= MOST
    assert all(len(e.says) <= LONGEST and e.says.isprintable() for e in found)


def test_what_a_bomb_unfolds_to_is_bounded():
    blocks = containers.read(HOSTILE["a zlib bomb in zTXt"]())
    assert [len(text) for _, text in blocks.texts] == [containers.TEXT]


def test_the_same_claim_is_shown_once():
    data = png()[:33] + chunk(b"tEXt", b"Software\0NovelAI") * 50 + png()[33:]
    assert len(claims(data)) == 1


def test_a_large_picture_is_not_decoded_for_its_alpha_channel(monkeypatch):
    from faceauth.provenance import stealth as hidden

    data = stealth(PARAMETERS)
    assert claims(data)
    monkeypatch.setattr(hidden, "MOST_PIXELS", 64 * 64 - 1)
    assert claims(data) == ()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_mode_and_many_rows_hides_nothing(mode):
    assert claims(encoded(Image.new(mode, (130, 130)))) == ()


def test_a_png_is_decoded_only_where_its_first_column_begins_with_a_signature(monkeypatch):
    """Of every filter that PNG has: the column that is looked at is that of the decoded picture."""
    from faceauth.provenance import stealth as hidden

    pixels = np.random.default_rng(1).integers(0, 256, (150, 40, 3), np.uint8)
    filters = bytes(n % 5 for n in range(150))
    data = filtered(pixels, filters)
    assert (hidden._first_column(data, 40, 3)[:, 0] == np.asarray(Image.open(io.BytesIO(data)))[: hidden.ROWS, 0]).all()
    monkeypatch.setattr(hidden.Image, "open", mock.Mock(side_effect=AssertionError))
    assert claims(data) == claims(png(picture(size=(150, 150)))) == ()


def filtered(pixels, filters):
    """A PNG of RGB pixels (H, W, 3) whose rows are filtered as given."""
    height, width, _ = pixels.shape
    rows, above = [], np.zeros((width, 3), int)
    for row, kind in zip(pixels.astype(int), filters, strict=True):
        left, corner = (np.vstack([np.zeros((1, 3), int), r[:-1]]) for r in (row, above))
        p = left + above - corner
        apart = np.abs([p - left, p - above, p - corner])
        paeth = np.choose(apart.argmin(axis=0), [left, above, corner])
        guess = (0 * row, left, above, (left + above) // 2, paeth)[kind]
        rows.append(bytes([kind]) + ((row - guess) & 255).astype(np.uint8).tobytes())
        above = row
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def test_bytes_are_not_read_again_and_pixels_have_nothing_to_read(tmp_path, monkeypatch):
    data = png(Software="NovelAI")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = claims(path)
    assert len(expected) == 1
    assert claims(str(path)) == claims(bytearray(data)) == claims(memoryview(data)) == expected
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda *_: pytest.fail("a file was read"))
    assert claims(data) == expected
    assert (
        claims(picture())
        == claims(None)
        == claims(5)
        == claims(tmp_path)
        == claims(tmp_path / "none")
        == claims("a\0b")
        == ()
    )


def test_every_name_is_one_generators():
    import tomllib

    data = tomllib.loads(generators.FILE.read_text(encoding="utf-8"))
    seen = {}
    for generator, entry in data["generators"].items():
        assert entry["maker"]
        assert set(entry) <= {"maker", "names", "words", "weights"}
        for name in {generators._plain(n) for n in [*entry.get("names", []), *entry.get("words", [])]}:
            assert seen.setdefault(name, generator) == generator
    assert list(data["generators"]) == sorted(data["generators"])
    for name in [n for entry in data["generators"].values() for n in entry.get("names", [])]:
        assert generators.software(name), name


@pytest.mark.parametrize("name", ["Seedream 4.0", "Qwen-Image-Edit-2509", "GPT-4o", "gpt-image-1", "Gemini 2.5 Flash Image", "FLUX.2 [pro]",
    "Grok Imagine", "Midjourney v7", "Ideogram 3.0", "Imagen 4 Ultra", "Kling AI 2.1", "Reve Image 1.0", "Krea 1", "Leonardo.Ai",
    "Luma Photon", "即梦AI", "Sora", "OpenAI gpt-image-1", "Microsoft Bing Image Creator", "FLUX.2 [klein]", "niji 6", "www.midjourney.com",
    "https://www.midjourney.com", "Adobe Photoshop Generative Fill", "Microsoft Paint Cocreator", "StyleGAN2-ADA", "Google AI Studio", "imagen-4.0-ultra-generate-001", "wan2.5-t2i", "Magnific", "LivePortrait", "Firefly Image 4", "HiDream-I1-Full", "Hunyuan Image 3.0", "stabilityai/stable-diffusion-3-medium"])  # fmt: skip
def test_names_of_2025_and_2026_in_a_field_of_software(name):
    assert [e.where for e in claims(jpeg({0x0131: name.encode()}))] == ["EXIF Software"]


def test_heic_and_avif_say_the_same_as_a_jpeg():
    options = {"exif": exif({0x0131: "Stable Diffusion 3"}), "xmp": source_type(IPTC + "trainedAlgorithmicMedia")}
    expected = claims(encoded(picture(), "JPEG", **options))
    assert len(expected) == 2
    assert claims(heif("HEIF", **options)) == claims(heif("AVIF", **options)) == expected


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
    assert Detector(model_path).detect(tmp_path / "a.png")[0].evidence[0].generator == "novelai"
