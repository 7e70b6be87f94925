"""What EXIF, XMP, IPTC records and comments say of a generator, and where a file says its credentials lie."""

import contextlib
import html
import re
from collections.abc import Iterator
from xml.parsers import expat

from faceauth.provenance import generators, settings
from faceauth.provenance.containers import PACKET, TEXT, Blocks, decoded
from faceauth.provenance.exif import IPTC, XMP, Exif
from faceauth.provenance.settings import Claim

Field = tuple[str, str]  # name and text
DEEPEST = 64  # elements within elements
MOST_PACKETS = 4  # XMP packets of a file that are read
MOST_VALUES = 16  # values of one XMP property that are kept

# IPTC NewsCodes, digital source type (https://cv.iptc.org/newscodes/digitalsourcetype/), with the retired ones, and
# those that the C2PA specification adds.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "made by a generator",
    "compositeWithTrainedAlgorithmicMedia": "parts of it made by a generator",
    "algorithmicMedia": "made by a program without training data",
    "compositeSynthetic": "parts of it made by a program",
    "algorithmicallyEnhanced": "changed by a program",
    "dataDrivenMedia": "drawn from data by a program",
    "trainedAlgorithmicData": "data made by a generator",
    "virtualRecording": "recorded from a virtual scene",
    "digitalCapture": "taken with a camera",
    "computationalCapture": "taken with a camera, of several exposures",
    "multiFrameComputationalCapture": "taken with a camera, of several exposures",
    "compositeCapture": "put together of several photographs",
    "composite": "put together of several pictures",
    "humanEdits": "edited by a person",
    "minorHumanEdits": "edited a little by a person",
    "negativeFilm": "scanned from film",
    "positiveFilm": "scanned from film",
    "print": "scanned from a print",
    "screenCapture": "taken from a screen",
    "digitalCreation": "drawn by a person",
    "digitalArt": "drawn by a person",
    "softwareImage": "drawn by a program",
    "empty": "an empty picture",
}
GENERATED = frozenset(("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"))
CAPTURED = frozenset(("digitalCapture", "computationalCapture", "multiFrameComputationalCapture"))
_TYPES = {name.casefold(): name for name in SOURCE_TYPES}
_URL_TYPE = re.compile(r"digitalsourcetype[/:#]([A-Za-z]{1,60})/?(?:[?#].*)?$", re.IGNORECASE)

_SOFTWARE = (
    "Software",
    "ProcessingSoftware",
    "RAWDevelopingSoftware",
    "ImageEditingSoftware",
    "MetadataEditingSoftware",
)
_MAKERS = ("Make", "Model", "HostComputer")
_XMP_SOFTWARE = ("CreatorTool", "softwareAgent", "Software")
_XMP_MAKERS = ("Make", "Model", "Credit", "Source")
_XMP_TEXTS = (
    "UserComment", "ImageDescription", "description", "parameters", "Description", "Instructions", "comment", "title",
    "subject", "rights", "UsageTerms", "Headline",
)  # fmt: skip
_IPTC_NAMES = {
    5: "Title", 25: "Keywords", 40: "Special Instructions", 65: "Originating Program", 105: "Headline", 110: "Credit",
    115: "Source", 116: "Copyright", 120: "Caption",
}  # fmt: skip
# xAI's downloads: a signature in one field, the picture's public id in another; only both together are theirs.
_XAI = re.compile(r"Signature:\s*[A-Za-z0-9+/=]{64,}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def read(blocks: Blocks) -> Iterator[tuple[str, Claim]]:
    """Field and claim of everything in EXIF, XMP, IPTC and comments that speaks of a generator or of an origin."""
    directories = [Exif(block) for block in blocks.exif]
    for exif in directories:
        yield from _exif(list(exif.texts()))
    for packet in packets(blocks):
        yield from _xmp(properties(packet))
    for record in (*blocks.iptc, *filter(None, (exif.block(IPTC) for exif in directories))):
        yield from _iptc(record)
    for comment in blocks.comments:
        if claim := settings.told(decoded(comment)):
            yield f"{blocks.format} comment", claim
    if claim := _samsung(blocks.trailer):
        yield "Samsung trailer", claim


def source_type(text: str) -> str | None:
    """The digital source type that a value names: a URL, a short code, a bare name, one in words; None for none."""
    text = text.strip()
    found = _URL_TYPE.search(text)
    name = found[1] if found else re.sub(r"^digsrctype:|[\s_-]", "", text, flags=re.IGNORECASE)
    return _TYPES.get(name.casefold(), name if found else None)


def described(kind: str) -> str:
    """A digital source type with what it means."""
    return f"{kind}: {SOURCE_TYPES.get(kind, 'another origin')}"


def packets(blocks: Blocks) -> list[bytes]:
    """Every XMP packet of a file, those that a TIFF structure holds among them."""
    return [*blocks.xmp, *filter(None, (Exif(block).block(XMP) for block in blocks.exif))][:MOST_PACKETS]


def remote(blocks: Blocks) -> list[str]:
    """Where XMP says that a C2PA manifest lies on the web (C2PA specification 2, section 11.5)."""
    found = [v.strip() for packet in packets(blocks) for v in properties(packet).get("provenance", ())]
    return [v for v in found if v.lower().startswith(("https://", "http://"))][:4]


def _exif(fields: list[Field]) -> Iterator[tuple[str, Claim]]:
    by_name = dict(reversed(fields))
    for name, text in fields:
        if name == "Artist":  # a person's name is never a generator's
            continue
        claim = settings.read(text) or _program(name, text)  # a prompt within settings may name anything
        if claim := claim or settings.sentence(text):
            yield f"EXIF {name}", claim
    if _XAI.match(by_name.get("ImageDescription", "")) and _UUID.fullmatch(by_name.get("Artist", "").strip()):
        yield "EXIF ImageDescription", Claim("a signature of xAI, with the picture's id as Artist", "grok")


def _program(name: str, text: str) -> Claim | None:
    """What a field that names a program or a device says."""
    named = None
    if name in _SOFTWARE:
        named = generators.software(text)
    elif name in _MAKERS:
        named = generators.maker(text)
    return Claim(text, named) if named else None


def properties(packet: bytes) -> dict[str, list[str]]:
    """Local name to values of every property of an XMP packet, attributes and elements alike, up to where it breaks.

    Read as a stream, so that a packet that was cut or holds an error counts up to there. Entities are not expanded.
    """
    found: dict[str, list[str]] = {}
    path: list[str] = []
    text: list[str] = []

    def add(name: str, value: str) -> None:
        values = found.setdefault(name.rpartition(":")[2], [])
        if value.strip() and len(values) < MOST_VALUES and len(found) < 4096:
            values.append(value[:TEXT])

    def owner() -> str:
        return next((name for name in reversed(path) if not name.startswith("rdf:")), "")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) >= DEEPEST:
            raise _RefusedError
        path.append(name)
        text.clear()
        for key, value in attributes.items():
            add(owner() if key.rpartition(":")[2] in {"resource", "about", "value"} else key, value)

    def end(_: str) -> None:
        add(owner(), "".join(text))
        text.clear()
        path.pop()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.EntityDeclHandler = _refuse
    with contextlib.suppress(expat.ExpatError, ValueError, _RefusedError):  # what stands before an error counts
        parser.Parse(_readable(packet[:PACKET]), True)
    return found


def _readable(packet: bytes) -> bytes:
    """A packet without what stands around it, and without what is no UTF-8 where it does not declare anything else."""
    if b"<\0" in packet[:8] or b"\0<" in packet[:8]:  # UTF-16, whose order expat wants marked
        order = "utf-16-be" if packet.find(b"\0<", 0, 8) % 2 == 0 else "utf-16-le"
        return packet.decode(order, "replace").strip("\0 \r\n\t\ufeff").encode()
    packet = packet.strip(b"\0 \r\n\t")
    return packet if b"encoding=" in packet[:64] else packet.decode("utf-8", "replace").encode()


class _RefusedError(Exception):
    """A packet declares an entity, where XMP has none, or is nested deeper than any XMP is."""


def _refuse(*_: object) -> None:
    raise _RefusedError


def _xmp(found: dict[str, list[str]]) -> Iterator[tuple[str, Claim]]:
    for value in found.get("DigitalSourceType", []) + found.get("DigitalSourcefileType", []):
        if kind := source_type(value):
            yield "XMP DigitalSourceType", Claim(described(kind), None)
        elif claim := settings.sentence(value):  # the name that people are shown: "Created using Generative AI"
            yield "XMP DigitalSourceType", claim
    for value in found.get("AISystemUsed", []):
        version = " ".join(found.get("AISystemVersionUsed", [])[:1])
        yield "XMP AISystemUsed", Claim(f"{value} {version}".strip(), generators.software(value))
    for name in ("AIPromptInformation", "AIPromptWriterName"):
        if found.get(name):
            yield f"XMP {name}", Claim("a prompt for a generator is given", None)
    for name in (*_XMP_SOFTWARE, *_XMP_MAKERS):
        for value in found.get(name, ()):
            named = (generators.software if name in _XMP_SOFTWARE else generators.maker)(value)
            if claim := Claim(value, named) if named else settings.sentence(value):
                yield f"XMP {name}", claim
    for value in found.get("AIGC", []) + found.get("aigc", []):
        if label := settings.aigc('"AIGC":{' + html.unescape(value)):
            yield "XMP AIGC", label
    for name in _XMP_TEXTS:
        for value in found.get(name, ()):
            if claim := settings.told(value):
                yield f"XMP {name}", claim


def _iptc(record: bytes) -> Iterator[tuple[str, Claim]]:
    """The datasets of application record 2 (IPTC-IIM 4.2): 0x1C, record, number, length, text."""
    at = record.find(b"\x1c\x02", 0, 4096)
    for _ in range(256):
        if at < 0 or record[at : at + 1] != b"\x1c":
            return
        length = int.from_bytes(record[at + 3 : at + 5], "big")
        if len(record) < at + 5 or length >= 0x8000:
            return
        text = decoded(record[at + 5 : at + 5 + length])
        name = _IPTC_NAMES.get(record[at + 2]) if record[at + 1] == 2 else None
        if name in {"Credit", "Source", "Originating Program"}:
            named = (generators.software if name == "Originating Program" else generators.maker)(text)
            if claim := Claim(text, named) if named else settings.sentence(text):
                yield f"IPTC {name}", claim
        elif name and (claim := settings.told(text)):
            yield f"IPTC {name}", claim
        at += 5 + length


def _samsung(trailer: bytes) -> Claim | None:
    """What Samsung's editor keeps behind the picture where a generative tool was used (undocumented; seen in files)."""
    if not trailer.rstrip(b"\0").endswith(b"SEFT"):
        return None
    for name in (b"PhotoEditor_Re_Edit_Data", b"PEg_Info"):
        at = trailer.rfind(name)
        text = trailer[at + len(name) : at + len(name) + 4096] if at >= 0 else b""
        if re.search(rb'"genAIType"\s*:\s*"?[1-9]|"genImageVersion"\s*:', text):
            return Claim("edited with a generative tool (Samsung's photo editor)", "samsung-galaxy-ai")
    return None
