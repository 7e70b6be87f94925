"""Everything that one file's provenance offers, side by side: what it says, who signed, what was measured, what lacks.

No line is weighed against another and none becomes part of a score. Where lines disagree, that is said first.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from faceauth.errors import ImageError
from faceauth.images import format_of
from faceauth.provenance import ELSEWHERE, clean, containers, double_jpeg, exif_xmp, jpeg, manifest, signed, unsigned
from faceauth.provenance.c2pa import Credentials, TrustList
from faceauth.provenance.exif import Exif

Kind = Literal["says", "signed", "measured", "absent"]
MOST_LINES = 64  # of what a file says
NOTHING = "absent, which proves nothing"
# Fields that show what a camera or an editor wrote; they name no generator and are no claim of a verdict.
_CAMERA = ("Make", "Model", "Software", "DateTimeOriginal", "DateTime")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of evidence.

    Attributes:
        kind: `says` for what anybody can write into a file, `signed` for what a signature covers, `measured` for what
            follows from the file's own numbers, `absent` for what is not there.
        where: the field; text: one short line; generator: the one that it names, or None.
    """

    kind: Kind
    where: str
    text: str
    generator: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one file's provenance offers.

    Attributes:
        path: as given; `-` for bytes.
        sha256: of the file's bytes; format: JPEG, PNG, WEBP, TIFF, HEIF, AVIF, GIF, BMP or empty.
        disagreements: sentences on lines that cannot all be true, first of all.
        findings: signed lines first, then what the file says, what was measured, what is absent.
        error: why the file could not be read; then there is nothing else.
    """

    path: str
    sha256: str | None = None
    format: str = ""
    disagreements: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The report as plain values, ready for JSON."""
        lines = [{"kind": f.kind, "where": f.where, "text": f.text, "generator": f.generator} for f in self.findings]
        return {
            "path": self.path, "sha256": self.sha256, "format": self.format,
            "disagreements": list(self.disagreements), "findings": lines, "error": self.error,
        }  # fmt: skip


def examine(data: bytes, path: str = "-", trust: TrustList | None = None) -> Report:
    """The provenance of a file's bytes; `path` is only what the report calls it.

    Raises:
        UsageError: where the trust list is refused.
    """
    blocks = containers.read(data)
    credentials, problem = manifest(data, trust)
    by_signature = list(dict.fromkeys(_signed(blocks, credentials, problem)))
    claimed = list(dict.fromkeys(Finding("says", e.where, e.says, e.generator) for e in unsigned(data, blocks)))
    fields = list(dict.fromkeys(_fields(blocks, {line.where for line in claimed})))
    measured = list(_measured(data, blocks))
    absent = list(_absent(blocks, by_signature, claimed + fields, measured))
    told = tuple(_disagreements(credentials, by_signature, claimed, fields, measured))
    if not blocks.format and not by_signature:
        return Report(path, hashlib.sha256(data).hexdigest(), error=_unreadable(data))
    findings = tuple((by_signature + claimed + fields)[:MOST_LINES] + measured + absent)
    return Report(path, hashlib.sha256(data).hexdigest(), blocks.format, told, findings)


def _unreadable(data: bytes) -> str | None:
    try:
        format_of(data)
    except ImageError as error:
        return str(error)
    return None


def _signed(blocks: containers.Blocks, found: Credentials | None, problem: str) -> Iterator[Finding]:
    """The manifest's lines; of one that does not hold, or is not checked, they are only what the file says."""
    kind: Kind = "signed" if found and found.state != "broken" else "says"
    for line in signed(blocks, found, problem):
        elsewhere = line.says.startswith(ELSEWHERE)
        yield Finding("says" if elsewhere else kind, line.where, line.says, line.generator)
    if not found:
        return
    for where, values in (("C2PA actions", found.actions), ("C2PA ingredients", found.ingredients)):
        if values:
            yield Finding(kind, where, clean("; ".join(values)))
    if found.valid_until:
        by = f", issued by {found.issuer}" if found.issuer else ""
        yield Finding(kind, "C2PA certificate", clean(f"good from {found.valid_from} to {found.valid_until}{by}"))
    yield Finding(kind, "C2PA validity", clean(_validity(found)))


def _validity(found: Credentials) -> str:
    """When it was signed, and whether the certificate was good then and is good now."""
    when = f"time stamp of {found.signed_at}" if found.signed_at else "no time stamp: when it was signed is not known"
    if found.state == "broken":
        return f"{when}; not looked at, since the manifest does not hold"
    now = "yes" if found.good_now else "no"
    if found.signed_at:
        return f"{when}; certificate good when it was signed: yes; now: {now}"
    return f"{when}; certificate good now: {now}"


def _fields(blocks: containers.Blocks, claimed: set[str]) -> Iterator[Finding]:
    """What a camera or an editor wrote; fields that are claims already are left out."""
    for block in blocks.exif:
        for name, text in Exif(block).texts():
            if name in _CAMERA and f"EXIF {name}" not in claimed and clean(text):
                yield Finding("says", f"EXIF {name}", clean(text))


def _measured(data: bytes, blocks: containers.Blocks) -> Iterator[Finding]:
    if tables := jpeg.quantisation(data) if blocks.format == "JPEG" else None:
        yield Finding("measured", "JPEG tables", str(tables))
        if before := double_jpeg.first_quality(data):
            words = f"saved before, more coarsely: near quality {before[0]} of the standard tables"
            yield Finding("measured", "JPEG coefficients", words)
    if fits := jpeg.thumbnail(data, blocks):
        correlation, same = fits
        words = "shows the picture" if same else "shows another picture, or the picture before it was changed"
        yield Finding("measured", "EXIF thumbnail", f"{words} (correlation {correlation:.2f})")


def _absent(
    blocks: containers.Blocks, by_signature: list[Finding], said: list[Finding], measured: list[Finding]
) -> Iterator[Finding]:
    there = {
        "C2PA manifest": bool(by_signature),
        "EXIF of a camera or program": any(f.where.startswith("EXIF") for f in said),
        "XMP": bool(exif_xmp.packets(blocks)),
        "name of a generator": any(f.generator for f in by_signature + said),
        "EXIF thumbnail": any(f.where == "EXIF thumbnail" for f in measured) or blocks.format != "JPEG",
    }
    for name, found in there.items():
        if not found:
            yield Finding("absent", name, NOTHING)
    if blocks.format == "HEIF" and importlib.util.find_spec("pillow_heif") is None:
        yield Finding("absent", "EXIF and XMP of HEIC", "not read here (to read them: pip install 'faceauth[heic]')")


def _disagreements(
    found: Credentials | None,
    by_signature: list[Finding],
    claimed: list[Finding],
    fields: list[Finding],
    measured: list[Finding],
) -> Iterator[str]:
    if found and found.state == "broken":
        yield "The file carries a signature that does not hold: nothing of what it says counts as signed."
    lines = by_signature + claimed
    generated = [f for f in lines if f.generator or _origin(f) in exif_xmp.GENERATED]
    captured = [f for f in lines if _origin(f) in exif_xmp.CAPTURED]
    captured += [f for f in fields if f.where == "EXIF Make"]
    if generated and captured:
        yield f"{_quoted(generated[0])} speaks of a generator, {_quoted(captured[0])} of a camera."
    names = list(dict.fromkeys(f.generator for f in generated if f.generator))
    if len(names) > 1:
        yield f"Different generators are named: {', '.join(names)}."
    if any(f.where == "EXIF thumbnail" and "another picture" in f.text for f in measured):
        yield "The thumbnail does not show the picture: one of the two was changed after the other was made."


def _origin(line: Finding) -> str:
    """The digital source type that a line states; empty where it states none."""
    return line.text.partition(":")[0] if line.where.lower().endswith("digitalsourcetype") else ""


def _quoted(line: Finding) -> str:
    return f'{line.where} ("{line.text}")'
