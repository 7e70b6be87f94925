"""faceauth: is this face photograph real, and if not, what made it?

>>> import faceauth
>>> detector = faceauth.load()
>>> detector.detect("photo.jpg")

Importing this loads nothing but the standard library; what a name needs is loaded when it is first used.
"""

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
]


def load(model: "str | None" = None, **options: Any) -> "Detector":
    """Open a detector: the embedded model, or the model file at `model`.

    Options are those of `Detector`: `threshold` or `false_alarms`, `second_look`, `faces`, `all_faces`, `limits`,
    `learned`.

    Raises:
        ModelError: where there is no such file, or it is not a faceauth model.
    """
    from faceauth.detector import Detector

    return Detector(model, **options)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"faceauth.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'faceauth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
