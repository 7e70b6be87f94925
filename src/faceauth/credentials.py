"""C2PA content credentials: whether a file carries a manifest, what it claims, who signed it, whether that still holds.

Read with c2pa-python (the extra `c2pa`). Nothing is fetched: no manifest that lies elsewhere, no revocation, no trust
list. None is shipped either, so a signer is never vouched for, and "valid" says that the file is as it was signed, by
whomever. It knows nothing of pixels, and its texts are the file's own: whoever shows them cleans them.
"""

import ctypes
import functools
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faceauth.errors import ImageError, MissingExtra

# How the store's description box begins in every format that can hold one: C2PA specification 2, section 11.1.4.
MARK = b"jumdc2pa"
# The library would fetch a manifest that a file only points to, and what identity assertions name. The makers of time
# stamps are as unknown here as signers are: to hold that against them would call every picture broken whose signer's
# certificate has expired since.
OFFLINE: dict[str, dict[str, Any]] = {
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_timestamp_trust": False},
}
EXPIRED = "signingCredential.expired"
MOST = 4  # of each kind of claim, and of the manifests of what was edited
_LIBRARY = {"darwin": "libc2pa_c.dylib", "win32": "c2pa_c.dll"}


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
        state: valid where signature and hashes hold, trusted where the signer is on a trust list besides, expired where
            no time stamp says that the certificate was still good when they were made; else broken.
        failure: the specification's first code for what does not hold; empty where all does.
        signer: common name and organisation of the certificate that signed last; anybody can make one.
        generators: the programs that wrote the manifests, last first.
        made: how the picture came about, last first.
    """

    state: Literal["trusted", "valid", "expired", "broken"]
    failure: str
    signer: str
    generators: tuple[str, ...]
    made: tuple[Made, ...]


def read(data: bytes) -> Credentials | None:
    """What the C2PA manifests in a file's bytes say; None where it carries none.

    Raises:
        MissingExtra: it carries one, and c2pa-python is not there to read it.
        ImageError: it carries one that cannot be read.
    """
    if MARK not in data:
        return None
    c2pa = _library()
    try:
        with c2pa.Context.from_dict(OFFLINE) as context, c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
            return _credentials(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:  # the mark stood somewhere else in the file
        return None
    except Exception as error:  # whatever a hostile manifest makes of the library or of its JSON
        raise ImageError(f"carries a C2PA manifest that cannot be read: {error}") from error


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


def _credentials(store: dict[str, Any]) -> Credentials:
    manifests = list(_lineage(store))
    signature = manifests[0].get("signature_info") or {}
    signer = ", ".join(str(signature[key]) for key in ("common_name", "issuer") if signature.get(key))
    generators = [g for manifest in manifests for g in _generators(manifest)]
    made = [m for manifest in manifests for m in _made(manifest)]
    failures = sorted(_failures(store), key=EXPIRED.__eq__)  # what is worse comes first
    return Credentials(
        _state(store, failures),
        next(iter(failures), ""),
        signer,
        tuple(dict.fromkeys(generators))[:MOST],
        tuple(dict.fromkeys(made))[:MOST],
    )


def _state(store: dict[str, Any], failures: list[str]) -> Literal["trusted", "valid", "expired", "broken"]:
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


def _made(manifest: dict[str, Any]) -> Iterator[Made]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label")).startswith("c2pa.actions"):
            for action in assertion["data"]["actions"]:
                if kind := action.get("digitalSourceType"):
                    tool = _program(action.get("softwareAgent"))
                    yield Made(str(action.get("action", "")), tool, str(kind).rstrip("/").rpartition("/")[2])


def _failures(store: dict[str, Any]) -> Iterator[str]:
    """Codes of what failed, in the active manifest first; that a signer is on no list is no failure here."""
    results = store.get("validation_results") or {}
    deltas = [delta.get("validationDeltas") for delta in results.get("ingredientDeltas") or []]
    for part in [results.get("activeManifest"), *deltas]:
        for entry in (part or {}).get("failure") or []:
            if (code := str(entry.get("code"))) != "signingCredential.untrusted":
                yield code
