"""faceauth: is this face photograph real, and if not, what made it?

>>> import faceauth
>>> detector = faceauth.load()
>>> detector.detect("photo.jpg")

Importing this loads nothing but the standard library; what a name needs is loaded when it is first used.
"""

import os
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.errors import (
        ConfigError,
        DataError,
        FaceAuthError,
        ImageError,
        MissingExtra,
        ModelError,
        UsageError,
    )
    from faceauth.images import Limits
    from faceauth.verdict import Face, Verdict

__version__ = "0.1.0"

_HOMES = {
    "Detector": "detector",
    "Limits": "images",
    "Face": "verdict",
    "Verdict": "verdict",
    "FaceAuthError": "errors",
    "UsageError": "errors",
    "ConfigError": "errors",
    "ImageError": "errors",
    "ModelError": "errors",
    "DataError": "errors",
    "MissingExtra": "errors",
}

__all__ = [
    "ConfigError",
    "DataError",
    "Detector",
    "Face",
    "FaceAuthError",
    "ImageError",
    "Limits",
    "MissingExtra",
    "ModelError",
    "UsageError",
    "Verdict",
    "__version__",
    "load",
    "rows",
]


def load(model: "str | os.PathLike[str] | None" = None, **options: Any) -> "Detector":
    """Open a detector with the default model, with one of the package by its name, or with the model file at a path.

    Options are those of `Detector`: `threshold` or `false_alarms`, `recheck`, `whole_image`, `limits`, `learned`.

    Raises:
        ModelError: where there is no such file or name, or it is not a faceauth model.
        UsageError: for an option that cannot be: of another type, or out of range.
    """
    from faceauth.detector import Detector

    return Detector(os.fspath(model) if isinstance(model, os.PathLike) else model, **options)


def rows(verdicts: "Verdict | Iterable[Verdict]") -> list[dict[str, Any]]:
    """One dict a face of every verdict, as every output has them: `pandas.DataFrame(faceauth.rows(verdicts))`."""
    from faceauth.verdict import Verdict

    return [row for v in ([verdicts] if isinstance(verdicts, Verdict) else verdicts) for row in v.rows()]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"faceauth.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'faceauth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
