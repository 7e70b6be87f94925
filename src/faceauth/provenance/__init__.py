"""What an image file says of its own making, who signed for it, and what can be measured on the file itself.

A claim is evidence to be shown beside a score and never a part of it: anybody can write it, and any upload removes it.
`claims` is what a verdict carries; `report.examine` tells everything, each line with what kind of evidence it is.

It knows nothing of models.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from faceauth.errors import ImageError, MissingExtra
from faceauth.provenance import c2pa, containers, exif_xmp, generators, stealth, text_chunks
from faceauth.provenance.c2pa import Credentials, TrustList
from faceauth.verdict import Evidence

LONGEST = 120  # characters of a claim that are shown
ELSEWHERE = "credentials lie elsewhere and were not fetched"
MOST = 24  # claims of a file that are shown

__all__ = ["LONGEST", "TrustList", "claims", "clean", "content"]


def claims(source: object, trust: TrustList | None = None) -> tuple[Evidence, ...]:
    """What the file says of a generator or of a signed origin; empty where it says nothing, or cannot be read.

    Args:
        source: a path or a file's bytes; for pixels in memory there is nothing to read.
        trust: vouches for the signers of C2PA manifests; without it nobody is vouched for.
    """
    data = content(source)
    if not data:
        return ()
    blocks = containers.read(data)
    found = [*signed(blocks, *manifest(data, trust)), *unsigned(data, blocks)]
    return tuple(dict.fromkeys(found))[:MOST]


def content(source: object) -> bytes:
    """The bytes of a file, given itself or by its path; none of what is no regular file or cannot be read."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if not isinstance(source, str | os.PathLike):
        return b""
    try:
        return Path(source).read_bytes() if os.path.isfile(source) else b""
    except (OSError, ValueError):
        return b""


def unsigned(data: bytes, blocks: containers.Blocks) -> Iterator[Evidence]:
    """What EXIF, XMP, IPTC, comments, text chunks and the alpha channel say; anybody can write it."""
    said = (*exif_xmp.read(blocks), *text_chunks.read(blocks), *stealth.read(data, blocks.format))
    for where, claim in said:
        yield Evidence(clean(where), clean(claim.says), claim.generator)


def manifest(data: bytes, trust: TrustList | None = None) -> tuple[Credentials | None, str]:
    """What the C2PA manifest of a file says, or why it could not be read; None and nothing without a manifest."""
    try:
        return c2pa.read(data, trust), ""
    except MissingExtra as missing:
        return None, f"carries a C2PA manifest; its signature is not checked here (to verify it: {missing.hint})"
    except ImageError as error:
        return None, clean(error.message)


def signed(blocks: containers.Blocks, found: Credentials | None, problem: str) -> Iterator[Evidence]:
    """The manifest's lines, whether it holds first of all; then where the file says that another manifest lies."""
    if problem:
        yield Evidence("C2PA", problem, None)
    if found:
        yield from _credentials(found)
    for url in exif_xmp.remote(blocks):
        yield Evidence("C2PA", clean(f"{ELSEWHERE}: {url}"), None)


def _credentials(found: Credentials) -> Iterator[Evidence]:
    yield Evidence("C2PA", clean(described_state(found)), None)
    if found.signer:
        yield Evidence("C2PA signer", clean(described_signer(found)), None)
    for program in found.generators:
        yield Evidence("C2PA claim generator", clean(program), generators.software(program))
    for made in found.made:
        kind = exif_xmp.described(made.source_type)
        says = f"{kind} ({made.action}{f' with {made.tool}' if made.tool else ''})"
        yield Evidence("C2PA digitalSourceType", clean(says), generators.software(made.tool))


def described_state(found: Credentials) -> str:
    """Whether signature and hashes hold, in words."""
    if found.state == "broken":
        changed = "mismatch" in found.failure
        why = "the file was changed after it was signed" if changed else "the manifest does not hold"
        return f"broken: {why} ({found.failure or 'no reason given'})"
    return "signature and hashes hold" + (
        "; the certificate has expired, and no time stamp says that it had not when it signed"
        if found.state == "expired"
        else ""
    )


def described_signer(found: Credentials) -> str:
    """Who signed, and whether anybody vouches for them; what stands behind the name is kept where the name is long."""
    vouched = {"yes": "on the trust list", "no": "not on the trust list", "not checked": "trust not checked"}
    name = clean(found.signer)
    return f"signed by {name if len(name) <= 80 else name[:79] + '…'}, {vouched[found.trusted]}"


def clean(text: str) -> str:
    """One short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 64 * LONGEST]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
