"""Fetching a corpus: from a table of where each image was published to a folder with an `images.csv`.

The table names a public repository, commit and path for every image, and the SHA-256 of its bytes; it holds no image.
Each file is checked, a run that was broken off goes on, and what cannot be had is listed with the reason in `gone.csv`.
An image whose bytes were changed after publication (`change`: cut out, or a tile of a figure) cannot be remade byte for
byte, because the bytes depend on the encoder's version; it is taken from a copy at hand alone.
"""

import csv
import hashlib
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import urllib3

from faceauth import __version__
from faceauth.errors import DataError, UsageError
from faceauth.files import locked, write_bytes, write_text
from faceauth.lab.data.dataset import AGAIN, IMAGES_COLUMNS, LABELS, leads_outside
from faceauth.lab.progress import tracked

URL = "https://raw.githubusercontent.com/{repo}/{commit}/{path}"
CONNECTIONS = 4  # at once; more is not polite
GONE = "gone.csv"
_TRIES = 6
_PATIENCE = 900  # seconds that a server may ask to wait
_TIMEOUT = 60.0  # seconds without a byte
_BACKOFF = 1.0  # seconds before the second try; each further one waits twice as long
_GIVE_UP = 5  # files in a row that the server did not answer for
_HEX = set("0123456789abcdef")


class Entry(NamedTuple):
    """One image of the table: what `images.csv` says of it, and where its file was published.

    Attributes:
        repo, commit, repo_path: where the original was published; empty where that is not known file by file.
        original_sha256: of the published file, where it is not that of the image; sha256: of the image.
        change: what was done to the published bytes; empty for nothing.
    """

    path: str
    source: str
    label: str
    family: str
    generator: str
    group: str
    repo: str
    commit: str
    repo_path: str
    original_sha256: str
    sha256: str
    change: str


@dataclass(frozen=True, slots=True)
class Gone:
    """An image that could not be had, and why; `again`: whether another try may help."""

    entry: Entry
    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run came to: the images that are in the folder, and those that are not."""

    here: tuple[Entry, ...]
    gone: tuple[Gone, ...]


def read_table(path: Path) -> list[Entry]:
    """Read and check a table of published images. Raises DataError for none, or naming the first row that is wrong."""
    try:
        rows = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        records = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the table {str(path)!r}: {error}", "configs/corpus.csv is one") from error
    if missing := [n for n in Entry._fields if n not in (rows.fieldnames or [])]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}", "configs/corpus.csv has them")
    entries = [Entry(*((record[n] or "").strip() for n in Entry._fields)) for record in records]
    seen: set[str] = set()
    for number, entry in enumerate(entries, 2):
        if fault := _fault(entry, seen):
            raise DataError(f"{path}: row {number}: {fault}", "correct or delete this row")
        seen.add(entry.path)
    if not entries:
        raise DataError(f"{path} names no images", "configs/corpus.csv is one")
    return entries


def _fault(entry: Entry, seen: set[str]) -> str:
    if not entry.path or leads_outside(entry.path):
        return f"the path {entry.path!r} is empty or leads outside the folder"
    if entry.path in seen:
        return f"{entry.path} is in an earlier row already"
    if not entry.source or entry.label not in LABELS:
        return f"no source, or label {entry.label!r} is none of {', '.join(LABELS)}"
    if len(entry.sha256) != 64 or not set(entry.sha256) <= _HEX:
        return f"sha256 {entry.sha256!r} is not 64 hexadecimal digits"
    return ""


def fetch(
    table: Path, output: Path, from_folder: Path | None = None, url: str = URL, connections: int = CONNECTIONS
) -> Fetched:
    """Make `output` a data set of a table's images: its files, `images.csv` and, if need be, `gone.csv`.

    Files that are there already and have the right hash are kept. `images.csv` is written when every image is either
    there or known not to be had.

    Args:
        from_folder: a copy at hand, with the same paths; nothing is fetched from a server then.
        url: where a file lies, with {repo}, {commit} and {path}, filled in percent-encoded; connections: at once.

    Raises:
        UsageError: a URL or folder that makes no sense; another process writes there.
        DataError: the table is faulty, the folder cannot be written, no image can be had, or the server does not
            answer: the same command goes on where it stopped.
    """
    if from_folder is not None and output.resolve() == from_folder.resolve():
        raise UsageError(f"{str(output)!r} is the folder to copy from", "give -o another folder")
    entries = read_table(table)
    get = _from_folder(from_folder) if from_folder is not None else _Server(url, connections).get
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output / "images.csv"):
            for leftover in output.rglob(".*.part"):
                leftover.unlink()
            outcomes = _outcomes(entries, output, get, connections)
            here = tuple(e for e, gone in zip(entries, outcomes, strict=True) if gone is None)
            fetched = Fetched(here, tuple(gone for gone in outcomes if gone is not None))
            if fetched.gone:
                lines = ([*g.entry, g.reason] for g in fetched.gone)
                write_text(output / GONE, _csv([*Entry._fields, "reason"], lines))
            else:
                (output / GONE).unlink(missing_ok=True)
            if again := [g for g in fetched.gone if g.again]:
                raise DataError(f"{len(again):,} images were not fetched: {again[0].reason}", AGAIN)
            if not here:
                raise DataError(f"none of the images can be had: {fetched.gone[0].reason}", f"see {output / GONE}")
            rows = ([getattr(e, c) for c in IMAGES_COLUMNS] for e in fetched.here)
            write_text(output / "images.csv", _csv(IMAGES_COLUMNS, rows))
    except OSError as error:
        raise DataError(f"cannot write {str(error.filename or output)!r}: {error.strerror}") from error
    return fetched


def summary(fetched: Fetched) -> Iterator[str]:
    """A line of what there is, and one for each reason why something is not."""
    total = len(fetched.here) + len(fetched.gone)
    yield f"{len(fetched.here):,} of {total:,} images, {len({e.source for e in fetched.here})} sources"
    for reason, count in Counter(g.reason for g in fetched.gone).most_common():
        yield f"{count:,} not: {reason}"


Get = Callable[[Entry], bytes | Gone]


def _outcomes(entries: Sequence[Entry], output: Path, get: Get, connections: int) -> list[Gone | None]:
    """For each entry None where its file is in the folder now, or why it is not."""

    def obtain(entry: Entry) -> Gone | None:
        target = output / entry.path
        if target.is_file() and _sha256(target.read_bytes()) == entry.sha256:
            return None
        data = get(entry)
        if isinstance(data, Gone):
            target.unlink(missing_ok=True)  # what is there is something else
            return data
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data)
        return None

    pool = ThreadPoolExecutor(connections)
    try:
        return list(tracked(pool.map(obtain, entries), len(entries), "fetching"))
    finally:
        pool.shutdown(cancel_futures=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _from_folder(folder: Path) -> Get:
    if not folder.is_dir():
        raise UsageError(f"no folder {str(folder)!r}", "--from-folder takes a copy of the corpus")

    def get(entry: Entry) -> bytes | Gone:
        try:
            data = (folder / entry.path).read_bytes()
        except FileNotFoundError:
            return Gone(entry, "not in the folder")
        except OSError as error:
            return Gone(entry, f"cannot be read in the folder: {error.strerror}")
        if _sha256(data) != entry.sha256:
            return Gone(entry, "other bytes in the folder than the table says")
        return data

    return get


class _Server:
    """Files from a public server, politely: few connections, kept open, and back-off where it asks for it."""

    def __init__(self, url: str, connections: int) -> None:
        try:
            url.format(repo="r", commit="c", path="p")
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(f"{url!r} is no template of a URL: {error}", f"for example {URL}") from error
        if not url.startswith(("http://", "https://")) or "{path}" not in url:
            raise UsageError(f"{url!r} is no template of a URL", f"for example {URL}")
        self._url = url
        self._unanswered = 0
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(
            maxsize=connections, block=True, timeout=urllib3.Timeout(connect=10.0, read=_TIMEOUT),
            headers={"User-Agent": f"faceauth/{__version__} (lab corpus fetch)"}, retries=_retries(),
        )  # fmt: skip

    def get(self, entry: Entry) -> bytes | Gone:
        """The bytes of an image, or why there are none."""
        if entry.change:
            sort = entry.change.split(" ")[0] if entry.change.startswith("cropped ") else entry.change  # no numbers
            return Gone(entry, f"changed after publication, which cannot be remade byte for byte ({sort})")
        if not entry.repo or not entry.commit or not entry.repo_path:
            return Gone(entry, "where it was published is not known file by file")
        if self._unanswered >= _GIVE_UP:
            return Gone(entry, "the server does not answer", again=True)
        url = self._url.format(repo=quote(entry.repo), commit=quote(entry.commit), path=quote(entry.repo_path))
        try:
            response = self._pool.request("GET", url)
        except urllib3.exceptions.HTTPError as error:
            with self._lock:
                self._unanswered += 1
            cause = getattr(error, "reason", None)  # the innermost says what happened
            name = type(cause if isinstance(cause, Exception) else error).__name__
            return Gone(entry, f"the server does not answer: {name}", again=True)
        busy = response.status == 429 or response.status >= 500
        with self._lock:
            self._unanswered = self._unanswered + 1 if busy else 0
        if response.status != 200:
            return Gone(entry, f"HTTP {response.status}", again=busy)
        if _sha256(response.data) != entry.sha256:
            return Gone(entry, "other bytes on the server than the table says")
        return response.data


class _Waiting(urllib3.Retry):
    def get_backoff_time(self) -> float:
        return max(float(self.backoff_factor), super().get_backoff_time())  # the first wait too


def _retries() -> urllib3.Retry:
    """Up to `_TRIES` tries, each after a longer wait, or after what `Retry-After` asks for."""
    return _Waiting(
        total=_TRIES, backoff_factor=_BACKOFF, backoff_max=60, status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False, redirect=3, retry_after_max=_PATIENCE,
    )  # fmt: skip


def _csv(columns: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
