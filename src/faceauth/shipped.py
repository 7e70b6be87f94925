"""The model files that come with the package: where they lie, and the SHA-256 that each has to have.

A file of the package that was damaged or exchanged is refused when it is opened. Whoever can change this module can
change the hashes too: it shows accidents, and an exchange of the weights alone.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

from faceauth.errors import ModelError

SHA256 = {
    "accurate": "c9815fef6747fd3bb91ee171c0eddec4d3ef50812be75b379d8eb2286a9a7fe3",
    "centerface": "aaacbf0f827c3506a65aaa85ec74f19e1410bdde9d2648c95e90464a32c33cc7",
    "fast": "948c562efcc2097c3d24c231a1e1d2ef5410e2d1828dd64ff22ee83e97bbcdc3",
}


def folder() -> Path:
    """Where the model files of the package lie."""
    return Path(str(files("faceauth") / "assets"))


def digest(path: Path, data: bytes) -> str:
    """The SHA-256 of a model file's content. Raises ModelError for a file of the package that is not as it was made."""
    found = hashlib.sha256(data).hexdigest()
    expected = SHA256.get(path.stem) if path.parent == folder() else None
    if expected is not None and expected != found:
        raise ModelError(
            f"{str(path)!r} is not the file that faceauth came with: its SHA-256 is {found[:16]}..., not "
            f"{expected[:16]}...",
            "install faceauth again, or give a model of your own with --model PATH",
        )
    return found
