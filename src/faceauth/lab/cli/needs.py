"""What the laboratory needs beyond the base installation."""

from faceauth.errors import MissingExtra


def need_lab() -> None:
    """Raises MissingExtra where the extra `lab` is not installed."""
    try:
        import onnx  # noqa: F401
        import pandas  # noqa: F401
        import pydantic  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"the laboratory needs {error.name}", "lab") from error
