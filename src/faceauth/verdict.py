"""What faceauth says about an image: frozen records. Nothing here knows where they come from."""

import math
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from faceauth import __version__

Label = Literal["real", "fake", "uncertain", "no-face"]
Reason = Literal[
    "too small", "covered", "blurred or dark", "changes when re-saved", "unlike anything tested", "between thresholds"
]
GRAVEST_FIRST: tuple[Label, ...] = ("fake", "uncertain", "real", "no-face")
Shares = tuple[tuple[str, float], ...]  # names with their probabilities, falling, of sum 1
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright image; right/bottom exclusive


@dataclass(frozen=True, slots=True)
class Face:
    """The judgement of one face, or of the whole image where that was asked for and no face was found.

    Attributes:
        index: 0 for the largest face, counting down in size; None when the whole image was judged.
        box: where the face is; None when the whole image was judged.
        label: `fake` where the score, and its mean over re-saved views, reach `threshold`; `real` where the score is at
            or below the model's lower threshold; else `uncertain`, with a `reason`.
        score: calibrated P(fake) in [0, 1] of the picture as it is, whatever the threshold; None where nothing was
            judged.
        source: the training source that the face most resembles, among the fake ones where the label is fake or the
            score is at least 0.5, else among the real ones; None where it was not judged.
        threshold: the score from which on a face is called fake.
        false_alarm_rate: share of real faces at or above `threshold` on the photos that the model file was calibrated
            on; None where nothing was measured, as for a whole image.
        error: why there is no score, in words.
        stability: share of the views, the picture as it is included, that reach `threshold`, in (0, 1]; None where the
            picture as it is did not, and no view was tried.
        generator: what most likely made it, among generators and `unknown` for a fake, else `camera` or a taught real
            source; None where the model file holds no prototypes.
        generators, families: the shares behind that. A generator's share is a part of its family's.
        reason: why the label is `uncertain`; None for other labels.
    """

    index: int | None
    box: Box | None
    label: Label
    score: float | None
    source: str | None
    threshold: float
    false_alarm_rate: float | None
    error: str | None = None
    stability: float | None = None
    generator: str | None = None
    generators: Shares = ()
    families: Shares = ()
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a file says of its own making; anybody can write it, so it is shown beside the score and is no part of it.

    Attributes:
        where: the field that says so, as in `EXIF Software`.
        says: one short line of it; generator: the generator it names, None where it names none that is known.
    """

    where: str
    says: str
    generator: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one image: its faces, or the error that kept it from being read.

    Attributes:
        path: as given; `-` for standard input, None for pixels handed over in memory.
        faces: largest first; empty where `error` is set or no face was found.
        model, model_sha256: name and hash of the model file that judged.
        image_sha256: of the file's bytes; None for pixels handed over in memory and files that could not be read.
        width, height: pixels after the EXIF turn; None where the image could not be read.
        ms: wall time for this image in milliseconds: read, decode, find faces, judge.
        error: why the image could not be read, in words.
        evidence: what the file says of its own making; empty for pixels handed over in memory.
        version: of faceauth; judged_at: when, in UTC, as in `2026-01-31T12:00:00Z`.
        learned: names of the learned classes that took part in the scores; learned_sha256: hash of them, None where
            none did.
        face_finder: what found the faces, as in `centerface 3`.
        duplicate_of: path of the file that was judged, where this one shows the same picture (`faceauth.duplicates`).
        note: which part of the file was judged, where that holds more: the first frame of an animation, ...
        picture: a small JPEG of what was judged, for notebooks; None for files, which can be read again.
    """

    path: str | None
    faces: tuple[Face, ...]
    model: str
    model_sha256: str
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    ms: float | None = None
    error: str | None = None
    evidence: tuple[Evidence, ...] = ()
    version: str = __version__
    judged_at: str = field(default_factory=lambda: utc_now(), compare=False)
    learned: tuple[str, ...] = ()
    learned_sha256: str | None = None
    face_finder: str | None = None
    duplicate_of: str | None = None
    note: str | None = None
    picture: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> Label | None:
        """The gravest label among the faces: fake, uncertain, real, no-face; None where nothing was read."""
        labels = {face.label for face in self.faces}
        found = next((label for label in GRAVEST_FIRST if label in labels), None)
        return found or ("no-face" if self.error is None else None)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a face, as every output has them, ready for pandas; a single one where there is no face."""
        from faceauth.output import rows  # a record that can show itself: what it needs is imported when it does

        return rows(self)

    def to_dict(self) -> dict[str, Any]:
        """The verdict and its faces as plain values that JSON can hold; shares as dicts, without the picture."""
        values = asdict(self)
        del values["picture"]
        values["learned"] = list(self.learned)
        values["evidence"] = list(values["evidence"])
        values["faces"] = [
            asdict(face)
            | {"box": list(face.box) if face.box else None}
            | {"generators": dict(face.generators), "families": dict(face.families)}
            for face in self.faces
        ]
        return {"label": self.label, **values}

    def _repr_html_(self) -> str:
        """What notebooks show: the picture, the boxes of its faces, and the verdict in words."""
        from faceauth.notebook import to_html

        return to_html(self)


def utc_now() -> str:
    """The time in UTC, ISO 8601, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def finite(verdict: Verdict) -> Verdict:
    """The verdict; a face whose score is no number (NaN, infinity) is `uncertain`, without one, and has an error."""
    if all(_is_finite(face) for face in verdict.faces):
        return verdict
    faces = (
        face if _is_finite(face) else replace(face, label="uncertain", score=None, source=None, stability=None,
        error="the model gave a score that is no number", generator=None, generators=(), families=())
        for face in verdict.faces
    )  # fmt: skip
    return replace(verdict, faces=tuple(faces))


def _is_finite(face: Face) -> bool:
    numbers = [face.score, face.stability, *(share for _, share in (*face.generators, *face.families))]
    return all(number is None or math.isfinite(number) for number in numbers)
