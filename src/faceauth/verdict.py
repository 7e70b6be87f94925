"""What faceauth says about an image: frozen records. Nothing here knows where they come from."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Label = Literal["real", "fake", "uncertain", "no-face"]
Reason = Literal[
    "too small", "blurred or dark", "changes when re-saved", "unlike anything tested", "between thresholds"
]
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
        score: calibrated P(fake) in [0, 1] of the picture as it is, whatever the threshold; None where the face was too
            small to judge.
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
        image_sha256: of the file's bytes; None for pixels handed over in memory or unreadable files.
        width, height: pixels after the EXIF turn; None where the image could not be read.
        ms: wall time for this image in milliseconds: read, decode, find faces, judge.
        error: why the image could not be read, in words.
        evidence: what the file says of its own making; empty for pixels handed over in memory.
        learned: names of the learned classes that took part in the scores; learned_sha256: hash of them, None where
            none did.
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
    learned: tuple[str, ...] = ()
    learned_sha256: str | None = None
    picture: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> Label | None:
        """The gravest label among the faces: fake, then uncertain, then real; None where nothing was read."""
        labels = {face.label for face in self.faces}
        for label in ("fake", "uncertain", "real"):
            if label in labels:
                return label
        return "no-face" if self.error is None else None

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
