"""An explanation in sentences: the verdict, its reason, and what the word is worth."""

from collections.abc import Iterator

from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.explain.records import HeatMap, Worth
from faceauth.explain.reference import Rates
from faceauth.verdict import Face, Reason, Verdict

SHARES = ((0.5, "one picture in two"), (0.1, "one in ten"), (0.01, "one in a hundred"))  # of pictures that are fake
CAVEATS = (
    "A score is evidence, not proof: nobody should be accused on the word of this program.",
    "A heat map says which parts of the face moved this model's score, not where a picture was changed, nor why. "
    "It speaks of the model, and a wrong verdict has a heat map too.",
    "The edits are made of the square that the network is shown; their labels follow the score and the two thresholds "
    "alone. A score that holds under them can be wrong.",
    "Spectra are those of the face cut and resized as the network is shown it, for every source alike; none is the "
    "spectrum of a camera or generator itself.",
    "The nearest sources are those that the model was trained on. What made the picture need not be among them.",
    "Anybody can write what a file says of itself. It takes no part in the score, and its absence proves nothing.",
    "This report is not signed: whoever holds it can change it. `faceauth verify` repeats it on the picture.",
)
_REASONS: dict[Reason, str] = {
    "too small": f"The face spans less than {SMALLEST_FACE} pixels; nothing was measured on such faces.",
    "covered": "A part of the face is one flat tone, as where something is laid over it, and the score lies between "
    "the thresholds.",
    "blurred or dark": "The face is blurred or dark, and the score lies between the thresholds.",
    "changes when re-saved": "The picture as it is reaches the threshold of fake; on average over re-saved views "
    "it does not.",
    "unlike anything tested": "The score lies between the thresholds, and the model has met nothing like this face: "
    "it lies farther from all training sources than 99 of 100 test images do.",
    "between thresholds": "The score lies between the thresholds of real and of fake.",
}
_SAID = ("called fake", "called uncertain", "called real", "not judged")


def headline(verdict: Verdict) -> str:
    """What was found in the picture, in one sentence; a second where a part of the file was judged."""
    note = verdict.note
    return _found(verdict) + (f" {note[0].upper()}{note[1:]}." if note else "")


def _found(verdict: Verdict) -> str:
    if not verdict.faces:
        return "No face was found, and nothing was judged."
    said = ["not judged" if f.score is None else f"called {f.label}" for f in verdict.faces]
    one = f"{'was' if verdict.faces[0].score is None else 'is'} {said[0]}"
    if verdict.faces[0].index is None:
        return f"No face was found; the whole image {one}, for which nothing was measured."
    if len(said) == 1:
        return f"The one face found {one}."
    found = ", ".join(f"{said.count(what)} {what}" for what in _SAID if what in said)
    return f"{len(said)} faces were found: {found}."


def sentence(face: Face, real_to: float) -> str:
    """The verdict on one face."""
    name = "The whole image" if face.index is None else f"Face {face.index + 1}"
    if face.score is None:
        return f"{name} was not judged: {face.error}."
    limits = f"real up to {real_to:.2f}, fake from {face.threshold:.2f}"
    made = {None: "", "unknown": " No known generator explains it well."}.get(
        face.generator, f" It most resembles: {face.generator}."
    )
    return f"{name} is called {face.label}: P(fake) is {face.score:.2f} ({limits}).{made}"


def reason(face: Face) -> str | None:
    """Why a face is uncertain; None where it is not."""
    return _REASONS[face.reason] if face.reason else None


def worth(detector: Detector, face: Face, rates: Rates | None) -> Worth:
    """What the verdict on a face is worth; rates count only where the detector judges as when they were measured."""
    thresholds = detector.model.card.thresholds
    measured = thresholds.measured_on
    rate = None
    if face.score is not None and face.index is not None and not measured.startswith("nothing"):
        rate = round(thresholds.false_alarm_rate(face.score), 6)
    taught = bool(detector.attributor and detector.attributor.taught)
    as_measured = (detector.fake_from, detector.recheck, taught) == (thresholds.fake, True, False)
    if face.index is None or face.score is None or not as_measured:
        rates = None
    right = tuple((share, _right(share, rates)) for share, _ in SHARES) if rates else ()
    return Worth(
        rate, measured, rates.real["fake"] if rates else None, rates.generated["fake"] if rates else None, right,
        rates.measured_on if rates else "", tuple(_sentences(face, rate, measured, rates, right)),
    )  # fmt: skip


def _right(share: float, rates: Rates) -> float:
    """Share of the pictures called fake that are, where `share` of all are."""
    hits, alarms = share * rates.generated["fake"], (1 - share) * rates.real["fake"]
    return round(hits / (hits + alarms), 4) if hits + alarms else 0.0


def _sentences(
    face: Face, rate: float | None, measured: str, rates: Rates | None, right: tuple[tuple[float, float], ...]
) -> Iterator[str]:
    if face.score is None:
        return
    if rate is None:
        yield "How many real photographs score this high was not measured."
        return
    many = _of_100(rate)
    yield (
        f"{many[0].upper()}{many[1:]} real photographs of kinds never seen score this high or higher, every kind "
        f"weighing the same ({measured})."
    )
    if rates is None:
        yield "How many fakes are called so was not measured for this model at these settings."
        return
    shares = [_of_100(of[face.label]) for of in (rates.real, rates.generated)]
    yield (
        f"Of kinds never seen, {shares[0]} photographs and {shares[1]} generated faces are called {face.label} "
        f"({rates.measured_on})."
    )
    cases = [
        f"in {_plain(p)} of 100 cases where {words} is fake" for (_, p), (_, words) in zip(right, SHARES, strict=True)
    ]
    yield f'The word "fake" is right {", ".join(cases)}.'


def _plain(rate: float) -> str:
    if 0 < rate < 0.005:
        return "fewer than 1"
    return "more than 99" if 0.995 <= rate < 1 else str(round(100 * rate))


def _of_100(rate: float) -> str:
    return f"{_plain(rate)} of 100"


def weaker(heat: HeatMap) -> str:
    """What becomes of the network's score without the strongest fifth of a heat map, and whether the map holds."""
    fall = heat.score - heat.without if heat.side == "fake" else heat.without - heat.score
    little = "" if fall > 0 else ": no part decides by itself, and the map says little here"
    change = f"takes the network's P(fake) from {heat.score:.2f} to {heat.without:.2f}"
    return f"Blurring the fifth of the face that speaks most for {heat.side} {change}{little}"
