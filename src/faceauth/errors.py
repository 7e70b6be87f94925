"""Everything faceauth raises on purpose, with the exit code that the command line gives it.

    FaceAuthError            1  something went wrong; `hint` names the next step
    ├── UsageError           2  what was asked for makes no sense: an option, a suffix, a path
    │   └── ConfigError      2  a TOML config with an unknown key or a value out of range
    ├── SourceTypeError      2  an object that is no image, nor a way to one; a TypeError too
    ├── ImageError           3  one image could not be read; a run goes on and gives it a row
    ├── ModelError           1  a model file that is missing, broken or not one of ours
    ├── DataError            1  a corpus or split that cannot be trained or judged on
    └── MissingExtra         1  an optional dependency is needed; the hint is the pip command

This module knows nothing of images, models or terminals.
"""


class FaceAuthError(Exception):
    """An error a user can act on: one line, and a hint that names the next step."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["FaceAuthError"], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)  # keeps the hint across worker processes

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class UsageError(FaceAuthError):
    """What was asked for makes no sense: an option, a suffix, a path."""

    exit_code = 2


class ConfigError(UsageError):
    """A TOML config with an unknown key or a value out of range."""


class SourceTypeError(FaceAuthError, TypeError):
    """An object that is no image, nor a way to one."""

    exit_code = 2


class ImageError(FaceAuthError):
    """One image could not be read; `sha256` is that of its bytes, None where they could not be read either."""

    exit_code = 3
    sha256: str | None = None


class ModelError(FaceAuthError):
    """A model file that is missing, broken or not one of ours."""


class DataError(FaceAuthError):
    """A corpus or split that cannot be trained or judged on."""


class MissingExtra(FaceAuthError):
    """An optional dependency is needed for what was asked."""

    def __init__(self, message: str, extra: str) -> None:
        super().__init__(message, f"pip install 'faceauth[{extra}]'")
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str]]:
        return type(self), (self.message, self.extra)
