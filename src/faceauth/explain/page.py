"""An explanation as one HTML page: self-contained, readable without scripts, by a screen reader, and on paper."""

import re
from collections.abc import Iterator, Sequence

from PIL import Image

from faceauth.explain.records import Explanation, FaceExplanation, HeatMap, Spectrum, Stability
from faceauth.explain.words import weaker
from faceauth.images import thumbnail
from faceauth.output.page import asset, data_uri, head, picture, tail, text
from faceauth.output.rows import printable
from faceauth.verdict import Face

LARGEST = 720  # pixels of the longest side of the picture in the page
FACE = 360  # pixels of a face under its heat map
PLOT = (560, 200)  # width and height of a plot, in units of its own
HEAT_PROVES = (
    "A heat map shows which parts of the face moved the model. It does not show what was edited, and it does not prove "
    "that the verdict is right."
)
_BARE_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)  # many viewers make links of http:// and www.
KINDS = {"says": "says", "signed": "signed", "measured": "measured", "absent": "absent"}


def to_html(explanation: Explanation, image: Image.Image) -> bytes:
    """The page.

    Args:
        image: upright RGB, the picture that was explained; the page holds a reduced copy of it.
    """
    script = asset("report.js")
    title = f"{explanation.verdict.path or 'Picture'}: {explanation.verdict.label or 'unreadable'}"
    parts = [
        head(title, [asset("report.css")], script),
        f"<main><header><h1>{text(explanation.sentence)}</h1>",
        f'<p class="soft">{text(explanation.verdict.path or "picture in memory")}</p></header>',
        *_disagreements(explanation),
        *_shown(explanation, image),
        *(
            part
            for face, judged in zip(explanation.faces, explanation.verdict.faces, strict=True)
            for part in _face(face, judged, explanation, image)
        ),
        *_provenance(explanation),
        *_custody(explanation),
        '<section><h2>What this does not prove</h2><ul class="measure">',
        *(f"<li>{text(line, 1000)}</li>" for line in explanation.caveats),
        "</ul></section></main>\n",
        tail(script),
    ]
    return "".join(parts).encode("utf-8", "backslashreplace")


def _disagreements(explanation: Explanation) -> Iterator[str]:
    said = explanation.provenance.disagreements if explanation.provenance else ()
    if said:
        yield '<section class="warning" role="note"><h2>What the file holds does not fit together</h2><ul>'
        yield from (f"<li>{text(line, 1000)}</li>" for line in said)
        yield "</ul></section>"


def _shown(explanation: Explanation, image: Image.Image) -> Iterator[str]:
    verdict = explanation.verdict
    if not verdict.width or not verdict.height:
        return
    boxes = [(face.box, face.label, face.index) for face in verdict.faces if face.box]
    size, found = (verdict.width, verdict.height), f"The picture; faces marked: {len(boxes)}"
    yield f'<figure class="whole">{picture(thumbnail(image, LARGEST), size, boxes, found)}</figure>'


def _face(face: FaceExplanation, judged: Face, explanation: Explanation, image: Image.Image) -> Iterator[str]:
    many = len(explanation.faces) > 1
    yield f'<section><h2>{f"Face {face.number}: " if many else ""}<span class="label {text(judged.label)}">'
    yield f"{text(judged.label)}</span></h2>"
    yield f'<p class="measure">{text(face.sentence, 1000)}</p>'
    if face.reason:
        yield f'<p class="measure"><strong>Why it is uncertain:</strong> {text(face.reason, 1000)}</p>'
    if face.worth.sentences:
        yield '<h3>What that is worth</h3><ul class="measure">'
        yield from (f"<li>{text(line, 1000)}</li>" for line in face.worth.sentences)
        yield "</ul>"
    yield '<div class="columns">'
    if face.heat_map:
        yield from _heat(face.heat_map, image, explanation, face.number)
    if face.stability:
        yield from _stability(face.stability, judged.threshold)
    if face.spectrum:
        yield from _spectrum(face.spectrum)
    if face.nearest:
        yield "<figure><figcaption><h3>Nearest training sources</h3></figcaption><table><thead><tr>"
        yield "<th>source</th><th>made by</th><th>family</th><th>distance</th><th>share</th></tr></thead><tbody>"
        for near in face.nearest:
            yield f"<tr><td>{text(near.source)}</td><td>{text(near.generator)}</td><td>{text(near.family)}</td>"
            yield f"<td>{near.distance:.1f}</td><td>{near.share:.0%}</td></tr>"
        yield "</tbody></table></figure>"
    yield "</div></section>"


def _heat(heat: HeatMap, image: Image.Image, explanation: Explanation, number: int) -> Iterator[str]:
    """The face with the map over it: warm for fake, cool for real, strength by opacity; hatched where it is cool."""
    scale = image.width / (explanation.verdict.width or image.width)
    left, top, right, bottom = (round(v * scale) for v in heat.region)
    face = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    rows, columns = len(heat.values), len(heat.values[0])
    cells = "".join(
        f'<rect class="{"for-fake" if value > 0 else "for-real"}" x="{x}" y="{y}" width="1" height="1" '
        f'fill-opacity="{abs(value) * 0.75:.3f}"/>'
        for y, line in enumerate(heat.values)
        for x, value in enumerate(line)
    )
    yield f'<figure class="heat"><div class="picture"><img src="{data_uri(thumbnail(face, FACE))}" alt="The face">'
    yield f'<svg class="map" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" role="img" '
    yield f'aria-label="{text(where(heat), 400)}">{cells}</svg></div>'
    yield '<label class="small" hidden>Strength of the map <input type="range" min="0" max="100" value="70" '
    yield f'data-map="{number}"></label><figcaption><h3>Where the evidence lies</h3>'
    yield f'<p class="small">Red speaks for fake, blue for real. {text(where(heat), 400)}</p>'
    yield f'<p class="small soft">{HEAT_PROVES}</p></figcaption></figure>'


def where(heat: HeatMap) -> str:
    """The strongest part, in words, and what the face is to the model without it."""
    rows, columns = len(heat.values), len(heat.values[0])
    value, y, x = max((abs(v), y, x) for y, line in enumerate(heat.values) for x, v in enumerate(line))
    high = ("upper", "middle", "lower")[min(2, 3 * y // rows)]
    wide = ("left", "centre", "right")[min(2, 3 * x // columns)]
    side = "fake" if heat.values[y][x] > 0 else "real"
    if not value:
        return "No part stands out."
    return f"The strongest part is the {high} {wide}, which speaks for {side}. {weaker(heat)}."


def _stability(found: Stability, threshold: float) -> Iterator[str]:
    """A dot a version on a line from 0 to 1, with its score and label in words beside it."""
    first, *others = found.edits
    height = 22 * len(found.edits) + 14
    yield '<figure><figcaption><h3>How firm it is</h3><p class="small">'
    yield f"{found.changes} of {len(others)} edited copies get another label; scores from {found.lowest:.2f} to "
    yield f"{found.highest:.2f}, fake from {threshold:.2f} on.</p></figcaption>"
    yield f'<svg class="plot" viewBox="0 0 {PLOT[0]} {height}" role="img" aria-label="Scores of edited copies">'
    yield f'<line class="limit" x1="{_across(threshold)}" x2="{_across(threshold)}" y1="0" y2="{height}"/>'
    for row, edit in enumerate((first, *others)):
        y = 22 * row + 16
        yield f'<text x="0" y="{y + 4}">{text(edit.edit)}</text>'
        yield f'<line class="axis" x1="170" x2="450" y1="{y}" y2="{y}"/>'
        yield f'<circle class="{text(edit.label)}" cx="{_across(edit.score)}" cy="{y}" r="5"/>'
        yield f'<text x="462" y="{y + 4}">{edit.score:.2f} {text(edit.label)}</text>'
    yield "</svg></figure>"


def _across(score: float) -> str:
    return f"{170 + 280 * min(max(score, 0.0), 1.0):.1f}"


def _spectrum(found: Spectrum) -> Iterator[str]:
    """Decibels by frequency: this face, photographs with their usual range, the named generator."""
    known = [p for p in (found.real, found.generator) if p]
    lines = [found.decibels, *(p.decibels for p in known), found.real_low, found.real_high]
    values = [v for line in lines for v in line]
    low, high = min(values), max(values)
    width, height = PLOT

    def points(line: Sequence[float]) -> str:
        return " ".join(
            f"{width * f / 0.5:.1f},{(height - 24) * (high - v) / ((high - low) or 1) + 4:.1f}"
            for f, v in zip(found.frequency, line, strict=True)
        )

    yield '<figure><figcaption><h3>Spectrum of the noise</h3><p class="small">'
    yield "The residual of the face by frequency, in decibels: this face (solid)"
    yield "".join(f", {text(p.name)} ({('dashed', 'dotted')[i]}, {p.images} images)" for i, p in enumerate(known))
    yield "; shaded, where 90 of 100 photographs lie.</p></figcaption>" if found.real_low else ".</p></figcaption>"
    yield f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="Spectrum of the noise residual">'
    if found.real_low:
        back = " ".join(reversed(points(found.real_high).split()))
        yield f'<polygon class="range" points="{points(found.real_low)} {back}"/>'
    for i, profile in enumerate(known):
        yield f'<polyline class="{("dashed", "dotted")[i]}" points="{points(profile.decibels)}"/>'
    yield f'<polyline points="{points(found.decibels)}"/><text x="0" y="{height - 4}">0</text>'
    yield f'<text x="{width}" y="{height - 4}" text-anchor="end">0.5 cycles a pixel</text>'
    yield "</svg></figure>"


def _provenance(explanation: Explanation) -> Iterator[str]:
    report = explanation.provenance
    if report is None:
        return
    yield "<section><h2>What the file says, and what was measured</h2>"
    yield '<p class="soft measure">None of it is part of the score.</p>'
    yield "<table><thead><tr><th>kind</th><th>where</th><th>what</th></tr></thead><tbody>"
    for line in report.findings:
        yield f"<tr><td>{text(KINDS[line.kind])}</td><td>{text(line.where)}</td><td>{text(line.text, 600)}</td></tr>"
    yield "</tbody></table></section>"


def custody_lines(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """What judged what, as names and values."""
    custody = explanation.custody
    yield "picture, SHA-256", str(custody.image_sha256 or "pixels in memory")
    yield "model", f"{custody.model} {custody.model_version}"
    yield "model, SHA-256", custody.model_sha256
    if custody.learned_sha256:
        yield "taught classes, SHA-256", custody.learned_sha256
    yield "face finder", str(custody.face_finder)
    yield "program", f"{custody.program} {custody.program_version}"
    yield "libraries", ", ".join(f"{name} {version}" for name, version in custody.libraries)
    yield "parameters", ", ".join(f"{name} {value}" for name, value in custody.parameters)
    yield "time (UTC)", custody.created_at


def _custody(explanation: Explanation) -> Iterator[str]:
    yield '<section><h2>What judged it</h2><dl class="custody">'
    yield from (f"<dt>{name}</dt><dd>{text(value, 600)}</dd>" for name, value in custody_lines(explanation))
    yield "</dl></section>"


def to_markdown(explanation: Explanation, image: Image.Image) -> bytes:
    """The same in words, without pictures."""
    lines = [
        f"# {_plain(explanation.sentence)}",
        "",
        _code(explanation.verdict.path or "picture in memory"),
        "",
    ]
    if explanation.provenance and explanation.provenance.disagreements:
        lines += ["## What the file holds does not fit together", ""]
        lines += [*(f"- {_plain(line)}" for line in explanation.provenance.disagreements), ""]
    for face in explanation.faces:
        lines += [f"## Face {face.number}", "", _plain(face.sentence), ""]
        lines += [f"Why it is uncertain: {_plain(face.reason)}", ""] if face.reason else []
        lines += [*(f"- {_plain(line)}" for line in face.worth.sentences), ""] if face.worth.sentences else []
        if face.heat_map:
            lines += [f"Heat map: {where(face.heat_map)} {HEAT_PROVES}", ""]
        if face.stability:
            lines += ["| copy | score | label |", "|---|---|---|"]
            lines += [*(f"| {_plain(e.edit)} | {e.score:.2f} | {e.label} |" for e in face.stability.edits), ""]
        if face.nearest:
            lines += ["| nearest source | made by | distance | share |", "|---|---|---|---|"]
            for near in face.nearest:
                lines += [
                    f"| {_plain(near.source)} | {_plain(near.generator)} | {near.distance:.1f} | {near.share:.0%} |"
                ]
            lines += [""]
    if explanation.provenance:
        lines += ["## What the file says, and what was measured", "", "| kind | where | what |", "|---|---|---|"]
        lines += [
            *(f"| {KINDS[f.kind]} | {_plain(f.where)} | {_plain(f.text)} |" for f in explanation.provenance.findings),
            "",
        ]
    lines += [
        "## What judged it",
        "",
        *(f"- {name}: {_plain(value)}" for name, value in custody_lines(explanation)),
        "",
    ]
    lines += ["## What this does not prove", "", *(f"- {_plain(line)}" for line in explanation.caveats), ""]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _plain(value: str) -> str:
    """One line in which nothing that comes from outside is markup."""
    line = printable(value)[:1000]
    marked = "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+|~!$&@" else c for c in line)
    return _BARE_LINK.sub(r"\\\g<0>", marked)


def _code(value: str) -> str:
    """A span in which every character stands for itself, between more backticks than the text has in a row."""
    line = printable(value)[:1000]
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    edge = " " if line[:1] in {"`", " "} or line[-1:] in {"`", " "} else ""
    return f"{fence}{edge}{line}{edge}{fence}"
