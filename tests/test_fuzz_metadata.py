"""Mutated metadata give claims or none, in bounded time, and never an exception; FACEAUTH_FUZZ=N tries N files more.

Seeds are made in code, a file of every kind that carries a claim. A mutation changes, removes, repeats or inserts bytes;
half of the mutations fall where the metadata lie, since most of a file is pixels.
"""

import functools
import importlib.util
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import encoded, picture
from faceauth.provenance import LONGEST, MOST, c2pa, claims
from faceauth.provenance.exif import Exif
from faceauth.provenance.exif_xmp import properties
from faceauth.provenance.report import examine
from faceauth.provenance.settings import read
from metadata import (
    AIGC,
    COMFY_PROMPT,
    COMFY_WORKFLOW,
    IPTC,
    PARAMETERS,
    comment,
    exif,
    heif,
    iptc,
    jpeg,
    png,
    source_type,
    stealth,
    tiff,
    with_chunk,
    with_segment,
    xmp,
)

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FACEAUTH_FUZZ", "60"))
LONGEST_TIME = 5.0  # seconds of processor time a file; a loaded machine is no fault of the file
bounded = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TRAINED = source_type(IPTC + "trainedAlgorithmicMedia")


@functools.cache
def seeds():
    found = [
        png(parameters=PARAMETERS, Software="NovelAI"),
        with_chunk(
            png(), b"eXIf", exif({0x0131: "Grok"}, {0x9286: b"UNICODE\0" + PARAMETERS.encode("utf-16-be")}).tobytes()
        ),
        with_chunk(png(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TRAINED),
        jpeg({0x0131: "Midjourney 6.1", 0x010E: PARAMETERS}, xmp=TRAINED, comment=PARAMETERS.encode()),
        jpeg(xmp=xmp(f"<TC260:AIGC>{AIGC % 1}</TC260:AIGC>", 'dcterms:provenance="https://a.example/m"')),
        with_segment(jpeg(), 0xED, iptc(_110="Made with Google AI")),
        comment(PARAMETERS, "utf-16-le"),
        encoded(picture(), "WEBP", exif=exif({0x010F: COMFY_WORKFLOW, 0x0110: COMFY_PROMPT % "a"}), xmp=TRAINED),
        encoded(picture(), "GIF", comment=PARAMETERS.encode()),
        tiff(1, TRAINED),
        stealth(PARAMETERS),
        heif("AVIF", exif=exif({0x0131: "Grok"}), xmp=TRAINED),
    ]
    if importlib.util.find_spec("pillow_heif"):
        found.append(heif("HEIF", exif=exif({0x0131: "Grok"}), xmp=TRAINED))
    if importlib.util.find_spec("c2pa"):
        from test_provenance_c2pa import signed

        found += [signed(source=picture()), signed(format="PNG", source=picture(), program="An Editor")]
    return found


NUMBERS = st.sampled_from(
    [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0", b"8BIM", b"Exif\0\0", b"\0" * 64]
)


@st.composite
def mutated(draw):
    """A seed with one to six changes."""
    data = draw(st.sampled_from(seeds()))
    for _ in range(draw(st.integers(1, 6))):
        end = draw(st.sampled_from([max(len(data) - 1, 0), min(len(data) - 1, 2000)])) if data else 0
        at = draw(st.integers(0, max(end, 0)))
        length = draw(st.integers(0, 40))
        with_ = draw(st.one_of(st.binary(max_size=8), NUMBERS))
        kind = draw(st.sampled_from(["change", "change", "remove", "insert", "repeat", "cut"]))
        if kind == "change":
            data = data[:at] + with_ + data[at + len(with_) :]
        elif kind == "remove":
            data = data[:at] + data[at + length :]
        elif kind == "insert":
            data = data[:at] + with_ + data[at:]
        elif kind == "repeat":
            data = data[: at + length] * 2 + data[at + length :]
        else:
            data = data[:at]
    return data


def test_the_seeds_all_say_something():
    for seed in seeds():
        assert claims(seed)


@bounded
@given(mutated())
def test_mutated_files_give_claims_or_none(data):
    start = time.process_time()
    found = claims(data)
    assert time.process_time() - start < LONGEST_TIME
    assert len(found) <= MOST
    assert all(len(e.says) <= LONGEST and e.says.isprintable() and e.where.isprintable() for e in found)


@bounded
@given(mutated())
def test_mutated_files_give_a_report(data):
    report = examine(data)
    assert report.error is None or not report.findings
    assert all(line.text.isprintable() and line.where.isprintable() for line in report.findings)


@bounded
@given(st.binary(max_size=400), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_any_bytes_are_exif_without_an_exception(data, head):
    found = Exif(head + data)
    assert all(isinstance(text, str) for _, text in found.texts())
    assert isinstance(found.thumbnail(), bytes)


@bounded
@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda t: xmp(t))))
def test_any_bytes_are_xmp_without_an_exception(data):
    assert isinstance(properties(data), dict)


@bounded
@given(
    st.text(max_size=300)
    | st.builds(
        "{}{}{}".format, st.text(max_size=40), st.sampled_from([PARAMETERS, AIGC, COMFY_PROMPT]), st.text(max_size=40)
    )
)
def test_any_text_is_settings_or_not_without_an_exception(text):
    found = read(text)
    assert found is None or found.says


@pytest.mark.skipif(not importlib.util.find_spec("c2pa"), reason="needs c2pa-python")
@bounded
@given(st.data())
def test_mutated_manifests_give_claims_or_none(data):
    """One byte of the boxes changed: whatever the library makes of it, no exception, and lines that can be printed."""
    seed = seeds()[-2]
    start = seed.index(c2pa.MARK)
    at = data.draw(st.integers(start, min(start + 12_000, len(seed) - 1)))
    changed = seed[:at] + bytes([seed[at] ^ data.draw(st.integers(1, 255))]) + seed[at + 1 :]
    assert all(e.says.isprintable() for e in claims(changed))
