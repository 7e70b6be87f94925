"""Frames of a video judged as photographs, and faces followed from one frame to the next. Decoded by PyAV (`video`).

What a hostile file can cost is bounded: only containers of films are opened and nothing that they refer to, and there
are limits on a frame's pixels, on the frames that are judged, and on the time that decoding up to the next may take.
"""

import hashlib
import math
import os
import re
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from faceauth.detector import Detector
from faceauth.errors import ImageError, MissingExtra
from faceauth.images.formats import HEAD, VIDEO, foreign
from faceauth.inputs import harmless
from faceauth.output import Row, rows
from faceauth.verdict import Box, Label, Verdict, finite

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CAVEAT = (
    "The model was made and measured on photographs; nothing was measured on video, where compression and motion "
    "change the noise of a face. Frames of one face resemble each other: many called fake prove hardly more than one."
)
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf"
LARGEST = 40_000_000  # pixels of a frame as it is shown; 8K has 33 million
ROUNDED = 1_000_000  # pixels by which FFmpeg rounds a frame up before it looks at the limit
WIDEST = 8.0  # times that pixels may be wider than high, or higher than wide
SQUARE = 0.02  # by which their aspect may differ from 1 without being undone, as pixels that are left alone tell more
MOST = 1000  # frames that are judged
PATIENCE = 60.0  # seconds of decoding up to the next frame that is judged
BROKEN = 100  # packets in a row that cannot be decoded
MISSING, SHARE = 2.0, 0.1  # seconds, and share of the whole, that may lack at the end without a word
CLOSE = 1e-6  # of a span: times are rounded
BACK = 1.0  # seconds that times have to fall to begin anew; a codec's reordered frames can be out of order by less
SAME = 0.3  # intersection over union of two boxes of one face in neighbouring frames
GONE = 2  # judged frames after which a face that was not seen again is another one
Track = dict[str, Any]


@dataclass
class Clip:
    """A video file, opened for `frames`.

    Attributes:
        path, sha256: of the file; stopped: why not all of it was read, in words; None where it was.
        damaged: whether FFmpeg found damage in what was read; what a decoder conceals goes unnoticed.
    """

    path: str
    sha256: str
    stopped: str | None = field(default=None, init=False)
    damaged: bool = field(default=False, init=False)

    @property
    def note(self) -> str | None:
        """`stopped` and `damaged` in words; None for a clip that was read whole and sound."""
        return "; ".join(filter(None, [self.stopped, "parts of it are damaged" if self.damaged else None])) or None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Clip":
        """Look at a file.

        Raises:
            ImageError: it cannot be read, or is no video; MissingExtra: PyAV is not installed.
        """
        try:
            if not Path(path).is_file():
                raise ImageError(f"{os.fspath(path)!r} is no file", "give the path of a video file")
            with open(path, "rb") as file:
                if foreign(file.read(HEAD)) is not VIDEO:
                    raise ImageError(f"{os.fspath(path)!r} is no video", "give pictures to faceauth detect")
                try:
                    import av  # noqa: F401
                except ImportError as error:
                    raise MissingExtra("reading videos needs PyAV", "video") from error
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ImageError(f"cannot read {os.fspath(path)!r}: {error.strerror or error}") from error
        return cls(harmless(os.fspath(path)), sha256)

    def frames(self, fps: float) -> Iterator[tuple[float, Image.Image]]:
        """Time in seconds and upright RGB picture of the first frame in each span of 1 / `fps` seconds.

        Times are the file's own. Where they fall by more than `BACK`, as where two files were joined, spans begin anew.

        Raises:
            ImageError: not a single frame can be decoded, or they are too large.
        """
        import av

        hint: str | None = "is the file whole, and a video?"
        count, due, latest = 0, -math.inf, -math.inf
        try:
            with closing(self._decoded()) as decoded:
                since = time.monotonic()
                for now, frame in decoded:
                    if time.monotonic() - since > PATIENCE:
                        raise ValueError("decoding takes too long")
                    if now < latest - BACK:
                        due = latest = -math.inf
                    latest = max(latest, now)
                    if frame is None or now < due:
                        continue
                    yield now, frame()
                    count, due = count + 1, (math.floor(now * fps + CLOSE) + 1 - CLOSE) / fps
                    if count >= MOST:
                        self.stopped = f"stopped after {MOST:,} frames, {now:.0f} s in (a lower --fps reaches further)"
                        return
                    since = time.monotonic()
        except ImageError as error:
            self.stopped, hint = f"stopped: {error.message}", error.hint
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.stopped = f"stopped: {said.splitlines()[0][:120]}"
        if not count:
            reason = f": {self.stopped}" if self.stopped else ""
            raise ImageError(f"{self.path!r}: no frame could be decoded{reason}", hint)

    def _decoded(self) -> Generator[tuple[float, Callable[[], Image.Image] | None], None, None]:
        """The time of every frame, and what makes its picture.

        None for data of which no frame was made, so that a caller can look at the clock.

        Raises:
            ImageError: a frame is too large; ValueError: data cannot be decoded; av.FFmpegError: the file cannot be
                opened.
        """
        import av

        only = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}  # nothing that the file refers to
        with (
            open(self.path, "rb") as file,
            av.open(file, "r", container_options=only, metadata_errors="ignore") as opened,
        ):
            if not opened.streams.video:
                return
            stream = opened.streams.video[0]
            _check(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.options = {"max_pixels": str(LARGEST + ROUNDED)}
            stream.thread_type = "AUTO"
            yield from self._found(opened, stream)

    def _found(
        self, opened: "InputContainer", stream: "VideoStream"
    ) -> Iterator[tuple[float, Callable[[], Image.Image] | None]]:
        """As `_decoded`; sets `damaged`, and `stopped` where the pictures end before the file says."""
        import av

        aspect = _aspect(stream.sample_aspect_ratio)
        start = now = end = float((stream.start_time or 0) * (stream.time_base or 0))
        broken, gap = 0, 0.0
        for packet in opened.demux(stream):
            try:
                found: list[VideoFrame] = packet.decode()
                broken = 0
            except av.FFmpegError:
                found, broken = [], broken + 1
            self.damaged |= bool(broken or packet.is_corrupt or any(f.is_corrupt for f in found))
            if broken > BROKEN:
                raise ValueError("its data cannot be decoded")
            for frame in found:
                now = frame.time if frame.time is not None else now
                gap, end = max(gap, now - end), max(end, now + _seconds(frame))
                yield now, partial(_picture, frame, aspect)
            if not found:
                yield now, None
        announced = _announced(opened, stream)
        if announced - end > max(MISSING, SHARE * announced, gap) and end > start:  # the last may stay as long
            self.stopped = f"its pictures end at {end:.1f} s, and the file announces {announced:.1f} s"


def _seconds(frame: "VideoFrame") -> float:
    """How long a frame is shown, 0 where that is not known."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _announced(opened: "InputContainer", stream: "VideoStream") -> float:
    """When the pictures of a file end, by its own word (s); 0 where it says nothing of these alone."""
    start = stream.start_time or 0
    if opened.format.name == "avi" and stream.time_base:  # FFmpeg reckons its duration from what is there
        return float((start + stream.frames) * stream.time_base)
    if opened.format.name.startswith("mov") and stream.duration and stream.time_base:
        return float((start + stream.duration) * stream.time_base)
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):  # Matroska
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    if len(opened.streams) == 1 and opened.duration:
        return ((opened.start_time or 0) + opened.duration) / 1e6
    return 0.0


def _check(width: int, height: int) -> None:
    """Raises ImageError for a frame of more pixels than `LARGEST`."""
    if width * height > LARGEST:
        limit = f"the limit is {LARGEST:,}"
        raise ImageError(
            f"a frame of {width} x {height} pixels is too large, {limit}",
            "make it smaller: ffmpeg -i VIDEO -vf scale=1920:-2 smaller.mp4",
        )


def _aspect(said: Fraction | None) -> float:
    """Width of a pixel in heights; 1 where a file says nothing, what cannot be, or what nobody would see."""
    return float(said) if said and WIDEST >= said >= 1 / WIDEST and abs(said - 1) >= SQUARE else 1.0


def _picture(frame: "VideoFrame", aspect: float) -> Image.Image:
    """A frame as it is shown, RGB: upright, and enlarged in one direction so that its pixels are square.

    Raises:
        ImageError: it has too many pixels.
    """
    size = round(frame.width * max(aspect, 1)), round(frame.height / min(aspect, 1))
    _check(*size)
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return _upright(image, *_matrix(frame))


def _matrix(frame: "VideoFrame") -> tuple[float, float, float, float]:
    """a, b, c, d of x' = a x + c y, y' = b x + d y, by which a frame is shown; y goes down."""
    try:
        said = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except KeyError:
        return 1, 0, 0, 1
    except ValueError:  # the frame has data beside it of a kind that PyAV does not know
        angle = math.radians(frame.rotation)
        return math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    a, b, _, c, d, *_ = struct.unpack("=9i", said)
    return a, b, c, d


def _upright(image: Image.Image, a: float, b: float, c: float, d: float) -> Image.Image:
    """The picture mirrored and turned by the right angles that are nearest to a matrix; as it is for a singular one."""
    if a * d == b * c:
        return image
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.transpose(Image.Transpose.TRANSPOSE), c, b
    if a < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if d < 0 else image


class Follower:
    """Gives each face of a frame the number of its track: the one whose last box overlaps it most, else a new one."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Box, int]] = {}
        self._next, self._frame = 0, -1

    def __call__(self, boxes: Sequence[Box | None]) -> list[int | None]:
        """The tracks of the faces of the next frame; None for a face without a box."""
        self._frame += 1
        near = {track: box for track, (box, seen) in self._last.items() if self._frame - seen <= GONE}
        pairs = sorted(
            ((overlap(box, last), i, track) for i, box in enumerate(boxes) if box for track, last in near.items()),
            key=lambda pair: (-pair[0], pair[1:]),
        )
        found: dict[int, int] = {}
        for share, i, track in pairs:
            if share >= SAME and i not in found and track not in found.values():
                found[i] = track
        for i, box in enumerate(boxes):
            if box and i not in found:
                found[i], self._next = self._next, self._next + 1
        self._last = {t: v for t, v in self._last.items() if t in near} | {
            track: (box, self._frame) for i, track in found.items() if (box := boxes[i])
        }
        return [found.get(i) for i in range(len(boxes))]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def judge(
    detector: Detector, clip: Clip, fps: float, *, workers: int = 1, timeout: float | None = None
) -> Generator[Row, None, None]:
    """A row a face and judged frame, as `faceauth detect` gives it, then a row a track.

    A frame's rows have besides `row` ("frame"), `frame` (counted from 0), `time` (seconds) and `track`; a track's are
    those of `tracks`. The `note` of the last frame and of the tracks is that of the clip.

    Raises:
        ImageError: no frame can be decoded.
    """
    times: deque[float] = deque()

    def pictures() -> Iterator[Image.Image]:
        for now, image in clip.frames(fps):
            times.append(now)
            yield image

    follow = Follower()
    judged: list[Row] = []
    last: list[Row] = []
    with closing(detector.stream(pictures(), workers, timeout=timeout)) as verdicts:
        for number, verdict in enumerate(verdicts):
            yield from last
            place = {"row": "frame", "frame": number, "time": round(times.popleft(), 3)}
            last = [place | row for row in _frame_rows(verdict, clip, follow)]
            judged += [{name: row[name] for name in ("track", "time", "label", "score")} for row in last]
    yield from (row | {"note": clip.note} for row in last)
    yield from tracks(judged, clip)


def _frame_rows(verdict: Verdict, clip: Clip, follow: Follower) -> Iterator[Row]:
    named = finite(replace(verdict, path=clip.path, image_sha256=clip.sha256, picture=None))
    numbers: Sequence[int | None] = follow([face.box for face in named.faces]) or [None]
    for row, track in zip(rows(named), numbers, strict=True):
        yield {"track": track} | row


def tracks(judged: Iterable[Row], clip: Clip) -> Iterator[Track]:
    """A row for each face that was followed: from when to when (s), in how many frames, and what these were called.

    Its `label` is that of more than half of the judged frames, else `uncertain`; no such rule was measured.
    """
    found: dict[int, list[Row]] = {}
    for row in judged:
        if row["track"] is not None:
            found.setdefault(row["track"], []).append(row)
    for track, seen in sorted(found.items()):
        times = [row["time"] for row in seen]
        scores = [row["score"] for row in seen if row["score"] is not None]
        labels = Counter(row["label"] for row in seen if row["score"] is not None)
        most: list[tuple[Label, int]] = labels.most_common(1)
        yield {
            "row": "track", "path": clip.path, "image_sha256": clip.sha256, "track": track,
            "from": min(times), "to": max(times), "frames": len(seen), "judged": len(scores),
            "label": most[0][0] if most and 2 * most[0][1] > len(scores) else "uncertain",
            **{label: labels[label] for label in ("real", "uncertain", "fake")},
            "score": sum(scores) / len(scores) if scores else None,
            "lowest": min(scores, default=None), "highest": max(scores, default=None), "note": clip.note,
        }  # fmt: skip


def sentence(track: Track) -> str:
    """A track in words."""
    span = f"face {track['track'] + 1}, {track['from']:.1f} to {track['to']:.1f} s"
    if not track["judged"]:
        return f"{span}: not judged in any of {track['frames']} frames"
    counts = ", ".join(f"{track[label]} {label}" for label in ("real", "uncertain", "fake"))
    return (
        f"{span}: {track['label']}; of {track['judged']} frames {counts}; P(fake) {track['score']:.2f} on average, "
        f"{track['lowest']:.2f} to {track['highest']:.2f}"
    )
