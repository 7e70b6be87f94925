"""An explanation as a PDF file, to file and to hand on: what the page has, on A4, without links or scripts."""

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from faceauth.explain.page import FACE, HEAT_PROVES, KINDS, LARGEST, custody_lines, where
from faceauth.explain.records import Explanation, FaceExplanation, HeatMap, Spectrum, Stability
from faceauth.images import thumbnail
from faceauth.output.page import clipped
from faceauth.verdict import Face

if TYPE_CHECKING:
    from fpdf import FPDF

WIDE = 180.0  # millimetres between the margins
RED, BLUE, GREY = (190, 40, 40), (40, 80, 190), (110, 110, 110)
COLOURS = {"fake": RED, "real": (30, 120, 70), "uncertain": (160, 110, 0)}


def to_pdf(explanation: Explanation, image: Image.Image) -> bytes:
    """The report; the same explanation gives the same bytes.

    Characters that the fonts of every PDF reader lack are written as their numbers (\\u5b57).

    Args:
        image: upright RGB, the picture that was explained; the report holds a reduced copy of it.
    """
    from fpdf import FPDF

    pdf = FPDF(format="A4")
    pdf.set_creation_date(datetime.fromisoformat(explanation.custody.created_at.replace("Z", "+00:00")))
    pdf.set_title(_latin(f"{explanation.verdict.path or 'Picture'}: {explanation.verdict.label}"))
    pdf.set_margin(15)
    pdf.set_auto_page_break(True, 15)
    pdf.set_image_filter("DCTDecode")
    pdf.add_page()
    _write(pdf, explanation.sentence, 16, "B")
    _write(pdf, explanation.verdict.path or "picture in memory", 9, colour=GREY)
    if explanation.provenance and explanation.provenance.disagreements:
        _title(pdf, "What the file holds does not fit together")
        _list(pdf, explanation.provenance.disagreements)
    _picture(pdf, explanation, image)
    for face, judged in zip(explanation.faces, explanation.verdict.faces, strict=True):
        _face(pdf, face, judged, explanation, image)
    if explanation.provenance:
        _title(pdf, "What the file says, and what was measured")
        _write(pdf, "None of it is part of the score.", 9, colour=GREY)
        found = [(KINDS[line.kind], line.where, line.text) for line in explanation.provenance.findings]
        _table(pdf, ("kind", "where", "what"), found, (35, 45, 100))
    _title(pdf, "What judged it")
    _table(pdf, ("", ""), custody_lines(explanation), (40, 140))
    _title(pdf, "What this does not prove")
    _list(pdf, explanation.caveats)
    return bytes(pdf.output())


def _latin(value: object, longest: int = 600) -> str:
    return clipped(str(value), longest).encode("latin-1", "backslashreplace").decode("latin-1")


def _write(pdf: "FPDF", value: str, size: float = 10, style: str = "", colour: Sequence[int] = (0, 0, 0)) -> None:
    pdf.set_font("helvetica", style, size)
    pdf.set_text_color(*colour)
    pdf.multi_cell(0, size * 0.48, _latin(value, 1000), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(1.5)
    pdf.set_text_color(0, 0, 0)


def _title(pdf: "FPDF", value: str) -> None:
    pdf.ln(2)
    _heading(pdf, value, 25, 12)


def _heading(pdf: "FPDF", value: str, room: float, size: float = 10) -> None:
    """A heading on a page that has so many millimetres for it and what follows."""
    if pdf.will_page_break(room):
        pdf.add_page()
    _write(pdf, value, size, "B")


def _list(pdf: "FPDF", lines: Iterable[str]) -> None:
    for line in lines:
        _write(pdf, f"- {line}", 9.5)


def _table(pdf: "FPDF", heads: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[float]) -> None:
    pdf.set_font("helvetica", "", 8.5)
    pdf.set_fill_color(255)
    lines = [[_latin(cell) for cell in row] for row in rows]
    with pdf.table(
        width=sum(widths), col_widths=tuple(widths), align="LEFT", text_align="LEFT", line_height=4.2,
        borders_layout="HORIZONTAL_LINES", first_row_as_headings=any(heads),
    ) as table:  # fmt: skip
        for row in [list(heads), *lines] if any(heads) else lines:
            table.row(row)
    pdf.ln(2)


def _image(pdf: "FPDF", image: Image.Image, width: float) -> None:
    """The image at the left margin, at most `width` and 110 millimetres large, on a page where it fits."""
    k = min(width / image.width, 110 / image.height)
    if pdf.will_page_break(k * image.height):
        pdf.add_page()
    pdf.image(image, w=k * image.width, h=k * image.height)
    pdf.ln(2)


def _picture(pdf: "FPDF", explanation: Explanation, image: Image.Image) -> None:
    verdict = explanation.verdict
    if not verdict.width or not verdict.height:
        return
    with Image.open(io.BytesIO(thumbnail(image, LARGEST))) as small:
        shown = small.convert("RGB")
    k, draw = shown.width / verdict.width, ImageDraw.Draw(shown)
    boxes = [(face.box, face.label, (face.index or 0) + 1) for face in verdict.faces if face.box]
    for box, label, number in boxes:
        left, top, right, bottom = (round(k * v) for v in box)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(255, 255, 255))
        draw.rectangle((left, top, right, bottom), outline=COLOURS.get(label, (0, 0, 0)), width=2)
        if len(boxes) > 1:
            draw.text((left + 4, top + 2), str(number), (255, 255, 255), font_size=18, stroke_width=2, stroke_fill=0)
    _image(pdf, shown, WIDE / 1.5)


def _face(pdf: "FPDF", face: FaceExplanation, judged: Face, explanation: Explanation, image: Image.Image) -> None:
    _title(pdf, f"Face {face.number}: {judged.label}" if len(explanation.faces) > 1 else str(judged.label))
    _write(pdf, face.sentence)
    if face.reason:
        _write(pdf, f"Why it is uncertain: {face.reason}")
    if face.worth.sentences:
        _heading(pdf, "What that is worth", 15)
        _list(pdf, face.worth.sentences)
    if face.heat_map:
        _heading(pdf, "Where the evidence lies", WIDE / 2.5 + 20)
        _image(pdf, _heated(face.heat_map, image, explanation), WIDE / 2.5)
        _write(pdf, f"Red speaks for fake, blue for real. {where(face.heat_map)} {HEAT_PROVES}", 9)
    if face.stability:
        _stability(pdf, face.stability, judged.threshold)
    if face.spectrum:
        _spectrum(pdf, face.spectrum)
    if face.nearest:
        _heading(pdf, "Nearest training sources", 25)
        near = [(n.source, str(n.generator), n.family, f"{n.distance:.1f}", f"{n.share:.0%}") for n in face.nearest]
        _table(pdf, ("source", "made by", "family", "distance", "share"), near, (60, 45, 30, 20, 20))


def _heated(heat: HeatMap, image: Image.Image, explanation: Explanation) -> Image.Image:
    """The face with the map over it: warm for fake, cool for real, strength by opacity."""
    scale = image.width / (explanation.verdict.width or image.width)
    left, top, right, bottom = (round(v * scale) for v in heat.region)
    face = image.crop((left, top, max(right, left + 1), max(bottom, top + 1))).resize((FACE, FACE))
    values = np.asarray(heat.values, np.float64)
    colour = np.where(values[..., None] > 0, np.array(RED), np.array(BLUE)).astype(np.uint8)
    opacity = (np.abs(values) * 0.55 * 255).clip(0, 255).astype(np.uint8)
    over, mask = (Image.fromarray(a).resize((FACE, FACE), Image.Resampling.NEAREST) for a in (colour, opacity))
    return Image.composite(over, face, mask)


def _stability(pdf: "FPDF", found: Stability, threshold: float) -> None:
    """A dot a copy on a line from 0 to 1, with its score and label in words beside it."""
    _heading(pdf, "How firm it is", 20 + 5 * len(found.edits))
    _write(
        pdf, f"{found.changes} of {len(found.edits) - 1} edited copies get another label; scores from "
        f"{found.lowest:.2f} to {found.highest:.2f}, fake from {threshold:.2f} on.", 9,
    )  # fmt: skip
    pdf.set_font("helvetica", "", 8.5)
    start, long = pdf.l_margin + 55, 80.0
    for edit in found.edits:
        y = pdf.get_y() + 2.5
        pdf.set_draw_color(200)
        pdf.line(start, y, start + long, y)
        pdf.line(start + long * threshold, y - 2.5, start + long * threshold, y + 2.5)
        pdf.set_fill_color(*COLOURS.get(edit.label, GREY))
        pdf.ellipse(start + long * edit.score - 1.2, y - 1.2, 2.4, 2.4, style="F")
        pdf.cell(55, 5, _latin(edit.edit))
        pdf.set_x(start + long + 5)
        pdf.cell(0, 5, f"{edit.score:.2f} {edit.label}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_draw_color(0)
    pdf.ln(2)


def _spectrum(pdf: "FPDF", found: Spectrum) -> None:
    """Decibels by frequency: this face, photographs with their usual range, the named generator."""
    known = [p for p in (found.real, found.generator) if p]
    values = np.concatenate([found.decibels, found.real_low, found.real_high, *(p.decibels for p in known)])
    low, high, tall = float(values.min()), float(values.max()), 45.0
    _heading(pdf, "Spectrum of the noise", tall + 25)
    named = "".join(f", {p.name} ({('dashed', 'dotted')[i]}, {p.images} images)" for i, p in enumerate(known))
    shaded = "; shaded, where 90 of 100 photographs lie" if found.real_low else ""
    _write(pdf, f"The residual by frequency, in decibels: this face (solid){named}{shaded}.", 9)
    x, y = pdf.l_margin, pdf.get_y()

    def points(line: Sequence[float]) -> list[tuple[float, float]]:
        return [
            (x + 120 * f / 0.5, y + tall * (high - v) / ((high - low) or 1))
            for f, v in zip(found.frequency, line, strict=True)
        ]

    if found.real_low:
        pdf.set_fill_color(230)
        pdf.polygon([*points(found.real_low), *reversed(points(found.real_high))], style="F")
    for profile, dash in zip(known, (2.0, 0.6), strict=False):
        with pdf.local_context(dash_pattern={"dash": dash, "gap": dash, "phase": 0}):
            pdf.polyline(points(profile.decibels))
    pdf.polyline(points(found.decibels))
    pdf.set_xy(x, y + tall)
    pdf.set_font("helvetica", "", 8)
    pdf.cell(120, 5, "0")
    pdf.set_x(x)
    pdf.cell(120, 5, "0.5 cycles a pixel", align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(2)
