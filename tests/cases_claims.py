"""Every reported case of what a file says of itself, by its number: one line each, the file made here."""

import zlib

import pytest

from conftest import encoded, picture
from faceauth.provenance import claims
from metadata import (
    AIGC,
    COMFY_PROMPT,
    COMFY_WORKFLOW,
    EASY,
    IPTC,
    PARAMETERS,
    SWARM,
    comment,
    exif,
    heif,
    jpeg,
    mpo,
    png,
    source_type,
    stealth,
    tiff,
    with_chunk,
    xmp,
)

TRAINED = source_type(IPTC + "trainedAlgorithmicMedia")
TRAINED_SAYS = "trainedAlgorithmicMedia: made by a generator"
SETTINGS = "settings of a generator"
NAI_COMMENT = '{"prompt":"1girl","steps":28,"sampler":"k_euler","seed":1,"uc":"lowres"}'
JOB = "studio portrait, 85mm --ar 4:5 --v 7 Job ID: 0e1c9b7a-1111-4222-8333-444455556666"


def software(name):
    return lambda: jpeg({0x0131: name})


def settings_in(language):
    return f"{language}, 85mm\nNegative prompt: {language}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Model: x"


def comfy(text):
    return lambda: encoded(picture(), "WEBP", exif=exif({0x010F: COMFY_WORKFLOW, 0x0110: COMFY_PROMPT % text}))


def utf16(language, encoding, mark=b""):
    return lambda: comment(settings_in(language), encoding, mark)


def novelai(**more):
    return lambda: png(Title="AI generated image", Source="NovelAI Diffusion V4 37442FCA", Comment=NAI_COMMENT, **more)


def both(make):
    """EXIF Software and XMP DigitalSourceType in one file."""
    return lambda: make(exif=exif({0x0131: "Stable Diffusion 3"}), xmp=TRAINED)


# Case, how its file is made, where it says so, what is said (a beginning of it), the generator named.
CASES = [
    ("D02", lambda: mpo(source_type(IPTC + "compositeWithTrainedAlgorithmicMedia")), "XMP DigitalSourceType", "compositeWithTrained", None),
    ("C01", both(lambda **o: heif("HEIF", **o)), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C01-software", both(lambda **o: heif("HEIF", **o)), "EXIF Software", "Stable Diffusion 3", "stable-diffusion"),
    ("C01-avif", both(lambda **o: heif("AVIF", **o)), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C01-avif-software", both(lambda **o: heif("AVIF", **o)), "EXIF Software", "Stable Diffusion 3", "stable-diffusion"),
    ("C01b", both(lambda **o: encoded(picture(), "JPEG", **o)), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C02", utf16("a portrait", "utf-16-be"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C03", utf16("a portrait", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C05", utf16("人像", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C06", lambda: png(parameters=settings_in("肖像")), "PNG text 'parameters'", SETTINGS, "stable-diffusion"),
    ("C07", comfy("a face"), "EXIF Model", f"{SETTINGS} (ComfyUI), model juggernautXL_v9", "comfyui"),
    ("C08", comfy("in the style of midjourney, dall-e"), "EXIF Model", f"{SETTINGS} (ComfyUI)", "comfyui"),
    ("C11", lambda: png(Dream='"a woman" -s50 -W512 -H512 -C7.5 -Ak_lms -S42'), "PNG text 'Dream'", SETTINGS, "stable-diffusion"),
    ("C12", novelai(Software="NovelAI"), "PNG text 'Software'", "NovelAI", "novelai"),
    ("C13", novelai(), "PNG text 'Comment'", SETTINGS, "novelai"),
    ("C13-title", novelai(), "PNG text 'Title'", "AI generated image", None),
    ("C14", lambda: stealth('{"Software": "NovelAI", "Comment": "{}"}'), "alpha channel", f"{SETTINGS} (NovelAI)", "novelai"),
    ("C15", lambda: png(Description=JOB, Author="someone"), "PNG text 'Description'", "Job ID: 0e1c9b7a", "midjourney"),
    ("C17", lambda: png(**EASY), "PNG text", f"{SETTINGS} (Easy Diffusion), model sd-v1-5", "stable-diffusion"),
    ("C18", lambda: png(parameters=SWARM), "PNG text 'parameters'", f"{SETTINGS} (SwarmUI)", "stable-diffusion"),
    ("C19", lambda: comment(SWARM, "utf-16-be"), "EXIF UserComment", f"{SETTINGS} (SwarmUI)", "stable-diffusion"),
    ("C21", lambda: jpeg(xmp=xmp(f"<TC260:AIGC>{AIGC % 1}</TC260:AIGC>")), "XMP AIGC", "labelled AI-generated (GB 45438, Label 1)", None),
    *((f"C23-{kind}", lambda kind=kind: jpeg(xmp=source_type(IPTC + kind)), "XMP DigitalSourceType", kind, None)
      for kind in ("algorithmicMedia", "compositeSynthetic", "algorithmicallyEnhanced", "trainedAlgorithmicMedia")),
    ("C24", lambda: jpeg(xmp=source_type("trainedAlgorithmicMedia")), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C26", lambda: jpeg(xmp=xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>")), "XMP Credit", "Made with Google AI", "google-ai"),
    *((f"C27-{name}", software(name), "EXIF Software", name, generator) for name, generator in (
        ("Grok", "grok"), ("Nano Banana", "gemini"), ("HunyuanImage", "hunyuan"), ("Recraft V3", "recraft"),
        ("Bing Image Creator", "bing-image-creator"), ("Microsoft Designer", "bing-image-creator"),
        ("Playground v3", "playground"), ("Meta AI", "meta-ai"), ("Apple Image Playground", "apple-image-playground"),
        ("Canva Magic Media", "canva"), ("Runway Gen-4", "runway"), ("Stability AI", "stable-diffusion"),
        ("FaceApp", "faceapp"), ("Remini", "remini"), ("Lensa", "lensa"))),
    ("C31", lambda: encoded(picture(), "WEBP", xmp=TRAINED), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C32", lambda: with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TRAINED), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C33", lambda: with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(TRAINED)), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C34", lambda: tiff(7, TRAINED), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C34b", lambda: tiff(1, TRAINED), "XMP DigitalSourceType", TRAINED_SAYS, None),
    ("C35", lambda: jpeg(xmp=xmp(attributes='dcterms:provenance="https://cai.example/m/1"')), "C2PA",
     "credentials lie elsewhere and were not fetched: https://cai.example/m/1", None),
    ("C37-Grok", lambda: png(Software="Grok"), "PNG text 'Software'", "Grok", "grok"),
    ("C39-xiao-utf-16-be", utf16("肖像", "utf-16-be"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-xiao-utf-16-le", utf16("肖像", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-cyr-utf-16-be", utf16("портрет", "utf-16-be"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-cyr-utf-16-le", utf16("портрет", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-ar-utf-16-le", utf16("صورة", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-ja-utf-16-be", utf16("ポートレート", "utf-16-be"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C39-ja-utf-16-le", utf16("ポートレート", "utf-16-le"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C40", utf16("肖像", "utf-16-le", b"\xff\xfe"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C40-be", utf16("肖像", "utf-16-be", b"\xfe\xff"), "EXIF UserComment", SETTINGS, "stable-diffusion"),
    ("C41", lambda: jpeg({0x9C9C: PARAMETERS.encode("utf-16-le")}), "EXIF XPComment", SETTINGS, "stable-diffusion"),
    ("C42", lambda: jpeg({0x010E: PARAMETERS}), "EXIF ImageDescription", SETTINGS, "stable-diffusion"),
]  # fmt: skip

NO_CLAIM = [
    ("C29-Maria Gemini", lambda: jpeg({0x013B: "Maria Gemini"})),
    ("C29-Studio Flux GmbH", lambda: jpeg({0x013B: "Studio Flux GmbH"})),
    ("C29-f.lux 4.1", lambda: jpeg({0x0131: "f.lux 4.1"})),
    ("C29-Imagen Mobile X2", lambda: jpeg({0x0110: "Imagen Mobile X2"})),
    ("C29-Ideogram Design", lambda: jpeg({0x013B: "Ideogram Design"})),
    ("C29-Reface Photo Album 2", lambda: jpeg({0x0131: "Reface Photo Album 2"})),
    ("C36", lambda: jpeg({0x010F: "Canon"}) + b'tEXtprompt\0{"'),
]


@pytest.mark.parametrize(
    ("make", "where", "says", "generator"), [pytest.param(*rest, id=name) for name, *rest in CASES]
)
def test_a_case_that_says_what_made_it(make, where, says, generator):
    found = claims(make())
    assert any(e.where == where and e.says.startswith(says) and e.generator == generator for e in found), found


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in NO_CLAIM])
def test_a_case_that_says_nothing_of_a_generator(make):
    assert claims(make()) == ()


def test_a_prompt_that_names_another_generator_names_none():
    """C08: what a person typed is no claim; the old code took `midjourney` from it."""
    assert {e.generator for e in claims(comfy("in the style of midjourney, dall-e, flux")())} == {"comfyui"}
