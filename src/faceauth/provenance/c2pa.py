"""C2PA content credentials: whether a file carries a manifest, what it claims, who signed it, whether that still holds.

Read with c2pa-python (the extra `c2pa`). Nothing is fetched: no manifest that lies elsewhere, no revocation, no trust
list. None is shipped either: a signer is vouched for only where a trust list is given, and otherwise "valid" says that
the file is as it was signed, by whomever. Its texts are the file's own: whoever shows them cleans them.
"""

import ctypes
import functools
import hashlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from faceauth.errors import ImageError, MissingExtra, UsageError

# How the store's description box begins in every format that can hold one: C2PA specification 2, section 11.1.4.
MARK = b"jumdc2pa"
# The library would fetch a manifest that a file only points to, and what identity assertions name. Without a trust list
# the makers of time stamps are as unknown as signers are: to hold that against them would call every picture broken
# whose signer's certificate has expired since.
OFFLINE: dict[str, dict[str, Any]] = {
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_timestamp_trust": False},
}
EXPIRED = "signingCredential.expired"
UNTRUSTED = "signingCredential.untrusted"
MOST = 4  # of each kind of claim, and of the manifests of what was edited
MOST_INGREDIENTS = 16  # ingredients of a manifest that are counted
MOST_JSON = 1 << 26  # characters of the library's account of a store that are read
_LIBRARY = {"darwin": "libc2pa_c.dylib", "win32": "c2pa_c.dll"}

State = Literal["trusted", "valid", "expired", "broken"]
Trusted = Literal["yes", "no", "not checked"]


@dataclass(frozen=True, slots=True)
class TrustList:
    """Certificates that vouch for signers, as PEM, and the extended key usages allowed besides the specification's.

    Attributes:
        anchors: PEM certificates of authorities, or of signers themselves.
        usages: object identifiers, one a line, as in the `store.cfg` of c2patool; empty for the specification's own.
    """

    anchors: str
    usages: str = ""

    @classmethod
    def read(cls, anchors: Path, usages: Path | None = None) -> "TrustList":
        """A trust list from files.

        Raises:
            UsageError: for a file that cannot be read, or holds no certificate, or no object identifiers.
            MissingExtra: without c2pa-python, which would have to use it.
        """
        text = _text_file(anchors, "--trust-anchors")
        try:
            from cryptography import x509  # which c2pa-python brings with it
        except ImportError as error:
            raise MissingExtra("a trust list needs c2pa-python", "c2pa") from error
        try:
            x509.load_pem_x509_certificates(text.encode())
        except ValueError as error:
            hint = "give a PEM file of certificates (-----BEGIN CERTIFICATE-----)"
            raise UsageError(f"--trust-anchors {str(anchors)!r} holds no certificates: {error}", hint) from error
        allowed = _text_file(usages, "--trust-usages") if usages else ""
        for line in allowed.splitlines():
            if line.strip() and not line.startswith(("#", "//")) and not line.strip().replace(".", "").isdigit():
                hint = "give one object identifier a line, as 1.3.6.1.5.5.7.3.4"
                raise UsageError(f"--trust-usages {str(usages)!r}: {line.strip()[:60]!r} is none", hint)
        return cls(text, allowed)

    @property
    def sha256(self) -> str:
        """Of both files' text, to say which list vouched."""
        return hashlib.sha256(f"{self.anchors}\0{self.usages}".encode()).hexdigest()


def _text_file(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{option} {str(path)!r} cannot be read: {reason}", "give a text file") from error


@dataclass(frozen=True, slots=True)
class Made:
    """One action that says how the picture came about: `c2pa.created`, by which tool, of which IPTC source type."""

    action: str
    tool: str
    source_type: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the manifests of a file say.

    Attributes:
        state: valid where signature and hashes hold, trusted where the signer is on the trust list besides, expired
            where no time stamp says that the certificate was still good when they were made; else broken.
        failure: the specification's first code for what does not hold; empty where all does.
        signer: common name and organisation of the certificate that signed last; anybody can make one.
        generators: the programs that wrote the manifests, last first.
        made: how the picture came about, last first.
        trusted: whether the signer is on the trust list; not checked without a list.
        issuer: who issued the signer's certificate.
        valid_from, valid_until: when that certificate is good, ISO 8601; empty where the library does not say.
        good_now: whether that certificate is good at the time of reading.
        signed_at: the time stamp's time; empty without one, and then nobody but the signer says when it was signed.
        actions: the names of all actions, first done first, those of the active manifest before those of parents.
        ingredients: title and relationship of what the picture was made from.
    """

    state: State
    failure: str
    signer: str
    generators: tuple[str, ...]
    made: tuple[Made, ...]
    trusted: Trusted = "not checked"
    issuer: str = ""
    valid_from: str = ""
    valid_until: str = ""
    good_now: bool = False
    signed_at: str = ""
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()


def read(data: bytes, trust: TrustList | None = None) -> Credentials | None:
    """What the C2PA manifests in a file's bytes say; None where it carries none itself.

    Raises:
        MissingExtra: it carries one, and c2pa-python is not there to read it.
        ImageError: it carries one that cannot be read.
        UsageError: the library refuses the trust list.
    """
    if MARK not in data:
        return None
    c2pa = _library()
    try:
        context = c2pa.Context.from_dict(_settings(trust))
    except c2pa.C2paError as error:
        raise UsageError(f"the trust list is refused: {error}", "is --trust-anchors a PEM file?") from error
    try:
        with context, c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
            return _credentials(_parsed(reader.json()), _certificate(reader), trust)
    except c2pa.C2paError.ManifestNotFound:  # the mark stood somewhere else in the file
        return None
    except Exception as error:  # whatever a hostile manifest makes of the library or of its JSON
        if "remote manifest" in str(error):  # the file points to one; where to, its XMP says
            return None
        raise ImageError(f"carries a C2PA manifest that cannot be read: {error}") from error


def _settings(trust: TrustList | None) -> dict[str, dict[str, Any]]:
    if trust is None:
        return OFFLINE
    usages = {"trust_config": trust.usages} if trust.usages else {}
    verify = OFFLINE["verify"] | {"verify_trust": True}
    return OFFLINE | {"trust": {"trust_anchors": trust.anchors} | usages, "verify": verify}


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MOST_JSON:
        raise ValueError("the store is too large")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _certificate(reader: Any) -> dict[str, Any]:
    """The active manifest's certificate and time stamp, as the library's crJSON tells them; empty where it does not."""
    try:
        signature = _parsed(reader.crjson())["manifests"][0]["signature"]
    except Exception:  # an addition: what else is known is told without it
        return {}
    return signature if isinstance(signature, dict) else {}


@functools.cache
def _library() -> Any:
    """The module c2pa. Its loader looks in the working folder first, where a file from anywhere may lie: not here."""
    spec = importlib.util.find_spec("c2pa")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("verifying a C2PA manifest needs c2pa-python", "c2pa")
    native = Path(spec.submodule_search_locations[0]) / "libs" / _LIBRARY.get(sys.platform, "libc2pa_c.so")
    before = os.environ.get("C2PA_LIBRARY_NAME")
    try:
        ctypes.CDLL(str(native))  # so that one that does not load is not looked for elsewhere
        os.environ["C2PA_LIBRARY_NAME"] = str(native)
        import c2pa
    except (OSError, ImportError, RuntimeError) as error:
        raise MissingExtra(f"c2pa-python does not load: {error}", "c2pa") from error
    finally:
        os.environ.pop("C2PA_LIBRARY_NAME", None)
        if before is not None:
            os.environ["C2PA_LIBRARY_NAME"] = before
    return c2pa


def _credentials(store: dict[str, Any], signature: dict[str, Any], trust: TrustList | None) -> Credentials:
    manifests = list(_lineage(store))
    info = manifests[0].get("signature_info") or {}
    signer = ", ".join(str(info[key]) for key in ("common_name", "issuer") if info.get(key))
    generators = [g for manifest in manifests for g in _generators(manifest)]
    made = [m for manifest in manifests for m in _made(manifest)]
    codes = list(_codes(store))
    failures = sorted((c for c in codes if c != UNTRUSTED), key=EXPIRED.__eq__)  # what is worse comes first
    certificate = signature.get("certificateInfo") or {}
    validity, issuer = certificate.get("validity") or {}, certificate.get("issuer") or {}
    return Credentials(
        _state(store, failures),
        next(iter(failures), ""),
        signer,
        tuple(dict.fromkeys(generators))[:MOST],
        tuple(dict.fromkeys(made))[:MOST],
        "not checked" if trust is None else ("no" if UNTRUSTED in codes or not _vouched(store) else "yes"),
        ", ".join(str(issuer[key]) for key in ("CN", "O") if issuer.get(key)),
        str(validity.get("notBefore") or ""),
        str(validity.get("notAfter") or ""),
        _good_now(str(validity.get("notBefore")), str(validity.get("notAfter"))),
        str(info.get("time") or ""),
        tuple(dict.fromkeys(a for manifest in manifests for a in _actions(manifest)))[:MOST_INGREDIENTS],
        tuple(i for manifest in manifests for i in _ingredients(manifest))[:MOST_INGREDIENTS],
    )


def _good_now(start: str, end: str) -> bool:
    try:
        return datetime.fromisoformat(start) <= datetime.now(UTC) <= datetime.fromisoformat(end)
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


def _vouched(store: dict[str, Any]) -> bool:
    """Whether the library found the active manifest's signer on the trust list."""
    active = (store.get("validation_results") or {}).get("activeManifest") or {}
    return any(entry.get("code") == "signingCredential.trusted" for entry in active.get("success") or [])


def _state(store: dict[str, Any], failures: list[str]) -> State:
    said = store.get("validation_state")
    if said == "Trusted":
        return "trusted"
    if said == "Valid":
        return "valid"
    return "expired" if set(failures) == {EXPIRED} else "broken"


def _lineage(store: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The active manifest, then that of the picture it was made from, and so on: an editor's manifest comes first."""
    label: Any = store["active_manifest"]
    for _ in range(MOST):
        manifest = store["manifests"][label]
        yield manifest
        parents = [i for i in manifest.get("ingredients") or [] if i.get("relationship") == "parentOf"]
        label = next((i.get("active_manifest") for i in parents), None)
        if label not in store["manifests"]:
            return


def _generators(manifest: dict[str, Any]) -> Iterator[str]:
    for info in manifest.get("claim_generator_info") or []:
        yield _program(info)
    if not manifest.get("claim_generator_info") and manifest.get("claim_generator"):
        yield _program(manifest["claim_generator"])


def _program(said: object) -> str:
    """A program as manifests name it: a text, or its name and version."""
    if isinstance(said, dict):
        return " ".join(str(said[key]) for key in ("name", "version") if said.get(key))
    return str(said or "")


def _all_actions(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label")).startswith("c2pa.actions"):
            yield from assertion["data"]["actions"]


def _actions(manifest: dict[str, Any]) -> Iterator[str]:
    for action in _all_actions(manifest):
        tool = _program(action.get("softwareAgent"))
        yield str(action.get("action", "")) + (f" with {tool}" if tool else "")


def _made(manifest: dict[str, Any]) -> Iterator[Made]:
    for action in _all_actions(manifest):
        if kind := action.get("digitalSourceType"):
            tool = _program(action.get("softwareAgent"))
            yield Made(str(action.get("action", "")), tool, str(kind).rstrip("/").rpartition("/")[2])


def _ingredients(manifest: dict[str, Any]) -> Iterator[str]:
    for ingredient in (manifest.get("ingredients") or [])[:MOST_INGREDIENTS]:
        title, kind = str(ingredient.get("title") or "untitled"), str(ingredient.get("relationship") or "")
        yield f"{title} ({kind}{', with a manifest of its own' if ingredient.get('active_manifest') else ''})"


def _codes(store: dict[str, Any]) -> Iterator[str]:
    """Codes of what failed, in the active manifest first, then in what its ingredients are found to be now."""
    results = store.get("validation_results") or {}
    deltas = [delta.get("validationDeltas") for delta in results.get("ingredientDeltas") or []]
    for part in [results.get("activeManifest"), *deltas]:
        for entry in (part or {}).get("failure") or []:
            yield str(entry.get("code"))
