"""API keys: made once, kept as hashes, compared in constant time; and how many images each may send."""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from faceauth.errors import UsageError
from faceauth.files import locked, write_text

VARIABLE = "FACEAUTH_API_KEYS"
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})[ \t]+(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is let in: `name` for logs, and the SHA-256 of its text.

    A key is 256 random bits, so a fast hash is enough: there is nothing to guess.
    """

    name: str
    sha256: str


def make(name: str, file: Path) -> str:
    """Make a key, add its hash to a file, and return its text, which is kept nowhere.

    Raises:
        UsageError: for a name that is in use or cannot be one, and for a file that is none of keys.
    """
    text = f"fa_{secrets.token_urlsafe(32)}"
    line = f"{name} {_hashed(text)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"{name!r} cannot be the name of a key", "1 to 64 letters, digits, dots, dashes, underscores")
    try:
        with locked(file, wait=5.0):
            before = file.read_text("utf-8") if file.exists() else ""
            if name in {key.name for key in parse(before, str(file))}:
                raise UsageError(
                    f"a key called {name!r} is in {str(file)!r}", "remove its line, or choose another name"
                )
            write_text(file, before + ("\n" if before and not before.endswith("\n") else "") + line + "\n")
            file.chmod(0o600)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot write {str(file)!r}: {getattr(error, 'strerror', None) or 'no text'}") from error
    return text


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Key, ...]:
    """The keys of a file, and of the variable FACEAUTH_API_KEYS; lines of the same form, parted by commas too.

    Raises:
        UsageError: for a file that cannot be read, that holds no key, or a line that is none.
    """
    found: list[Key] = []
    if file is not None:
        try:
            found += parse(file.read_text("utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise UsageError(f"cannot read {str(file)!r}: {reason}", _HINT) from error
        if not found:
            raise UsageError(f"no key in {str(file)!r}", _HINT)
    found += parse(environment.get(VARIABLE, "").replace(",", "\n"), VARIABLE)
    return tuple(found)


_HINT = "make one: faceauth serve --new-key NAME --api-keys FILE"


def parse(text: str, where: str) -> list[Key]:
    """Lines `NAME SHA256`; empty ones and those after # are passed over. A line that is none is not repeated."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        if not (match := _LINE.fullmatch(line)):
            raise UsageError(f"line {number} of {where!r} is no 'NAME SHA256'", _HINT)
        keys.append(Key(match["name"], match["sha256"]))
    return keys


def find(keys: Iterable[Key], text: str) -> Key | None:
    """The key whose text this is; every key is compared, in constant time."""
    given = _hashed(text)
    matching = [key for key in keys if hmac.compare_digest(key.sha256, given)]
    return matching[0] if matching else None


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class Rates:
    """Images a minute and key: what is left refills evenly, up to a minute's worth."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_minute, self._clock = a_minute, clock
        self._left: dict[str, tuple[float, float]] = {}  # by name: images left, and when that was

    def wait(self, name: str) -> float:
        """Seconds until the key may send again; 0 where it may now."""
        if not self._a_minute:
            return 0.0
        return max(0.0, (1 - self._now(name)) * 60 / self._a_minute)

    def take(self, name: str, images: int) -> None:
        """Count images; a request that is more than what is left is judged, and the next has to wait for longer."""
        self._left[name] = self._now(name) - images, self._clock()

    def _now(self, name: str) -> float:
        left, since = self._left.get(name, (float(self._a_minute), self._clock()))
        return min(self._a_minute, left + (self._clock() - since) * self._a_minute / 60)
