"""The commands `explain`, `verify` and `report-case`: a verdict with its evidence, checked, and handed on."""

import json
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from faceauth.cli_options import (
    FalseAlarms,
    Learned,
    MaxBytes,
    MaxPixels,
    Model,
    NoLearned,
    NoRecheck,
    Overwrite,
    Threshold,
    WholeImage,
    check_new,
    learned_file,
    parse_rate,
    writing,
)
from faceauth.console import echo, notice
from faceauth.errors import ImageError, MissingExtra, UsageError
from faceauth.files import replacing, write_bytes

if TYPE_CHECKING:
    from PIL import Image

    from faceauth.detector import Detector
    from faceauth.explain import Explanation, FaceExplanation
    from faceauth.images import LoadedImage
    from faceauth.provenance import TrustList

FAILED = 1
MOST_SHOWN = 100  # differences of a report that are looked for and printed
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry of a case file, so that the same case gives the same bytes
Photo = Annotated[str, typer.Argument(help="An image file, or - for standard input.", metavar="PHOTO")]
TrustAnchors = Annotated[
    Path | None, typer.Option(help="PEM certificates that vouch for the signers of C2PA manifests.")
]
TrustUsages = Annotated[
    Path | None, typer.Option(help="Extended key usages a signer may have besides: one object identifier a line.")
]


def to_json(explanation: "Explanation", image: "Image.Image") -> bytes:
    """The report that `faceauth verify` reads."""
    return (json.dumps(explanation.to_dict(), indent=1, allow_nan=False) + "\n").encode()


def to_html(explanation: "Explanation", image: "Image.Image") -> bytes:
    """A page with everything in it."""
    from faceauth.explain import page

    return page.to_html(explanation, image)


def to_markdown(explanation: "Explanation", image: "Image.Image") -> bytes:
    """The same in words."""
    from faceauth.explain import page

    return page.to_markdown(explanation, image)


def to_pdf(explanation: "Explanation", image: "Image.Image") -> bytes:
    """A file to print and hand on."""
    from faceauth.explain import pdf

    return pdf.to_pdf(explanation, image)


WRITERS: dict[str, Callable[["Explanation", "Image.Image"], bytes]] = {
    ".json": to_json, ".html": to_html, ".md": to_markdown, ".pdf": to_pdf,
}  # fmt: skip


def explain(
    photo: Photo,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=f"Write the report to FILE: {', '.join(WRITERS)}.")
    ] = None,
    model: Model = None,
    threshold: Threshold = None,
    false_alarms: FalseAlarms = None,
    whole_image: WholeImage = False,
    no_recheck: NoRecheck = False,
    trust_anchors: TrustAnchors = None,
    trust_usages: TrustUsages = None,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
    no_learned: NoLearned = False,
    overwrite: Overwrite = False,
) -> None:
    """Say why a picture gets its verdict, and how firm it is.

    For every face: where the evidence lies, the spectrum of its noise beside averages, the nearest training sources,
    and the score after nine edits. For the file: what it says of itself, what is signed and measured. A summary on a
    terminal; the whole of it with -o.

    \b
    Examples:
      faceauth explain photo.jpg
      faceauth explain photo.jpg -o report.html
      faceauth explain photo.jpg -o report.pdf                  # pip install 'faceauth[pdf]'
      faceauth explain photo.jpg -o report.json
    """
    from faceauth.explain import explain as explained

    write = _writer(output, overwrite=overwrite) if output else None
    trust = _trust(trust_anchors, trust_usages)
    detector = _detector(
        model, threshold, false_alarms, whole_image, no_recheck, max_pixels, max_bytes, learned, no_learned
    )
    loaded = _loaded(photo, detector)
    explanation = explained(detector, loaded, trust=trust)
    if output and write:
        report = write(explanation, loaded.image)
        with writing(output):
            write_bytes(output, report)
        notice(f"{output}: {explanation.sentence} A score is no proof.")
        return
    for line in summary(explanation):
        echo(line)


def verify(
    report: Annotated[Path, typer.Argument(help="A report that faceauth explain -o report.json wrote.")],
    image: Annotated[str, typer.Option("--image", help="The picture that it speaks of, or - for standard input.")],
    model: Model = None,
    trust_anchors: TrustAnchors = None,
    trust_usages: TrustUsages = None,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
) -> None:
    """Repeat a report's judgement, and compare field by field.

    Exit code 0 where every field holds, 1 where one does not; those are printed. Times, paths and versions of libraries
    are not compared, and numbers to within a thousandth. The report's own limits on pixels and bytes are taken, up to
    those given here.

    \b
    Example:
      faceauth verify report.json --image photo.jpg
    """
    from faceauth.explain import checking
    from faceauth.explain import explain as explained
    from faceauth.images import Limits

    trust = _trust(trust_anchors, trust_usages)
    said = checking.read_report(report)
    detector = checking.detector_of(said, model, learned, Limits(max_pixels, max_bytes))
    now = checking.retold(explained(detector, _loaded(image, detector), trust=trust), said, detector).to_dict()
    for line in _other_makers(said["custody"], now["custody"], checking.shown):
        notice(line)
    found = list(islice(checking.differences(said, now), MOST_SHOWN + 1))
    for difference in found[:MOST_SHOWN]:
        echo(str(difference))
    if found:
        count = f"more than {MOST_SHOWN}" if len(found) > MOST_SHOWN else len(found)
        notice(f"the report does not hold: {count} field{'s differ' if len(found) > 1 else ' differs'}")
        raise typer.Exit(FAILED)
    notice("the report holds: every field that is compared is the same (times, paths and libraries are not)")


def report_case(
    photo: Photo,
    truth: Annotated[Literal["real", "fake"], typer.Option(help="What the picture is: real or fake.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The case: a .zip file.")],
    with_picture: Annotated[bool, typer.Option("--with-picture", help="Put the picture itself into the case.")] = False,
    model: Model = None,
    threshold: Threshold = None,
    false_alarms: FalseAlarms = None,
    whole_image: WholeImage = False,
    no_recheck: NoRecheck = False,
    trust_anchors: TrustAnchors = None,
    trust_usages: TrustUsages = None,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
    no_learned: NoLearned = False,
    overwrite: Overwrite = False,
) -> None:
    """Pack a wrong verdict for a maintainer; sends nothing.

    It holds the report and the versions, the picture only if asked.
    The report names the picture by its SHA-256, without its path, and holds what the file says of itself. Where learned
    classes took part, it holds the names that you gave them; --no-learned judges, and packs, without them.

    \b
    Example:
      faceauth report-case photo.jpg --truth real -o case.zip
    """
    from faceauth.explain import explain as explained

    check_new(output, (".zip",), overwrite=overwrite)
    trust = _trust(trust_anchors, trust_usages)
    detector = _detector(
        model, threshold, false_alarms, whole_image, no_recheck, max_pixels, max_bytes, learned, no_learned
    )
    loaded = _loaded(photo, detector)
    explanation = explained(detector, loaded, trust=trust)
    _write_case(output, _case(explanation, loaded, truth, with_picture=with_picture))
    wrong = (
        ""
        if explanation.verdict.label in {"real", "fake"} and explanation.verdict.label != truth
        else (f"; note that the verdict is {explanation.verdict.label}")
    )
    holds = "with the picture" if with_picture else "without the picture"
    names = "; it holds names that you taught (--no-learned leaves them out)" if explanation.verdict.learned else ""
    notice(f"{output}: the report, {holds}{wrong}{names}. Nothing was sent: look into it, and hand it on yourself.")


def _case(
    explanation: "Explanation", loaded: "LoadedImage", truth: str, *, with_picture: bool
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each entry of a case."""
    values = explanation.to_dict()
    for part in ("verdict", "provenance"):
        if values[part]:
            values[part]["path"] = None
    said = {"truth": truth, "label": explanation.verdict.label, "picture": with_picture}
    yield "case.json", (json.dumps(said, indent=1) + "\n").encode()
    yield "report.json", (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()
    if with_picture and loaded.data is not None:
        yield "picture", loaded.data


def _write_case(output: Path, entries: Iterator[tuple[str, bytes]]) -> None:
    with writing(output), replacing(output) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as case:
        for name, content in entries:
            case.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)


def summary(explanation: "Explanation") -> Iterator[str]:
    """The explanation in a few lines for a terminal."""
    verdict, custody = explanation.verdict, explanation.custody
    yield f"{verdict.path}: {explanation.sentence}"
    for face in explanation.faces:
        yield from (f"  {line}" for line in _face_lines(face))
    if explanation.provenance:
        found = explanation.provenance
        yield from (f"  disagreement: {sentence}" for sentence in found.disagreements)
        yield from (f"  {line.kind} {line.where}: {line.text}" for line in found.findings if line.kind != "absent")
    model = f"{custody.model} {custody.model_version} ({custody.model_sha256[:16]})"
    yield f"  judged by {model}, faceauth {custody.program_version}"
    yield f"  image SHA-256 {custody.image_sha256}, {custody.created_at}, {explanation.ms / 1000:.1f} s"
    yield f"  {explanation.caveats[0]} The whole report: -o report.json"


def _face_lines(face: "FaceExplanation") -> Iterator[str]:
    from faceauth.explain.words import weaker

    yield face.sentence
    if face.reason:
        yield f"  {face.reason}"
    yield from (f"  {sentence}" for sentence in face.worth.sentences)
    if heat := face.heat_map:
        yield f"  {weaker(heat)}"
    if found := face.stability:
        edits = [f"{e.edit} {e.score:.2f}" for e in found.edits[1:]]
        yield (
            f"  {found.changes} of {len(edits)} edits change the label, scores {found.lowest:.2f} to "
            f"{found.highest:.2f}: {', '.join(edits)}"
        )
    if face.nearest:
        yield "  nearest training sources: " + ", ".join(
            f"{n.source} ({n.label}, {n.distance:.1f})" for n in face.nearest[:4]
        )


def _other_makers(said: dict[str, Any], now: dict[str, Any], shown: Callable[[Any], str]) -> Iterator[str]:
    """Notices where something else judges now than judged then."""
    if said.get("model_sha256") != now["model_sha256"]:
        then, here = (
            f"{shown(d.get('model'))} {shown(d.get('model_version'))} (SHA-256 {shown(d.get('model_sha256'))})"
            for d in (said, now)
        )
        yield f"the report was made with model {then}, not with {here}: give its file with --model"
    for name, words in (("program_version", "another program version"), ("libraries", "other libraries")):
        if said.get(name) != now[name]:
            yield f"the report was made with {words}: {shown(said.get(name))}, here {shown(now[name])}"
    then, here = said["parameters"], now["parameters"]
    for one, other, what, give in (
        (said.get("learned_sha256"), now["learned_sha256"], "learned classes", "give their file with --learned"),
        (then.get("trust_sha256"), here["trust_sha256"], "a trust list", "give it with --trust-anchors"),
    ):
        if one != other:
            made = f"with {what} of SHA-256 {shown(one)}" if one else f"without {what}"
            step = give if one else "leave it out"
            yield f"the report was made {made}, here {f'with {shown(other)}' if other else 'without'}: {step}"
    for name in ("max_pixels", "max_bytes"):
        if then.get(name) != here[name]:
            given = f"--{name.replace('_', '-')} {shown(then.get(name))}"
            yield f"the report was made with {given}, here with {here[name]}: give {given}"


def _detector(
    model: Path | None, threshold: float | None, false_alarms: str | None, whole_image: bool, no_recheck: bool,
    max_pixels: int, max_bytes: int, learned: Path | None, no_learned: bool,
) -> "Detector":  # fmt: skip
    from faceauth.detector import Detector
    from faceauth.images import Limits

    return Detector(
        model, threshold=threshold, false_alarms=parse_rate(false_alarms), recheck=not no_recheck,
        whole_image=whole_image, limits=Limits(max_pixels, max_bytes), learned=learned_file(learned, no_learned),
    )  # fmt: skip


def _loaded(photo: str, detector: "Detector") -> "LoadedImage":
    """The picture at a path, or on standard input. Raises ImageError where it cannot be read."""
    from faceauth.images import load
    from faceauth.inputs import expand

    if photo != "-":
        try:
            return load(photo, detector.limits)
        except ImageError as error:
            hint = error.hint or "give the path of one picture that can be opened"
            raise ImageError(f"cannot read {photo!r}: {error.message}", hint) from error
    references = expand(["-"], max_bytes=detector.limits.max_bytes).references
    if len(references) != 1:
        raise UsageError(f"{len(references)} pictures on standard input", "give one at a time")
    return load(references[0], detector.limits)


def _trust(anchors: Path | None, usages: Path | None) -> "TrustList | None":
    from faceauth.provenance import TrustList

    if usages and not anchors:
        raise UsageError("--trust-usages needs a trust list", "add --trust-anchors FILE.pem")
    return TrustList.read(anchors, usages) if anchors else None


def _writer(output: Path, *, overwrite: bool) -> "Callable[[Explanation, Image.Image], bytes]":
    check_new(output, tuple(WRITERS), overwrite=overwrite)
    if output.suffix.lower() == ".pdf":  # said before the work is done
        try:
            import fpdf  # noqa: F401
        except ImportError as error:
            raise MissingExtra("PDF files need fpdf2", "pdf") from error
    return WRITERS[output.suffix.lower()]
