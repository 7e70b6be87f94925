"""What an image file says of its own making: EXIF, XMP, PNG text, a JPEG comment, a C2PA manifest.

A claim is evidence to be shown beside a score and never a part of it: anybody can write it, and any upload removes
it. Headers are read with Pillow, no pixel is decoded. It knows nothing of models, nor how a manifest is verified.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import ExifTags, Image

from faceauth import credentials
from faceauth.errors import ImageError, MissingExtra
from faceauth.images import FORMATS, Source
from faceauth.verdict import Evidence

LONGEST = 120  # characters of a claim that are shown
READ = 65_536  # characters of a field that are looked at
WHOLE_NAME = ("Make", "Model", "Software", "ProcessingSoftware", "Artist", "HostComputer")
FREE_TEXT = ("ImageDescription", "UserComment", "XPComment")

# Names that make a short field a claim. Free text is not searched for them: a prompt may name anything.
GENERATORS = {
    "flux": r"flux",
    "stable-diffusion": r"stable[ _-]?diffusion|sdxl|automatic1111|comfyui|invoke-?ai|fooocus|dreamstudio|novelai",
    "midjourney": r"midjourney",
    "dall-e": r"dall[ -]?e|openai|chatgpt|gpt-image",
    "firefly": r"adobe[ _]firefly",
    "imagen": r"imagen|google ai|made with google|gemini",
    "ideogram": r"ideogram",
    "leonardo": r"leonardo\.?ai",
    "stylegan": r"stylegan|thispersondoesnotexist|generated photos",
    "faceswap": r"faceswap|deepfacelab|roop|facefusion|reface",
}
_NAMES = {name: re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])", re.IGNORECASE) for name, pattern in GENERATORS.items()}
# Text chunks that only a program for making pictures writes, whatever they hold.
_CHUNKS = {
    "parameters": "stable-diffusion", "sd-metadata": "stable-diffusion", "invokeai_metadata": "stable-diffusion",
    "invokeai_graph": "stable-diffusion", "dream": "stable-diffusion", "workflow": None, "prompt": None,
}  # fmt: skip
_PARAMETERS = (re.compile(r"\bsteps: \d", re.IGNORECASE), re.compile(r"\bsampler: \w", re.IGNORECASE))
_SETTINGS = re.compile(r'"(?:prompt|negative_prompt|class_type|cfg_scale|sampler_name)"\s*:', re.IGNORECASE)
_MODEL = re.compile(r'(?:"model"\s*:\s*"|\bmodel: )([^",\n]{1,60})', re.IGNORECASE)
_SOURCE_TYPE = re.compile(r"digitalsourcetype/((?:compositeWith)?TrainedAlgorithmicMedia)", re.IGNORECASE)
_SYSTEM = re.compile(r"(?:CreatorTool|AISystemUsed|Credit)(?:>|=[\"'])\s*([^<\"']{1,200})")
# What a manifest calls the origin of a picture: IPTC NewsCodes, digital source type.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "made by a generator",
    "compositeWithTrainedAlgorithmicMedia": "parts of it made by a generator",
    "algorithmicMedia": "made by a program without training data",
    "compositeSynthetic": "parts of it made by a program",
    "digitalCapture": "taken with a camera",
    "computationalCapture": "taken with a camera, of several exposures",
    "negativeFilm": "scanned from film",
    "positiveFilm": "scanned from film",
    "print": "scanned from a print",
    "screenCapture": "taken from a screen",
    "digitalCreation": "drawn by a person",
    "digitalArt": "drawn by a person",
}


def claims(source: Source) -> tuple[Evidence, ...]:
    """What the file says of a generator or of a signed origin; empty where it says nothing, or cannot be read.

    Args:
        source: a path or a file's bytes; for pixels in memory there is nothing to read.
    """
    if not isinstance(source, str | os.PathLike | bytes | bytearray):
        return ()
    try:
        data = bytes(source) if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
    except OSError:
        return ()
    return (*_signed(data), *_headers(data))


def _signed(data: bytes) -> Iterator[Evidence]:
    """What the C2PA manifest says, and first of all whether it holds."""
    try:
        found = credentials.read(data)
    except MissingExtra as missing:
        says = f"carries a C2PA manifest; its signature is not checked here (to verify it: {missing.hint})"
        yield Evidence("C2PA", says, None)
    except ImageError as error:
        yield Evidence("C2PA", clean(error.message), None)
    else:
        yield from _credentials(found) if found else ()


def _credentials(found: credentials.Credentials) -> Iterator[Evidence]:
    yield Evidence("C2PA", clean(_state(found)), None)
    if found.signer:
        yield Evidence("C2PA signer", clean(found.signer), None)
    for generator in found.generators:
        yield Evidence("C2PA claim generator", clean(generator), _generator(generator))
    for made in found.made:
        kind = f"{made.source_type}: {SOURCE_TYPES.get(made.source_type, 'another origin')}"
        says = f"{kind} ({made.action}{f' with {made.tool}' if made.tool else ''})"
        yield Evidence("C2PA digitalSourceType", clean(says), _generator(made.tool))


def _state(found: credentials.Credentials) -> str:
    if found.state == "broken":
        changed = "mismatch" in found.failure
        why = "the file was changed after it was signed" if changed else "the manifest does not hold"
        return f"broken: {why} ({found.failure or 'no reason given'})"
    signer = {"trusted": "is on a trust list", "expired": "is not known here, its certificate has expired"}
    return f"signature and hashes hold; the signer {signer.get(found.state, 'is not known here')}"


def _headers(data: bytes) -> list[Evidence]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return list(_found(image))
        except Exception:  # a hostile header can raise anything at all; the pixels have been judged all the same
            return []


def _found(image: Image.Image) -> Iterator[Evidence]:
    for where, text in _fields(image):
        yield from _named(where, text)
    xmp = _text(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or "")
    if kind := _SOURCE_TYPE.search(xmp):
        yield Evidence("XMP DigitalSourceType", clean(kind[1]), None)
    for system in _SYSTEM.finditer(xmp):
        yield from _named("XMP", system[1])
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str) and image.format == "PNG":
            yield from _chunk(key, value[:READ])


def _fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    """EXIF fields and the JPEG comment; of free text only what a program wrote, not what a person may have typed."""
    exif = image.getexif()
    every = dict(exif) | dict(exif.get_ifd(ExifTags.IFD.Exif))
    for tag, value in every.items():
        name, text = ExifTags.TAGS.get(tag, ""), _text(value)
        if name in WHOLE_NAME:
            yield f"EXIF {name}", text
        elif name in FREE_TEXT and (said := _settings(text)):
            yield f"EXIF {name}", said
    if said := _settings(_text(image.info.get("comment", ""))):
        yield "JPEG comment", said


def _settings(text: str) -> str:
    """What a generator's settings in a free text say of the model; empty where the text holds no settings."""
    if not (all(p.search(text) for p in _PARAMETERS) or _SETTINGS.search(text)):
        return ""
    model = _MODEL.search(text)
    return f"settings of a generator, model {model[1].strip()}" if model else "settings of a generator"


def _generator(text: str) -> str | None:
    return next((name for name, pattern in _NAMES.items() if pattern.search(text[:READ])), None)


def _named(where: str, text: str) -> Iterator[Evidence]:
    name = _generator(text)
    if name or text.startswith("settings of a generator"):
        yield Evidence(where, clean(text), name)


def _chunk(key: str, text: str) -> Iterator[Evidence]:
    where = f"PNG text {clean(key)!r}"
    if key.lower() == "software":
        yield from _named(where, text)
    elif key in _CHUNKS and (said := _settings(text) or (_CHUNKS[key] and "settings of a generator")):
        found = next(iter(_named(where, str(said))), None)
        yield Evidence(where, clean(str(said)), (found.generator if found else None) or _CHUNKS[key])


def _text(value: object) -> str:
    """A field as text: UserComment's character code is dropped, UTF-16 decoded, its length limited."""
    if isinstance(value, bytes | bytearray):
        data = bytes(value[: 2 * READ])
        if data[:8] in {b"ASCII\0\0\0", b"\0" * 8}:
            data = data[8:]
        elif data[:8] == b"UNICODE\0":
            return data[8:].decode("utf-16-be" if data[8:9] == b"\0" else "utf-16-le", "replace")[:READ]
        elif data[1:2] == b"\0":
            return data.decode("utf-16-le", "replace")[:READ]
        return data.decode("utf-8", "replace")[:READ]
    return str(value)[:READ] if isinstance(value, str) else ""


def clean(text: str) -> str:
    """One short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
