"""Which generator a field of a file names: exact names from generators.toml, never a word somewhere in a text.

What a field means decides which names count in it: `software` for a field that holds a program and nothing else,
`maker` for one that may hold a device, a maker or a credit as well, `weights` for a setting that means the model.
"""

import functools
import re
import tomllib
import unicodedata
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("generators.toml")
LONGEST_FIELD = 400  # characters; what names a program is short
# A version, a number or a commit's hash behind a name: 3, v6.1, 2.5b, 37442FCA.
_VERSION = r"(?:v(?:er(?:sion)?)?\.? ?)?\d[\w.+]*|[0-9a-f]{6,40}"
_MADE = re.compile(
    r"^(?:(?:ai|image|photo|picture) )*(?:made|created|generated|edited|produced|imagined|designed|rendered|powered)"
    r" (?:with|by|using|in|via|from|on) (?:the )?"
)
_PARTS = re.compile(r"[;,/|+&()\[\]\n:]| by | with | using | via | in ")
_SEPARATORS = re.compile(r"[\s_\-‐-–·・•]+")


class _Table(NamedTuple):
    names: dict[str, str]
    words: dict[str, str]
    weights: tuple[tuple[re.Pattern[str], str], ...]
    tail: re.Pattern[str]
    phrases: frozenset[str]


@functools.cache
def _table() -> _Table:
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    words: dict[str, str] = {}
    weights: list[tuple[str, str]] = []
    for generator, entry in data["generators"].items():
        names |= {_plain(name): generator for name in entry.get("names", ())}
        words |= {_plain(name): generator for name in entry.get("words", ())}
        weights += [(_plain(name), generator) for name in entry.get("weights", ())]
    weights.sort(key=lambda pair: -len(pair[0]))
    suffixes = "|".join(re.escape(s) for s in data["suffixes"])
    return _Table(
        names,
        words,
        tuple((re.compile(rf"(?<![a-z0-9.]){re.escape(w)}(?![a-z])"), g) for w, g in weights),
        re.compile(rf"(?:[ .@#]*(?:{_VERSION}|{suffixes}|\.(?:com|ai|io|art|app|org|net))(?![a-z0-9]))*"),
        frozenset(_plain(p) for p in data["phrases"]),
    )


def _plain(text: str) -> str:
    """Lower case, compatibility characters unfolded, one space for every run of separators."""
    folded = unicodedata.normalize("NFKC", text[:LONGEST_FIELD]).casefold()
    return _SEPARATORS.sub(" ", folded.replace("[", " ").replace("]", " ")).strip(" .\"'!")


def software(text: str) -> str | None:
    """The generator that a field names which means software only: `Adobe Firefly 3`, `Made with Google AI`."""
    return _first(text, _table().names | _table().words)


def maker(text: str) -> str | None:
    """The generator that a field names which may mean a device, an agency or a person too: an unmistakable name
    as the whole of it.

    An ordinary word counts behind "made with" and the like: `Gemini` may be an agency, `Created with Gemini` is not.
    """
    if len(text) > LONGEST_FIELD:
        return None
    plain = _plain(text)
    return software(text) if _MADE.match(plain) else _name(plain, _table().names)


def says_generated(text: str) -> bool:
    """Whether the whole field says that a generator was used, without a name: `AI generated image`."""
    return len(text) <= LONGEST_FIELD and any(_plain(p) in _table().phrases for p in (text, *text.split(";")))


def weights(model: str) -> str | None:
    """The generator whose weights a model's name or file speaks of: `flux1-dev-fp8.safetensors`."""
    plain = _plain(model)
    return next((generator for pattern, generator in _table().weights if pattern.search(plain)), None)


def _first(text: str, names: dict[str, str]) -> str | None:
    if len(text) > LONGEST_FIELD:
        return None
    plain = _plain(text)
    whole = (plain, _MADE.sub("", plain))
    for part in (*whole, *(p for w in whole for p in _PARTS.split(w))):
        if generator := _name(part.strip(" .\"'!"), names):
            return generator
    return None


def _name(part: str, names: dict[str, str]) -> str | None:
    """The longest known name that the part begins with, where nothing but a version and suffixes follow."""
    for end in range(len(part), 0, -1):
        if (generator := names.get(part[:end])) and _table().tail.fullmatch(part, end):
            return generator
    return None
