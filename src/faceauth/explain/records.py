"""What an explanation holds: frozen records of plain values. How they are found is in the modules beside this one."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from faceauth.provenance.report import Report
from faceauth.verdict import Label, Verdict

FORMAT = 1
Region = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright image
Method = Literal["patches", "occlusion"]
Side = Literal["real", "fake"]


@dataclass(frozen=True, slots=True)
class Worth:
    """What the word of a verdict is worth, from measured rates alone.

    Attributes:
        score_rate: share of real photographs of unseen kinds that score as high or higher, in [0, 1]; None where the
            face has no score.
        measured_on: which photographs those are, as the model file says.
        real_called_fake, fake_called_fake: shares of photographs and of generated faces of unseen kinds that are called
            fake; None where that was not measured for this model and threshold.
        fake_is_right: pairs (share of pictures that are fake, share of those called fake that are); empty likewise.
        rates_measured_on: which images these rates come from; empty likewise.
        sentences: all of that in words, in the order to be read.
    """

    score_rate: float | None
    measured_on: str
    real_called_fake: float | None
    fake_called_fake: float | None
    fake_is_right: tuple[tuple[float, float], ...]
    rates_measured_on: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Where the evidence of one face lies.

    Attributes:
        method: `patches` where each patch's part of the logit is known; `occlusion` where rows and columns of the face
            were blurred and the change of the logit was read.
        region: the square that `values` cover, in pixels of the upright image.
        values: rows of equal length, top to bottom, of the image as it stands; in [-1, 1], relative to the strongest
            cell: above 0 what speaks for fake, below what speaks for real.
        logit: the network's logit of the face.
        side: what the calibrated score of the face as it is leans to.
        placed: the share of the patches' means, which alone have a place, in what makes up `strongest`, in [0, 1];
            None where that is not known.
        strongest: by how much the logit falls where the fifth of the cells is blurred that speaks most for `side`;
            beside `logit` it says whether any one part of the face decides, and whether the map is to be believed.
            It is read of the head that gave the logit, where a model has two.
        score, without: P(fake) by the network alone, before learned classes have a say: of the face as it is, and with
            that fifth blurred.
    """

    method: Method
    region: Region
    values: tuple[tuple[float, ...], ...]
    logit: float
    side: Side
    placed: float | None
    strongest: float
    score: float
    without: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A named radial profile: `decibels` over one grey level squared, one value for each frequency of the spectrum."""

    name: str
    images: int
    decibels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The noise residual of the face by frequency, beside averages.

    Attributes:
        frequency: cycles a pixel of the network's input, rising, 0 to 0.5; decibels: of this face.
        real: mean over the sources of photographs; low, high: 5th and 95th percentile of single photographs.
        generator: mean of the named generator's images; None where none is named, or it is unknown.
    """

    frequency: tuple[float, ...]
    decibels: tuple[float, ...]
    real: Profile | None
    real_low: tuple[float, ...]
    real_high: tuple[float, ...]
    generator: Profile | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training source near the face in the embedding.

    Attributes:
        distance: Mahalanobis, from the face to the source's mean; share: of the known sources and an unknown one, by
            density, before the score has a say.
    """

    source: str
    label: Label
    generator: str
    family: str
    distance: float
    share: float


@dataclass(frozen=True, slots=True)
class Edit:
    """The face after one change of its pixels; the label is by the score and the two thresholds alone."""

    edit: str
    score: float
    label: Label


@dataclass(frozen=True, slots=True)
class Stability:
    """What becomes of the score under changes that say nothing of how a picture was made.

    Attributes:
        edits: the picture as it is first; changes: how many of the others have another label than that one.
        lowest, highest: score among all.
    """

    edits: tuple[Edit, ...]
    changes: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class FaceExplanation:
    """One face of the verdict, explained. A face that was not judged has a sentence and a reason only.

    Attributes:
        index: as in `Face`; sentence: the verdict in words; reason: why it is uncertain, in words, None elsewhere.
        region: the square that the network was shown, in pixels of the upright image.
        nearest: nearest first; empty where the model file holds no prototypes.
    """

    index: int | None
    sentence: str
    reason: str | None
    worth: Worth
    region: Region | None = None
    heat_map: HeatMap | None = None
    spectrum: Spectrum | None = None
    nearest: tuple[Neighbour, ...] = ()
    stability: Stability | None = None

    @property
    def number(self) -> int:
        """What pages call it by, its index counted from 1; 1 for the whole image."""
        return (self.index or 0) + 1


@dataclass(frozen=True, slots=True)
class Custody:
    """What judged what, so that anybody can repeat it.

    Attributes:
        image_sha256, image_bytes: of the file; None for pixels in memory.
        parameters: of the detector, by name: thresholds, limits and what was switched off.
        libraries: versions of those that pixels and scores depend on.
        created_at: UTC, ISO 8601; the only value that differs when the same is explained again, with `ms`.
    """

    image_sha256: str | None
    image_bytes: int | None
    model: str
    model_version: str
    model_sha256: str
    learned_sha256: str | None
    face_finder: str | None
    program: str
    program_version: str
    libraries: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, Any], ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known about one image and its verdict.

    Attributes:
        sentence: what was found, in words; faces: one a face of `verdict.faces`, in the same order.
        provenance: what the file says of itself, beside the score; None for pixels in memory.
        caveats: sentences on what none of this proves; to be shown with it.
        ms: wall time in milliseconds.
    """

    verdict: Verdict
    sentence: str
    faces: tuple[FaceExplanation, ...]
    provenance: Report | None
    custody: Custody
    caveats: tuple[str, ...]
    ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, in a fixed order."""
        custody = asdict(self.custody)
        pairs = {name: dict(custody[name]) for name in ("libraries", "parameters")}
        return {
            "format": FORMAT,
            "sentence": self.sentence,
            "verdict": self.verdict.to_dict(),
            "faces": [_plain(asdict(face)) for face in self.faces],
            "provenance": self.provenance.to_dict() if self.provenance else None,
            "custody": custody | pairs,
            "caveats": list(self.caveats),
            "ms": self.ms,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
