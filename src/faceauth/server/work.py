"""What a worker process of the service does: decode, judge, and give plain values back. It knows nothing of HTTP."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from faceauth import __version__, learned
from faceauth.detector import Detector
from faceauth.errors import FaceAuthError, ImageError
from faceauth.explain import explain
from faceauth.faces import FaceFinder, FoundFace
from faceauth.images import EncodedImage, Limits
from faceauth.learned import default_file
from faceauth.learning import learn
from faceauth.provenance.report import Report, examine
from faceauth.server.settings import Settings
from faceauth.workers import Pool

Task = Literal["detect", "explain", "provenance", "learn"]
Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """Images and what to do with them; one image for every task but `learn`, whose options are `lesson`."""

    task: Task
    images: tuple[EncodedImage, ...]
    lesson: Plain | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """What was asked for makes no sense for these images: one line and a hint."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job without an answer, through no fault of its caller: `late` where it took too long."""

    reason: str
    late: bool = False


Answer = list[Plain] | Refused | GivenUp


def start(settings: Settings) -> Callable[[Job], Answer]:
    """Limit the memory of this process, open the model, judge once; returns what is called with each job."""
    cap_memory(settings.memory)
    return Worker(settings)


def described(settings: Settings) -> Plain:
    """What the model says of itself, read in a process that ends then, as a model takes much memory.

    Raises:
        FaceAuthError: for a model or a setting that is none.
    """
    with Pool[None, Plain](1, _start_describing, settings, lambda _, reason: {"reason": reason}) as pool:
        (found,) = pool.answers([None])
    return found


def _start_describing(settings: Settings) -> Callable[[None], Plain]:
    opened = detector(settings)
    card, taught = opened.model.card, opened.attributor.taught if opened.attributor else ()
    values = {
        "name": card.name, "version": card.version, "sha256": opened.model.sha256, "fake_from": float(opened.fake_from),
        "real_to": float(opened.real_to), "false_alarm_rate": float(opened.false_alarm_rate),
        "measured_on": card.thresholds.measured_on, "sources": list(card.sources), "labels": list(card.labels),
        "trained_on": card.trained_on, "licence": card.licence, "learned": [t.kind.name for t in taught],
    }  # fmt: skip
    return lambda _: values


def cap_memory(most: int) -> None:
    """Let this process hold at most so many bytes of data, where the system can see to it (Linux)."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def detector(settings: Settings) -> Detector:
    """The detector that a service judges with. Raises FaceAuthError for a model or setting that is none."""
    file = settings.learned
    if settings.teach and isinstance(file, Path) and not file.exists():
        file = False  # the first lesson makes the file
    opened = Detector(
        settings.model, false_alarms=settings.false_alarms, whole_image=settings.whole_image, learned=file,
        limits=Limits(settings.max_pixels, settings.max_bytes, adjustable=False),
    )  # fmt: skip
    opened.find_faces = at_most(settings.max_faces, opened.find_faces)
    return opened


def at_most(most: int, find: FaceFinder) -> FaceFinder:
    """A face finder that refuses pictures of more faces."""

    def limited(image: Image.Image) -> list[FoundFace]:
        found = find(image)
        if len(found) > most:
            raise ImageError(f"{len(found)} faces, more than the limit of {most}", "send parts of the picture")
        return found

    return limited


def learned_file(settings: Settings) -> Path | None:
    """The file of learned classes that a service judges with; None where it judges without."""
    return default_file() if settings.learned is True else settings.learned or None


def stamp(file: Path | None) -> tuple[int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None


def learned_names(settings: Settings, model_sha256: str) -> list[str]:
    """The classes learned for a model that the file holds now. Raises FaceAuthError for a file that is damaged."""
    file = learned_file(settings)
    return [t.kind.name for t in learned.read(file) if t.model_sha256 == model_sha256] if file else []


class Worker:
    """Answers jobs with plain values, one list a job: rows, reports, or one lesson."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open()

    def __call__(self, job: Job) -> Answer:
        try:
            if self._stamp() != self._opened:  # something was taught, or forgotten
                self._open()
        except FaceAuthError as error:
            return GivenUp(f"not judged: {error}")
        try:
            return self._learn(job) if job.task == "learn" else self._one(job.task, job.images[0])
        except FaceAuthError as error:
            return Refused(error.message, error.hint)
        except MemoryError:
            return Refused("this takes more memory than a worker may hold", "send a smaller picture")
        except Exception as error:  # one request is never the end of a process; the words may hold what was sent
            return GivenUp(f"not judged: {type(error).__name__}")

    def _open(self) -> None:
        stamp = self._stamp()
        opened = detector(self._settings)
        opened.run_nothing()
        opened.find_faces(Image.new("RGB", (640, 480)))
        self._detector, self._opened = opened, stamp

    def _stamp(self) -> tuple[int, int] | None:
        return stamp(learned_file(self._settings))

    def _one(self, task: Task, image: EncodedImage) -> list[Plain]:
        if task == "provenance":
            return [_report(image)]
        if task == "explain":
            return [explain(self._detector, image).to_dict()]
        verdict = next(self._detector.stream([image]))
        return [row | {"path_id": None} for row in verdict.rows()]  # no path of this machine

    def _learn(self, job: Job) -> list[Plain]:
        file = learned_file(self._settings)
        assert file is not None
        done = learn(self._detector, pictures=job.images, file=file, **(job.lesson or {}))
        taught = done.taught
        values = asdict(done) | {"confused": dict(done.confused), "taught": taught.kind.name, "count": taught.count}
        more = {"label": taught.kind.label, "family": taught.kind.family, "recall": taught.recall}
        return [values | more | {"notes": list(done.lines())}]


def _report(image: EncodedImage) -> Plain:
    """What the file says of itself; whatever is wrong with it is the report's error."""
    name = image.path or "-"
    try:
        report = examine(image.data, name)
    except FaceAuthError as error:
        report = Report(name, error=str(error))
    except Exception as error:  # one file is never the end of a run
        report = Report(name, error=f"cannot be examined: {type(error).__name__}")
    return report.to_dict() | {"version": __version__}
